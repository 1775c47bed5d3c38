// The open source: its head, its lines or, where there is no source, a list of its
// locations; and the ways from one place in it to another.

import { emit, on, state } from "./bus.js";
import { announce, byId, element, everyFrame, setBar, setText } from "./dom.js";
import { count, counted, percent } from "./format.js";
import { FRESH_MS, latestPoints, startFresh } from "./fresh.js";
import { addKey } from "./keys.js";
import { filePath, pointFunctionName, shortPath, startNames } from "./names.js";
import { PointCard } from "./pointcard.js";
import { go, placeHref, route } from "./route.js";
import { loadSource } from "./sourcefile.js";
import { SourceKeys } from "./sourcekeys.js";
import {
  lineColumns, lineText, makeFindingBadge, makeLine, makePointRow, pointPlace, pointState, updateLine, updatePointRow,
} from "./sourcetext.js";
import { Strip } from "./strip.js";
import { VirtualRows } from "./virtual.js";
import { text, u32s, u8s, wasm } from "./wasm.js";

const ROW_HEIGHT = 20, POINT_ROW_HEIGHT = 28;
// Sooner than this most sources are there, and a word about loading would only flicker.
const LOADING_MS = 150;
const SAVE_SCROLL_MS = 150;
const NONE = 0xffff_ffff;
// What `seek` of main.zig looks for.
const UNCOVERED = 0, NEW = 1;

// What wasm has open and the rows show. `location` and `line` (from 1) are what the
// address names in it, or null.
const shown = { file: null, location: null, line: null };
// The file that was asked for last: `shown.file`, or one that is still loading.
let wanted = null;
// "text", "points" or "none".
let content = "none";
let loading = null;
let modified = null;
let why = "";
// Whether asking again may help.
let isTemporary = false;
// The points of the file where it has no text, by line and column.
let points = new Uint32Array();
// Findings by their lines, from 0.
let findings = new Map();
// Where to scroll once the source is there: {scroll} in px, {} for the place that the
// address names; null if nothing is to be done.
let wish = { scroll: history.state?.scroll };
// Whether the address is changing because of a click in the source.
let staysInSight = false;
let saveTimer = null;
let fadeTimer = null;
let stepped = null;

let dom;
let rows, pointRows, card, strip, keys;

export function isSourceOpen() {
  return wanted !== null;
}

// The lines, from 0, of the open text that can be seen: {file, first, last}; null if there is no text.
export function visibleLines() {
  return content === "text" && loading === null ? { file: shown.file, first: rows.first, last: rows.last } : null;
}

export function start() {
  startFresh();
  startNames();
  build();
  // After route.js has heard of it, and told us.
  addEventListener("popstate", onPopState);
  on("route", onRoute);
  on("target", close);
  on("index", () => {
    wish ??= { scroll: dom.scroll.scrollTop };
    wanted = null;
  });
  on("coverage", update);
  on("points", update);
  on("findings", onFindings);
  on("server", () => {
    renderNote();
    loadAgain();
  });
  on("connection", loadAgain);
  on("source", () => state.ownServer === false && loadAgain());
  addKey("j", "Next line that is not covered", () => step(1, UNCOVERED));
  addKey("k", "Previous line that is not covered", () => step(-1, UNCOVERED));
  addKey("n", "Next line that is newly covered", () => step(1, NEW));
  addKey("p", "Previous line that is newly covered", () => step(-1, NEW));
}

function build() {
  dom = {
    source: element("section", { hidden: true, attributes: { id: "source", "aria-labelledby": "sourceTitle" } }),
    title: element("h2", { attributes: { id: "sourceTitle" } }),
    coverage: element("p", { attributes: { id: "sourceCoverage" } },
      element("span"), element("span", { class: "bar" })),
    note: element("p", { attributes: { id: "sourceNote" }, hidden: true }),
    legend: makeLegend(),
    body: element("div", { attributes: { id: "sourceBody" } }),
    scroll: element("div", {
      tabIndex: 0, attributes: { id: "sourceScroll", role: "region", "aria-label": "Source text" },
    }),
    points: element("div", {
      tabIndex: 0, hidden: true,
      attributes: { id: "sourcePoints", role: "table", "aria-label": "Locations in this file" },
    }),
  };
  const uncovered = makeSteps("Not covered", UNCOVERED, ["previousUncovered", "k"], ["nextUncovered", "j"]);
  const fresh = makeSteps("New", NEW, ["previousNew", "p"], ["nextNew", "n"]);
  const closeLink = element("a", {
    class: "button", text: "✕", href: "#coverage", title: "Close the source",
    attributes: { id: "closeSource", "aria-label": "Close the source" },
  });
  dom.head = element("header", { attributes: { id: "sourceHead" } },
    dom.title, dom.coverage, element("div", { class: "sourceTools" }, uncovered, fresh, closeLink),
    dom.legend, dom.note);
  dom.source.append(dom.head, dom.body);
  dom.body.append(dom.scroll, dom.points);
  byId("pane").append(dom.source);

  rows = new VirtualRows(dom.scroll, { rowHeight: ROW_HEIGHT, render: makeRow, count: 0 });
  const render = (index) => makePointRow(shown, points[index]);
  pointRows = new VirtualRows(dom.points, { rowHeight: POINT_ROW_HEIGHT, render, count: 0 });
  card = new PointCard(dom.scroll);
  keys = new SourceKeys(dom.scroll, rows);
  strip = new Strip(dom.scroll, rows, stripMarks);
  dom.body.append(strip.dom);
  const room = new ResizeObserver(() => {
    if (wish !== null && loading === null && content !== "none") reveal();
  });
  room.observe(dom.scroll);
  room.observe(dom.points);
  const keysSoon = everyFrame(() => keys.update());
  dom.scroll.addEventListener("scroll", () => {
    keysSoon();
    saveScroll();
  }, { passive: true });
  // What is clicked at in the source is in sight: then nothing should move.
  dom.scroll.addEventListener("click", () => {
    staysInSight = true;
    queueMicrotask(() => staysInSight = false);
  }, { capture: true });
}

function makeLegend() {
  const item = (text, ...shapes) =>
    element("li", {}, ...shapes.map((shape) => element("span", { class: shape })), text);
  return element("ul", { attributes: { id: "legend", "aria-label": "Signs" } },
    item("covered", "gutterShape covered", "shape covered"), item("partly", "gutterShape partly"),
    item("not covered", "gutterShape missed", "shape missed"));
}

function makeSteps(label, kind, [previous, previousKey], [next, nextKey]) {
  const button = (id, key, direction, sign, word) => {
    const name = `${word} line that is ${kind === NEW ? "newly covered" : "not covered"}`;
    const made = element("button", {
      type: "button", text: sign, title: `${name} (${key})`,
      attributes: { id, "aria-label": name, "aria-keyshortcuts": key },
    });
    made.addEventListener("click", () => step(direction, kind));
    return made;
  };
  return element("span", { class: "steps", attributes: { role: "group", "aria-label": label } },
    element("span", { class: "stepsLabel", text: label, attributes: { "aria-hidden": "true" } }),
    button(previous, previousKey, -1, "↑", "Previous"), button(next, nextKey, 1, "↓", "Next"));
}

// --------------------------------------------------------- opening and closing

function onRoute() {
  clearTimeout(saveTimer);
  if (route.view !== "coverage") {
    wish = null;
    return;
  }
  if (!state.hasIndex || (route.file === null && route.location === null)) return close();
  const file = route.file ?? NONE;
  wish ??= {};
  if (file !== wanted) return void open(file);
  if (loading === null) showPlace();
}

// Going back leads to what was in sight then, which is more than the address tells.
function onPopState(event) {
  const scroll = event.state?.scroll;
  if (scroll === undefined || route.view !== "coverage" || wanted === null) return;
  wish = { scroll };
  if (loading === null) reveal();
}

function close() {
  loading?.abort();
  loading = null;
  wanted = shown.file = null;
  if (content === "text") wasm.closeSource();
  content = "none";
  rows.setCount(0);
  pointRows.setCount(0);
  card.hide();
  dom.source.hidden = true;
  // What the history remembers of a file belongs to that file.
  if (state.hasIndex) wish = null;
  emit("source");
}

async function open(file) {
  loading?.abort();
  loading = new AbortController();
  const { signal } = loading;
  wanted = file;
  why = "";
  modified = null;
  dom.source.hidden = false;
  renderHead();
  const timer = setTimeout(() => showNothing("Loading the source…"), LOADING_MS);
  let outcome;
  try {
    outcome = hasFile(file) ? await loadSource(file, signal) : { why: "The executable has no such file." };
  } catch (error) {
    if (signal.aborted) return;
    outcome = { why: String(error) };
  } finally {
    clearTimeout(timer);
  }
  if (signal.aborted) return;
  // Not known yet whether there is a source: `loadAgain` will ask.
  if (outcome === null) {
    isTemporary = true;
    return showNothing("Loading the source…");
  }
  loading = null;
  take(file, outcome);
}

function take(file, outcome) {
  shown.file = file;
  isTemporary = outcome.isTemporary === true;
  why = outcome.why ?? "";
  modified = outcome.modified ?? null;
  content = outcome.lines !== undefined ? "text" : "points";
  points = content === "points" ? u32s(wasm.fileLocations(file)) : new Uint32Array();
  namePlace();
  findings = findingsByLine();
  dom.scroll.hidden = strip.dom.hidden = content !== "text";
  dom.points.hidden = content === "text" || points.length === 0;
  dom.scroll.style.setProperty("--columns", 0);
  dom.scroll.style.setProperty("--digits", String(outcome.lines ?? 0).length);
  dom.scroll.setAttribute("aria-label", `Source of ${titleOf(file)}`);
  card.hide();
  dom.scroll.scrollTop = dom.scroll.scrollLeft = 0;
  rows.setCount(content === "text" ? outcome.lines : 0);
  pointRows.setCount(points.length);
  renderHead();
  reveal();
  fadeLater();
  emit("source");
}

function showNothing(text) {
  why = text;
  content = "none";
  rows.setCount(0);
  pointRows.setCount(0);
  dom.scroll.hidden = strip.dom.hidden = dom.points.hidden = true;
  renderNote();
}

function loadAgain() {
  if (wanted === null || !isTemporary || state.connection !== "connected") return;
  isTemporary = false;
  open(wanted);
}

// -------------------------------------------------------------------- places

function showPlace() {
  namePlace();
  updateRows();
  reveal();
}

function namePlace() {
  shown.location = route.file === shown.file || shown.file === NONE ? route.location : null;
  shown.line = route.file === shown.file ? route.line : null;
}

// Brings into sight what the address names, or what was in sight when the reader left.
function reveal() {
  // A view that is hidden still cannot be scrolled; `wish` waits until there is room.
  if (content !== "none" && (content === "text" ? dom.scroll : dom.points).clientHeight === 0) return;
  const { scroll } = wish ?? {};
  wish = null;
  if (content === "points") revealPoint();
  if (content !== "text") return;
  // Where the source is below the lists, it may be out of sight as a whole.
  dom.source.scrollIntoView({ block: "nearest" });
  const line = shownLine();
  if (scroll !== undefined) dom.scroll.scrollTop = scroll;
  else if (line !== null) revealLine(line);
  keys.update();
}

function revealLine(line) {
  if (!staysInSight || line < rows.first || line > rows.last) rows.scrollToRow(line, { block: "center" });
  const row = rows.row(line);
  const mark = row?.querySelector(".mark.current");
  mark?.scrollIntoView({ block: "nearest", inline: "nearest" });
  // Who went there from within the source goes on from there.
  const isByReader = staysInSight || (stepped !== null && stepped === shown.location);
  if (!isByReader || dom.scroll.querySelector(":focus") === null) return;
  (mark ?? row?.querySelector(".lineNumber"))?.focus({ preventScroll: true });
}

function revealPoint() {
  const index = points.indexOf(shown.location);
  if (index >= 0) pointRows.scrollToRow(index, { block: "center" });
}

// The line, from 0, that the address names; null if there is none.
function shownLine() {
  if (shown.location !== null) {
    const line = wasm.lineOfPoint(shown.location) >>> 0;
    if (line !== NONE) return line;
  }
  return shown.line === null ? null : Math.min(shown.line, rows.count) - 1;
}

function saveScroll() {
  clearTimeout(saveTimer);
  // Browsers refuse too many changes of the history: one after the scrolling.
  saveTimer = setTimeout(() => {
    if (wish !== null || loading !== null || content !== "text" || route.file !== shown.file) return;
    history.replaceState({ ...history.state, scroll: dom.scroll.scrollTop }, "");
  }, SAVE_SCROLL_MS);
}

function step(direction, kind) {
  if (route.view !== "coverage" || loading !== null || content === "none") return;
  const point = content === "text" ? seekLine(direction, kind) : seekPoint(direction, kind);
  if (point === NONE) return announce(`No line here is ${kind === NEW ? "newly covered" : "without coverage"}.`);
  // Many steps are one in the history.
  const isStep = stepped !== null && stepped === route.location;
  stepped = point;
  go(`#l${point}`, { replace: isStep });
  const name = pointFunctionName(point);
  announce(`${pointPlace(point)}, ${pointState(point)}${name === "" ? "" : `, in ${name}`}`);
}

// From where the reader is: the current line, or if that is out of sight, the edge of what is.
function seekLine(direction, kind) {
  const current = shownLine();
  const isInSight = current !== null && current >= rows.first && current <= rows.last;
  const line = isInSight ? current : direction === 1 ? rows.first - 1 : rows.last + 1;
  // What was covered last is new, as in the list of it.
  const oldest = latestPoints().at(-1);
  wasm.setNewSince(oldest === undefined ? Infinity : wasm.pointTime(oldest) - 0.001);
  return wasm.seek(line, direction, kind) >>> 0;
}

function seekPoint(direction, kind) {
  const latest = new Set(kind === NEW ? latestPoints() : []);
  const isWanted = (point) => kind === NEW ? latest.has(point) : !wasm.locationCovered(point);
  const from = points.indexOf(shown.location);
  for (let i = 1; i <= points.length; i += 1) {
    const index = from === -1 && direction === -1 ? points.length - i : from + direction * i;
    const point = points[(index % points.length + points.length) % points.length];
    if (isWanted(point)) return point;
  }
  return NONE;
}

// ----------------------------------------------------------------------- rows

function makeRow(line) {
  const row = makeLine(shown, line);
  row.append(...(findings.get(line) ?? []).map(makeFindingBadge));
  const columns = lineColumns(row);
  const known = Number(dom.scroll.style.getPropertyValue("--columns"));
  if (columns > known) dom.scroll.style.setProperty("--columns", columns);
  return row;
}

// Only what is in the document: the rest is drawn as it is when it comes into sight.
function updateRows() {
  for (const [line, row] of rows.entries()) updateLine(shown, row, line, u8s(wasm.lineStates(line, 1))[0]);
  for (const [, row] of pointRows.entries()) updatePointRow(shown, row);
  card.update();
  strip.update();
}

function update() {
  if (wanted === null || loading !== null) return;
  updateRows();
  renderCoverage();
  fadeLater();
}

// Marks stop glowing although nothing else changes.
function fadeLater() {
  clearTimeout(fadeTimer);
  fadeTimer = setTimeout(() => loading === null && updateRows(), FRESH_MS + 100);
}

function onFindings() {
  if (content !== "text" || loading !== null) return;
  findings = findingsByLine();
  rows.refresh();
  strip.update();
}

function findingsByLine() {
  const byLine = new Map();
  const known = Array.isArray(state.server.findings) ? state.server.findings : [];
  for (const finding of known) {
    const [, path, line] = /^(.+):(\d+):\d+$/s.exec(String(finding.place ?? "")) ?? [];
    if (path === undefined || placeHref(path, +line) !== `#f${shown.file}:${+line}`) continue;
    byLine.set(+line - 1, [...byLine.get(+line - 1) ?? [], finding]);
  }
  return byLine;
}

function stripMarks() {
  const fresh = latestPoints().map((point) => wasm.lineOfPoint(point) >>> 0).filter((line) => line !== NONE);
  return { findings: findings.keys(), fresh: new Set(fresh) };
}

// ----------------------------------------------------------------------- head

function renderHead() {
  setText(dom.title, titleOf(wanted));
  dom.title.title = hasFile(wanted) ? filePath(wanted) : "";
  renderCoverage();
  renderNote();
}

function renderCoverage() {
  const covered = hasFile(wanted) ? wasm.fileCovered(wanted) >>> 0 : 0;
  const total = hasFile(wanted) ? wasm.fileTotal(wanted) >>> 0 : 0;
  dom.coverage.hidden = dom.legend.hidden = total === 0;
  const part = percent(covered, total);
  setText(dom.coverage.firstElementChild, `${count(covered)} / ${count(total)} points covered (${part})`);
  setBar(dom.coverage.lastElementChild, covered, total);
  for (const id of ["previousUncovered", "nextUncovered"]) byId(id).disabled = covered === total;
}

function renderNote() {
  const note = why !== "" ? why : content === "text" ? textNotes().join(" ") : "";
  setText(dom.note, note);
  dom.note.hidden = note === "";
}

function textNotes() {
  const notes = [];
  const time = state.server.map?.executable_time;
  if (modified !== null && typeof time === "number" && modified > time) {
    notes.push("This file has changed since the executable was built; marks may be off.");
  }
  const refused = wasm.refusedCount() >>> 0;
  if (refused > 0) {
    const places = counted(refused, "place");
    notes.push(`${places} in this file cannot be read by the parser of Zig ${text(wasm.zigVersion())}, ` +
      "which the page was compiled by: shown without highlighting.");
  }
  if (rows.count === 1 && lineText(0) === "") notes.push("This file is empty.");
  return notes;
}

function titleOf(file) {
  if (hasFile(file)) return shortPath(file);
  return route.location === null ? "No such file" : `Location ${route.location} has no source file`;
}

function hasFile(file) {
  return file !== null && file < wasm.fileCount() >>> 0;
}
