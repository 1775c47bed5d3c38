// Where to look next, while no source is open: what was found, what is missed most,
// and which tests get nowhere.

import { on, state } from "./bus.js";
import { byId, element, everyFrame, setBar, setChildren, setRows, setText, setTime } from "./dom.js";
import { count, counted, duration } from "./format.js";
import { filePath, pointFunctionName, shortPath, shortPlace } from "./names.js";
import { reportTime } from "./report.js";
import { isSourceOpen } from "./source.js";
import { text, u32s, wasm } from "./wasm.js";

const MOST_FINDINGS = 3, MOST_FILES = 5, MOST_FUNCTIONS = 8;
// Ordering all functions costs more than an update should.
const INTERVAL_MS = 2000;
// A test that has run nothing for so long gets nowhere.
const STUCK_MS = 30_000;
const STUCK_STATES = ["never started", "failed", "crashed"];
// Of `listFiles` and `listFunctions` in main.zig.
const BY_UNCOVERED = 1, DESCENDING = 1, HIDE_STD = 1, HIDE_COVERED = 2;

let dom;
let sections;
// By target and test: {runs, since}, to see which tests stand still.
const progress = new Map();
let timer = null;
let lastTime = -Infinity;
// What the lists were made of; null to make them anew.
let drawn = null;

export function start() {
  build();
  const showSoon = everyFrame(show);
  for (const event of ["route", "source", "target", "index", "points", "findings", "entryPoints"]) {
    on(event, () => {
      drawn = null;
      showSoon();
    });
  }
  on("server", (changed) => {
    if (!("targets" in changed)) return;
    noteProgress();
    showLater();
  });
  on("coverage", showLater);
  // A test that stands still changes nothing that would be told.
  setInterval(showLater, STUCK_MS / 3);
  show();
}

function build() {
  sections = {
    findings: makeSection("Newest findings", "nextFindings"),
    tests: makeSection("Tests that get nowhere", "nextTests"),
    functions: makeSection("Functions that are covered in part", "nextFunctions"),
    files: makeSection("Files with the most points not covered", "nextFiles"),
    entryPoints: makeSection("Entry points", "entryPointsList"),
  };
  dom = {
    next: element("section", { attributes: { id: "next", "aria-labelledby": "nextTitle" } }),
    empty: element("p", { class: "empty muted", attributes: { id: "nextEmpty" } }),
  };
  dom.next.append(
    element("h2", { text: "Where to look next", attributes: { id: "nextTitle" } }), dom.empty,
    element("div", { class: "nextGrid" }, ...Object.values(sections).map((section) => section.dom)));
  byId("pane").append(dom.next);
}

function makeSection(title, id) {
  const list = element("ul", { attributes: { id } });
  return { dom: element("section", { hidden: true }, element("h3", { text: title }), list), list };
}

function showLater() {
  timer ??= setTimeout(() => {
    timer = null;
    show();
  }, Math.max(0, lastTime + INTERVAL_MS - performance.now()));
}

function show() {
  dom.next.hidden = isSourceOpen();
  if (dom.next.hidden || dom.next.closest("[hidden]") !== null || document.hidden) return;
  lastTime = performance.now();
  // Who aims at a link should hit it.
  if (drawn !== null && dom.next.matches(":hover, :focus-within")) return showLater();
  showFindings();
  showTests();
  const covered = state.hasCoverage ? wasm.coveredCount() >>> 0 : "unknown";
  if (covered !== drawn) {
    drawn = covered;
    showFiles();
    showFunctions();
    showEntryPoints();
  }
  const isEmpty = Object.values(sections).every((section) => section.dom.hidden);
  setText(dom.empty, isEmpty ? emptyText() : "");
  dom.empty.hidden = !isEmpty;
}

function emptyText() {
  if (!state.hasCoverage) return "As soon as the fuzzer reports its coverage, this is where it leads to.";
  return "Nothing stands out. Open a file from the list to read its source with its coverage.";
}

function fill({ dom: section, list }, values, make, render) {
  section.hidden = values.length === 0;
  setRows(list, values, make, render);
}

// ------------------------------------------------------------------- sections

function showFindings() {
  const known = Array.isArray(state.server.findings) ? [...state.server.findings] : [];
  known.sort((a, b) => b.first_time - a.first_time);
  fill(sections.findings, known.slice(0, MOST_FINDINGS), () => element("li", {},
    element("a", { class: "nextLink" },
      element("span", { class: "badge", data: { state: "bad" } }), element("span", { class: "nextName" })),
    element("p", { class: "nextFacts muted" }, element("time"), element("span"))), renderFinding);
}

function renderFinding(row, { id, kind, message, test, place, first_time: time }) {
  const [link, facts] = row.children;
  link.href = `#finding/${encodeURIComponent(id)}`;
  setText(link.children[0], String(kind));
  setText(link.children[1], firstLine(message));
  link.title = String(message);
  if (Number.isFinite(time)) setTime(facts.children[0], time);
  setText(facts.children[1], [test, shortened(place)].filter(Boolean).map((fact) => ` · ${fact}`).join(""));
}

function showTests() {
  const now = performance.now();
  const stuck = [];
  for (const target of targets()) {
    for (const test of target.tests ?? []) {
      const reason = whyStuck(target, test, now);
      if (reason !== "") stuck.push({ target, test, reason });
    }
  }
  fill(sections.tests, stuck, () => element("li", {},
    element("span", { class: "nextName" }), " ", element("span", { class: "badge", data: { state: "busy" } }),
    element("p", { class: "nextFacts muted" })), (row, { target, test, reason }) => {
    setText(row.children[0], String(test.name));
    setText(row.children[1], String(test.state));
    row.children[1].dataset.state = test.state === "fuzzing" ? "busy" : "bad";
    setText(row.children[2], targets().length > 1 ? `${target.name}: ${reason}` : reason);
  });
}

function whyStuck(target, test, now) {
  if (STUCK_STATES.includes(test.state)) return firstLine(test.text) || "It does not run.";
  // In a report, all stand still.
  if (reportTime !== null) return "";
  const seen = progress.get(testKey(target, test));
  if (test.state !== "fuzzing" || seen === undefined || now - seen.since < STUCK_MS) return "";
  return `No runs for ${duration((now - seen.since) / 1000)}.`;
}

function noteProgress() {
  const now = performance.now();
  for (const target of targets()) {
    for (const test of target.tests ?? []) {
      // Without a number there is nothing to tell a standstill by.
      if (typeof test.n_runs !== "number") continue;
      const key = testKey(target, test);
      if (progress.get(key)?.runs !== test.n_runs) progress.set(key, { runs: test.n_runs, since: now });
    }
  }
}

function testKey(target, test) {
  return JSON.stringify([target.key, test.name]);
}

function targets() {
  return Array.isArray(state.server.targets) ? state.server.targets : [];
}

function showFiles() {
  const files = state.hasCoverage ? ask(wasm.listFiles, HIDE_STD | HIDE_COVERED) : [];
  fill(sections.files, files.slice(0, MOST_FILES), makeMeasured, (row, file) => {
    const total = wasm.fileTotal(file) >>> 0;
    renderMeasured(row, `#f${file}`, shortPath(file), filePath(file), wasm.fileCovered(file) >>> 0, total);
  });
}

function showFunctions() {
  const all = state.hasCoverage && state.hasPoints ? ask(wasm.listFunctions, HIDE_STD | HIDE_COVERED) : [];
  const begun = [];
  for (const each of all) {
    if (wasm.functionCovered(each) >>> 0 > 0) begun.push(each);
    if (begun.length === MOST_FUNCTIONS) break;
  }
  fill(sections.functions, begun, makeMeasured, (row, each) => {
    const point = wasm.functionPoint(each) >>> 0;
    const total = wasm.functionTotal(each) >>> 0;
    const name = text(wasm.functionName(each));
    renderMeasured(row, `#l${point}`, name, shortPlace(point), wasm.functionCovered(each) >>> 0, total);
  });
}

function ask(list, flags) {
  wasm.inbox(0);
  return [...u32s(list(BY_UNCOVERED, DESCENDING, flags))];
}

function makeMeasured() {
  return element("li", {},
    element("a", { class: "nextLink" }, element("span", { class: "nextName" })),
    element("p", { class: "nextFacts muted" }), element("span", { class: "bar" }));
}

function renderMeasured(row, href, name, title, covered, total) {
  const [link, facts, bar] = row.children;
  link.href = href;
  link.title = title;
  setText(link.firstElementChild, name);
  setText(facts, `${count(total - covered)} of ${counted(total, "point")} not covered`);
  setBar(bar, covered, total);
}

function showEntryPoints() {
  const points = state.hasIndex ? [...u32s(wasm.entryPoints())] : [];
  const hasFile = (point) => (wasm.locationFile(point) >>> 0) < wasm.fileCount() >>> 0;
  fill(sections.entryPoints, points, () => element("li"), (row, point) => {
    const name = pointFunctionName(point);
    const place = hasFile(point) ? `${shortPlace(point)}:${wasm.locationColumn(point) >>> 0}` : shortPlace(point);
    const shown = hasFile(point)
      ? element("a", { class: "nextLink", text: place, href: `#l${point}`, title: filePath(wasm.locationFile(point)) })
      : element("span", { text: place });
    setChildren(row, name === "" ? [shown] : [shown, element("p", { class: "nextFacts muted", text: name })]);
  });
}

function firstLine(text) {
  return String(text ?? "").trim().split("\n")[0];
}

// "…/src/parser.zig:12:5" without the directories.
function shortened(place) {
  const path = String(place ?? "");
  return path.slice(path.lastIndexOf("/") + 1);
}
