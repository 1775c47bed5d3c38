// What needs saying: why there is nothing to see yet or no more, what is under
// way, and what to do. The most important of it is a card, the rest are lines.

import { on, state } from "./bus.js";
import { earlierBuild, isUnknownTarget, shownTarget, targetList } from "./targets.js";
import { targetHref, targetId, setTarget, wantedTarget } from "./connection.js";
import { announce, byId, element, everyFrame, setRows, setText } from "./dom.js";
import { clockTime, count, counted, duration, percent } from "./format.js";
import { reportTime, unixNow } from "./report.js";
import { loadWasm, wasm } from "./wasm.js";

// What is over sooner is not worth a card that comes and goes.
const PATIENCE_MS = 400;
const TICK_MS = 1000;
// Why there is no coverage, if the server does not say it better.
const SERVER_STATES = {
  building: "The server is building the tests.",
  waiting: "The server is waiting for the fuzzer to start.",
  fuzzing: "The fuzzer runs and has not reported its coverage yet.",
  serving: "The server has no coverage to show.",
  stopped: "The fuzzer has stopped.",
};
const NO_INSTRUMENTATION = {
  old: [
    "Compile the tests for fuzzing: `zig test -ffuzz`, or `.fuzz = true` for their module in build.zig.",
    "Use the LLVM backend, since Zig's own backends do not instrument: `-fllvm`, or `.use_llvm = true`.",
  ],
  new: [
    "Debug builds use Zig's own backend, which does not instrument: pass `-fllvm`, or set `.use_llvm = true` " +
      "for the test in build.zig.",
    "Or build in a release mode with safety, `-OReleaseSafe`, which goes by LLVM.",
    "Tests that you compile yourself also need `-ffuzz`, or `.fuzz = true` for their module.",
  ],
};

let isPatient = true;
let wasConnected = false;
let lostAt = 0;
// When each thing that is under way was first told, by its text.
const begun = new Map();
let render = null;

export function start() {
  render = everyFrame(renderNotice);
  for (const event of ["server", "wasm", "connection", "index", "coverage", "points", "source", "target"]) {
    on(event, render);
  }
  on("connection", onConnection);
  on("target", bePatient);
  byId("noticeRetry").addEventListener("click", () => loadWasm());
  byId("noticeLink").addEventListener("click", onLink);
  byId("noticeLines").addEventListener("click", onLink);
  setInterval(() => begun.size > 0 && render(), TICK_MS);
  bePatient();
}

function onConnection() {
  if (wasConnected) lostAt = unixNow();
  wasConnected = state.connection === "connected";
}

function bePatient() {
  isPatient = true;
  setTimeout(() => {
    isPatient = false;
    render();
  }, PATIENCE_MS);
}

// Links to other maps need no new page.
function onLink(event) {
  const link = event.target.closest("a");
  if (link === null || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  setTarget(link.dataset.id || null);
}

// -------------------------------------------------------------- what to say

// Each is {title, text, steps, log, link: {text, id}, retry, progress}; those
// that `isLine` never become a card. All but the title may be missing.
function notices() {
  return [
    wasmNotice(), connectionNotice(), serverNotice(), progressNotice(), targetNotice(), coverageNotice(),
    ...lineNotices(),
  ].filter((notice) => notice !== null);
}

function wasmNotice() {
  if (reportTime !== null) return reportNotice();
  if (state.wasmFailure !== null) return {
    title: "The page could not load main.wasm",
    text: `${state.wasmFailure.text} The server compiles it from lib/fuzzer/web/main.zig with the Zig that it uses, ` +
      "or with the one of the package ziglang, if that is installed. Without it, coverage is shown plainly: " +
      "no highlighting, no lists of functions, no chart.",
    log: state.wasmFailure.log,
    retry: true,
  };
  if (state.hasWasm || isPatient) return null;
  return {
    title: "Preparing the page",
    text: "The server compiles main.wasm, which takes up to half a minute the first time.",
    progress: { text: "Compiling", done: null, total: null },
  };
}

// All that a report needs is in its file.
function reportNotice() {
  if (state.wasmFailure === null) return null;
  return {
    title: "This report cannot be read",
    text: `${state.wasmFailure.text}. The file may be damaged or cut short, or the browser may be too old.`,
  };
}

function connectionNotice() {
  if (state.connection === "connected" || isPatient) return null;
  if (state.wantsToken) return {
    title: "The server wants its token",
    text: "The one that this browser has is not right any more: a server that is started again makes a new one. " +
      "Open the address that it printed, here or in another tab; then this page goes on.",
    isLine: state.hasIndex,
  };
  if (state.connection === "connecting") return {
    title: "Connecting to the server",
    text: "It does not answer yet. The page tries again every few seconds.",
  };
  return {
    title: "The connection is lost",
    text: `You see what was known at ${clockTime(lostAt)}. The page tries again every few seconds; ` +
      "if the server was stopped, start it again with the same port.",
    isLine: state.hasIndex,
  };
}

function serverNotice() {
  const text = String(state.server.text ?? "").trim();
  const isLog = text.includes("\n");
  if (state.server.state === "failed") return {
    title: "Something failed on the server",
    text: isLog ? "" : text,
    log: isLog ? text : "",
  };
  return isLog ? { title: "From the server", text: "", log: text, isLine: true } : null;
}

function targetNotice() {
  if (!isUnknownTarget()) return null;
  return {
    title: "The server does not know this target",
    text: `The address asks for coverage with the id ${wantedTarget()}, of which there is none in this session.`,
    link: { text: "Show the first target", id: null },
  };
}

function progressNotice() {
  const told = state.server.progress;
  if (state.connection !== "connected" || told === null || typeof told !== "object") return null;
  return {
    title: state.server.state === "building" ? "Building the tests" : "Under way",
    text: "",
    progress: told,
    isLine: state.hasIndex,
  };
}

function coverageNotice() {
  if (!state.hasWasm || state.connection !== "connected" || isUnknownTarget()) return null;
  if (!state.hasIndex) return isPatient ? null : waitingNotice();
  if (wasm.locationCount() === 0) return {
    title: "This executable has no instrumentation",
    text: "It contains no coverage points, so the fuzzer works blindly: it cannot tell which inputs reach new code. " +
      zigVersionText(),
    steps: instrumentationSteps(),
  };
  if (wasm.filesTotal() === 0) return {
    title: "No source to show",
    text: "The executable has no debug info that could be read, so its " +
      `${counted(wasm.locationCount() >>> 0, "coverage point")} belong to no file. ` +
      "The numbers below are right all the same.",
    steps: ["Build without stripping: not with `-OReleaseSmall`, `-fstrip` or `.strip = true`."],
  };
  return null;
}

function waitingNotice() {
  // A failure and what is under way have a card of their own; a map that was told comes next.
  if (state.server.state === "failed" || state.server.progress || state.server.map) return null;
  const text = String(state.server.text ?? "").trim();
  const reason = SERVER_STATES[state.server.state] ?? "The fuzzer has not reported its coverage yet.";
  return {
    title: "No coverage yet",
    text: text === "" || text.includes("\n") ? reason : text,
    steps: state.ownServer === false
      ? ["Coverage comes when a test starts to fuzz, which `zig build test --fuzz` does once it is built."] : [],
  };
}

function zigVersionText() {
  const version = state.server.map?.zig_version;
  return version ? `It was compiled by Zig ${version}.` : "";
}

function instrumentationSteps() {
  const [, minor] = /^0\.(\d+)/.exec(state.server.map?.zig_version ?? "") ?? [];
  if (minor === undefined) return [...NO_INSTRUMENTATION.old.slice(0, 1), ...NO_INSTRUMENTATION.new.slice(0, 2)];
  return +minor < 15 ? NO_INSTRUMENTATION.old : NO_INSTRUMENTATION.new;
}

function lineNotices() {
  const found = [];
  const map = state.server.map;
  if (map?.replaced) found.push({
    title: "The executable on disk is newer than what is shown",
    text: `${map.executable} has changed since ${clockTime(map.executable_time)}: restart the server or build again.`,
    isLine: true,
  });
  if (map?.fault) found.push({
    title: "The coverage file is not as it should be",
    text: `${map.fault}. The page goes on when it is whole again.`,
    isLine: true,
  });
  const build = earlierBuild();
  if (build !== null) found.push({
    title: `You see an earlier build, number ${build.number} of ${build.total}.`,
    text: "",
    link: build.current === null ? undefined : { text: "Show the newest", id: build.current },
    isLine: true,
  });
  // The shown target tells its troubles, and one that cannot be chosen; nothing is told twice.
  for (const target of targetList()) {
    const text = target.text.trim();
    const tells = target === shownTarget() || (target.id === null && target.state === "failed");
    if (text === "" || !tells || String(state.server.text ?? "").includes(text)) continue;
    const isLog = text.includes("\n");
    const title = `${target.name}, ${target.state}`;
    found.push({ title, text: isLog ? "" : text, log: isLog ? text : "", isLine: true });
  }
  return found;
}

// ------------------------------------------------------------------- render

function renderNotice() {
  const found = notices();
  const card = found.find((notice) => !notice.isLine);
  noteBegun(found.flatMap((notice) => notice.progress ?? []));
  byId("notice").hidden = card === undefined;
  if (card !== undefined) renderCard(card);
  const lines = found.filter((notice) => notice !== card);
  byId("noticeLines").hidden = lines.length === 0;
  setRows(byId("noticeLines"), lines, makeLine, renderLine);
  renderOddities();
}

function noteBegun(underWay) {
  const texts = underWay.map(({ text }) => text);
  for (const text of begun.keys()) if (!texts.includes(text)) begun.delete(text);
  for (const text of texts) if (!begun.has(text)) begun.set(text, unixNow());
}

function renderCard({ title, text, steps = [], log = "", link, retry = false, progress: told }) {
  if (byId("noticeTitle").textContent !== title) announce(title);
  setText(byId("noticeTitle"), title);
  setText(byId("noticeText"), text);
  byId("noticeText").hidden = text === "";
  byId("noticeProgress").hidden = told === undefined;
  if (told !== undefined) renderProgress(byId("noticeProgress"), told);
  byId("noticeSteps").hidden = steps.length === 0;
  setRows(byId("noticeSteps"), steps, () => element("li"), renderStep);
  setText(byId("noticeLog"), log);
  byId("noticeLog").hidden = log === "";
  byId("noticeRetry").hidden = !retry;
  byId("noticeLink").hidden = link === undefined;
  if (link !== undefined) renderLink(byId("noticeLink"), link);
}

function renderProgress(dom, { text, done, total }) {
  const [bar, label] = dom.children;
  if (isCounted(done, total)) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
  setText(label, lineOfProgress({ text, done, total }));
}

// One thing to do has no middle.
function isCounted(done, total) {
  return typeof done === "number" && typeof total === "number" && total > 1;
}

function lineOfProgress({ text, done, total }) {
  const part = isCounted(done, total) ? percent(done, total) : "";
  return [String(text), part, duration(unixNow() - begun.get(text))].filter((each) => each !== "").join(" · ");
}

// What stands between backticks is code.
function renderStep(dom, step) {
  if (dom.dataset.step === step) return;
  dom.dataset.step = step;
  dom.replaceChildren(...step.split("`").map((part, i) => i % 2 === 1 ? element("code", { text: part }) : part));
}

function renderLink(dom, { text, id }) {
  setText(dom, text);
  dom.dataset.id = id ?? "";
  dom.href = id === null ? location.pathname : targetHref(id);
}

function makeLine() {
  return element("li", {},
    element("strong"), element("span"), element("a"),
    element("details", {}, element("summary", { text: "Show" }), element("pre", { class: "log", tabIndex: 0 })),
  );
}

function renderLine(row, { title, text, log = "", link, progress: told }) {
  const [head, body, anchor, details] = row.children;
  setText(head, title);
  setText(body, told === undefined ? text : lineOfProgress(told));
  body.hidden = body.textContent === "";
  anchor.hidden = link === undefined;
  if (link !== undefined) renderLink(anchor, link);
  details.hidden = log === "";
  setText(details.lastElementChild, log);
}

function renderOddities() {
  const oddities = state.server.map?.oddities ?? [];
  const dom = byId("noticeOddities");
  dom.hidden = oddities.length === 0 || targetId() === null;
  if (dom.hidden) return;
  const noun = oddities.length === 1 ? "oddity" : "oddities";
  setText(dom.firstElementChild, `${count(oddities.length)} ${noun} in the executable or its coverage`);
  setRows(dom.lastElementChild, oddities, () => element("li"), (row, text) => setText(row, text));
}
