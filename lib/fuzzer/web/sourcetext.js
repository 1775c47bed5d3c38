// The rows of the open file as elements. main.wasm has cut its lines into runs of
// one kind each; here a run becomes a text, and a location becomes a mark.

import { element, setText, setTitle } from "./dom.js";
import { freshAge } from "./fresh.js";
import { pointFunctionName } from "./names.js";
import { decode, u32s, u8s, wasm } from "./wasm.js";

// Classes of runs, as main.wasm numbers them.
const TOKENS = [
  "", "tok-kw", "tok-str", "tok-number", "tok-comment", "tok-builtin", "tok-fn", "tok-type", "tok-null", "tok-char",
];
const MARK = 15;
// Where main.wasm cuts a line that no reader reads to its end.
const MOST_RUNS = 4000, MOST_BYTES = 20_000;
const TAB_COLUMNS = 4;

const STATES = ["", "covered", "partly", "missed"];
const STATE_TEXTS = ["", "covered", "partly covered", "not covered"];

// The row of a line, from 0. `view` is {file, location, line}: what is open, the
// location and the line (from 1) that the address names, or null.
export function makeLine(view, line) {
  const { runs, texts, isCut } = readLine(line);
  const code = element("code", { class: "lineText" });
  runs.forEach((run, i) => code.append(makeRun(view, run, texts[i])));
  const row = element("div", { class: "sourceRow" },
    element("a", {
      class: "lineNumber", text: line + 1, href: `#f${view.file}:${line + 1}`, tabIndex: -1,
      attributes: { "aria-label": `line ${line + 1}` },
    }),
    element("span", { class: "gutter" }),
    code);
  if (isCut) row.append(element("span", { class: "lineCut muted", text: "the line goes on" }));
  updateLine(view, row, line, u8s(wasm.lineStates(line, 1))[0]);
  return row;
}

// Brings a row up to date with the coverage and with what the address names.
export function updateLine(view, row, line, lineState) {
  const state = STATES[lineState] ?? "";
  const gutter = row.children[1];
  if ((row.dataset.state ?? "") !== state) {
    row.dataset.state = state;
    gutter.title = STATE_TEXTS[lineState];
    gutter.setAttribute("role", "img");
    gutter.setAttribute("aria-label", STATE_TEXTS[lineState]);
    if (state === "") gutter.removeAttribute("role");
  }
  row.classList.toggle("current", line + 1 === view.line);
  for (const mark of row.querySelectorAll(".mark")) updateMark(view, mark);
}

export function makeFindingBadge({ id, kind, message }) {
  return element("a", {
    class: "badge findingBadge", text: kind, title: String(message ?? ""), tabIndex: -1,
    href: `#finding/${encodeURIComponent(id)}`, data: { state: "bad" },
  });
}

// The row of a location, where there is no source to show it in.
export function makePointRow(view, point) {
  const cell = (...children) => element("span", { attributes: { role: "cell" } }, ...children);
  const row = element("div", { class: "pointRow", data: { point }, attributes: { role: "row" } },
    cell(element("a", { text: pointPlace(point), href: `#l${point}` })),
    cell(element("span", { class: "shape" }), element("span", { class: "stateText" })),
    cell(element("span", { class: "functionName muted" })));
  updatePointRow(view, row);
  return row;
}

export function updatePointRow(view, row) {
  const point = +row.dataset.point;
  row.querySelector(".shape").className = `shape ${wasm.locationCovered(point) ? "covered" : "missed"}`;
  setText(row.querySelector(".stateText"), pointState(point));
  // Names of functions come later than the coverage.
  const name = row.querySelector(".functionName");
  setText(name, pointFunctionName(point));
  setTitle(name, name.textContent);
  row.classList.toggle("current", point === view.location);
}

// The text of a line, as it is in the file.
export function lineText(line) {
  return readLine(line).texts.join("");
}

// About how many characters wide a row is, behind its gutter.
export function lineColumns(row) {
  const text = row.textContent;
  const tabs = text.split("\t").length - 1;
  return text.length + tabs * (TAB_COLUMNS - 1) + row.querySelectorAll(".mark, .badge").length * 2;
}

export function pointPlace(point) {
  return `${wasm.locationLine(point) >>> 0}:${wasm.locationColumn(point) >>> 0}`;
}

export function pointState(point) {
  return wasm.locationCovered(point) ? "covered" : "not covered";
}

function updateMark(view, mark) {
  const point = +mark.dataset.point;
  const isCovered = Boolean(wasm.locationCovered(point));
  const age = freshAge(point);
  const isCurrent = point === view.location;
  const className = ["mark", isCovered ? "covered" : "missed", age !== null && "fresh", isCurrent && "current"]
    .filter(Boolean).join(" ");
  if (mark.className === className) return;
  // The glow goes on where it was when the line was last in sight.
  if (age !== null && !mark.classList.contains("fresh")) mark.style.setProperty("--age", `${-age}ms`);
  mark.className = className;
  mark.setAttribute("aria-label", `${pointPlace(point)}, ${pointState(point)}`);
  if (isCurrent) mark.setAttribute("aria-current", "location");
  else mark.removeAttribute("aria-current");
}

function makeRun(view, run, text) {
  if (run.class === MARK) {
    return element("a", { class: "mark", href: `#l${run.point}`, tabIndex: -1, data: { point: run.point } });
  }
  const className = TOKENS[run.class] ?? "";
  if (run.point !== 0) return makeDeclared(view, run, text, className);
  return className === "" ? document.createTextNode(text) : makeToken("span", text, className);
}

// A name that is declared in the same file leads there.
function makeDeclared(view, run, text, className) {
  const link = makeToken("a", text, `declared ${className}`);
  link.href = `#f${view.file}:${run.point}`;
  link.title = `declared in line ${run.point}`;
  link.tabIndex = -1;
  return link;
}

// There are hundreds in a screenful: made without detours.
function makeToken(tag, text, className) {
  const dom = document.createElement(tag);
  dom.className = className;
  dom.textContent = text;
  return dom;
}

function readLine(line) {
  const words = runWords(wasm.lineRuns(line));
  const runs = [];
  for (let i = 0; i < words.length; i += 4) {
    runs.push({ start: words[i], len: words[i + 1], class: words[i + 2], point: words[i + 3] });
  }
  const texts = decodeRuns(runs);
  const size = runs.reduce((sum, run) => sum + run.len, 0);
  return { runs, texts, isCut: runs.length >= MOST_RUNS || size >= MOST_BYTES };
}

// One decoding for the whole line, which is cheaper by far, if a byte is a character.
function decodeRuns(runs) {
  const written = runs.filter((run) => run.len > 0);
  if (written.length === 0) return runs.map(() => "");
  const start = written[0].start;
  const size = written.at(-1).start + written.at(-1).len - start;
  const whole = decode(start, size);
  if (whole.length !== size) return runs.map((run) => run.len === 0 ? "" : decode(run.start, run.len));
  return runs.map((run) => run.len === 0 ? "" : whole.slice(run.start - start, run.start - start + run.len));
}

// A run is four integers, and the slice counts runs.
function runWords(slice) {
  const bits = BigInt.asUintN(64, slice);
  return u32s((bits >> 32n) * 4n << 32n | bits & 0xffff_ffffn);
}
