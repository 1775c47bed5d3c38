// The history of coverage and speed: what is shown of it, and what the pointer and the
// keys do. chartdraw.js draws.

import { on, state } from "./bus.js";
import { MARK_COLOURS, draw, layOut } from "./chartdraw.js";
import { announce, byId, element, everyFrame, setChildren, setRows, setText } from "./dom.js";
import { clockTime, count, counted, duration, percent, readable } from "./format.js";
import { reportTime } from "./report.js";
import { f32s, wasm } from "./wasm.js";

// What `historyColumns` of main.zig gives.
const COVERED = 0, RUNS = 1, SPEED = 2;
const REDRAW_MS = 500;
const SUMMARY_MS = 10_000;
// Seconds: less than this is no history yet, and too near to see anything.
const SHORTEST = 10, SHORTEST_ZOOM = 2, JUST_AFTER = 0.001;
const NEARLY_ALL = 0.99;
// Px: what counts as dragged, and as near to a mark.
const DRAGGED = 6, NEAR = 6;
const SHOWN_MARKS = 4;
const KEY_PART = 0.01, LARGE_KEY_PART = 0.1;
const COLOURS = ["line", "muted", "covered", "keyword", ...new Set(Object.values(MARK_COLOURS))];
// In the tip, and in the legend.
const MARK_NAMES = { start: "Server started", restart: "Fuzzer restarted", finding: "Finding", build: "New build" };
const KEYS = [
  ["covered", "Points covered"], ["speed", "Runs/s"],
  ["start", "Start"], ["restart", "Restart"], ["finding", "Finding"], ["build", "Build"],
];
const HELP = "Left and right arrow move through time, with shift faster. Plus and minus zoom, 0 shows the whole time.";

// {from, to} in Unix seconds where zoomed; null is the whole time.
let zoomed = null;
// What is on the canvas: {from, to, plot, covered, speed, runs, marks}; null where nothing is.
let drawn = null;
// The time that is pointed at; null if none is.
let pointed = null;
// Where a drag began: px from the left of the plot area; null while nothing is dragged.
let dragStart = null;
let isInSight = false;
let redrawTimer = null;
let lastDrawn = -Infinity;
let lastSummary = -Infinity;
let summaryTimer = null;
let colours = null;
let font = "";

const canvas = element("canvas", { attributes: { "aria-hidden": "true" } });
const cross = element("div", { class: "chartCross", hidden: true });
const selection = element("div", { class: "chartSelection", hidden: true });
const tip = element("div", { class: "chartTip", hidden: true });
const plotArea = element("div", {
  class: "chartPlot",
  tabIndex: 0,
  attributes: { role: "img", "aria-label": "History", "aria-describedby": "chartHelp" },
}, canvas, cross, selection, tip);
const keys = element("ul", { class: "chartKeys", attributes: { "aria-label": "Legend" } });
const zoomIn = button("+", "Zoom in", () => zoom(1 / 2));
const zoomOut = button("−", "Zoom out", () => zoom(2));
const whole = button("Whole time", "Show the whole time", () => zoomTo(null));
const buttons = element("div", { class: "chartButtons" }, zoomIn, zoomOut, whole);
const head = element("div", { class: "chartHead" }, keys, buttons);
const empty = element("p", { class: "chartEmpty muted" });
const help = element("p", { class: "visuallyHidden", text: HELP, id: "chartHelp" });
// Its text has whatever colour is asked for: only so a browser tells what light-dark() means.
const probe = element("span", { class: "chartProbe", hidden: true });
const redrawNow = everyFrame(redraw);

export function start() {
  byId("chart").append(head, plotArea, help, empty, probe);
  new ResizeObserver(redrawNow).observe(plotArea);
  new IntersectionObserver((entries) => {
    isInSight = entries.at(-1).isIntersecting;
    if (isInSight) redrawNow();
  }).observe(byId("chart"));
  document.addEventListener("visibilitychange", redrawNow);
  const forgetColours = () => {
    colours = null;
    redrawNow();
  };
  on("theme", forgetColours);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", forgetColours);
  on("history", redrawSoon);
  on("marks", redrawSoon);
  on("wasm", redrawSoon);
  on("connection", redrawSoon);
  on("index", () => {
    zoomed = null;
    lastSummary = -Infinity;
    redrawSoon();
  });
  listenToPointer();
  plotArea.addEventListener("keydown", onKey);
  plotArea.addEventListener("blur", () => pointAt(null));
  redraw();
}

function button(text, title, onClick) {
  const dom = element("button", { text, title, attributes: { type: "button" } });
  if (text.length === 1) dom.setAttribute("aria-label", title);
  dom.addEventListener("click", onClick);
  return dom;
}

// ------------------------------------------------------------------- drawing

function redrawSoon() {
  redrawTimer ??= setTimeout(() => {
    redrawTimer = null;
    redrawNow();
  }, Math.max(0, lastDrawn + REDRAW_MS - performance.now()));
}

function hasHistory() {
  return state.hasWasm && wasm.historyLen() > 0;
}

function redraw() {
  const isEmpty = !hasHistory();
  plotArea.hidden = head.hidden = isEmpty;
  empty.hidden = !isEmpty;
  setText(empty, state.ownServer === false
    ? "This server keeps no history."
    : reportTime !== null ? "No history was recorded." : "History appears here once the fuzzer runs.");
  if (isEmpty) drawn = null;
  if (isEmpty || !isInSight || document.hidden) return;
  const { clientWidth: width, clientHeight: height } = plotArea;
  if (width === 0 || height === 0) return;
  lastDrawn = performance.now();
  const plot = layOut(width, height);
  const { from, to } = zoomed ?? wholeTime();
  const columns = Math.floor(plot.width);
  const [covered, speed] = [COVERED, SPEED].map((what) => f32s(wasm.historyColumns(from, to, columns, what)));
  drawn = { from, to, plot, covered, speed, runs: null, marks: [] };
  drawn.marks = marksBetween(from, to).map((mark) => ({ ...mark, x: Math.max(xOf(mark.time), plot.left) }));
  // Nothing is known of what comes after the last sample.
  for (const values of [covered, speed]) values.fill(NaN, columnOf(wasm.historyLast()) + 1);
  colours ??= readColours();
  const context = sizedContext(width, height);
  draw(context, { ...drawn, fits: zoomed !== null, colours, font });
  showKeys();
  zoomOut.disabled = whole.disabled = zoomed === null;
  showCross();
  summarizeSoon();
}

// The canvas has as many pixels as the screen.
function sizedContext(width, height) {
  const scale = devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function readColours() {
  probe.hidden = false;
  const style = getComputedStyle(probe);
  font = `11px ${style.fontFamily}`;
  const found = {};
  for (const name of COLOURS) {
    probe.style.setProperty("--probe", `var(--${name})`);
    found[name] = style.color;
  }
  probe.hidden = true;
  return found;
}

function wholeTime() {
  const from = wasm.historyFirst();
  // A column holds what comes before its end: the last sample has to.
  return { from, to: Math.max(wasm.historyLast() + JUST_AFTER, from + SHORTEST) };
}

function marksBetween(from, to) {
  const marks = Array.isArray(state.server.marks) ? state.server.marks : [];
  // A start comes shortly before what is first seen of it.
  const earliest = zoomed === null ? from - SHORTEST : from;
  return marks.filter((mark) => mark.time >= earliest && mark.time <= to);
}

// The lines, and those kinds of marks that can be seen.
function showKeys() {
  const kinds = new Set(["covered", "speed", ...drawn.marks.map((mark) => mark.kind)]);
  setRows(keys, KEYS.filter(([kind]) => kinds.has(kind)),
    () => element("li", element("span", { attributes: { "aria-hidden": "true" } }), element("span")),
    (row, [kind, name]) => {
      row.dataset.kind = kind;
      setText(row.lastElementChild, name);
    });
}

// ------------------------------------------------------------------- in words

function summarizeSoon() {
  summaryTimer ??= setTimeout(() => {
    summaryTimer = null;
    lastSummary = performance.now();
    if (hasHistory()) plotArea.setAttribute("aria-label", summary());
  }, Math.max(0, lastSummary + SUMMARY_MS - performance.now()));
}

function summary() {
  const [first, last] = [wasm.historyFirst(), wasm.historyLast()];
  const coveredAt = (time) => f32s(wasm.historyColumns(time, time + JUST_AFTER, 1, COVERED))[0];
  const [before, after] = [coveredAt(first), coveredAt(last)];
  const points = counted(wasm.locationCount(), "point");
  const time = duration(last - first);
  const findings = Array.isArray(state.server.findings) ? state.server.findings.length : 0;
  const what = before === after ? `Coverage stayed at ${count(after)} of ${points} for ${time}`
    : `Coverage ${after > before ? "rose" : "fell"} from ${count(before)} to ${count(after)} of ${points} in ${time}`;
  return `${what}; ${counted(findings, "finding")}`;
}

// What is known of a time: the lines of the tip.
function tell(time) {
  const { from, to, covered, speed, marks } = drawn;
  const column = columnOf(time);
  drawn.runs ??= f32s(wasm.historyColumns(from, to, covered.length, RUNS));
  const lines = [clockTime(time)];
  if (Number.isNaN(covered[column])) lines.push("Nothing was recorded.");
  else {
    const total = wasm.locationCount();
    lines.push(`${count(covered[column])} of ${counted(total, "point")} (${percent(covered[column], total)})`);
    lines.push(`${readable(drawn.runs[column])} runs`);
    if (!Number.isNaN(speed[column])) lines.push(`${readable(speed[column])} runs/s`);
  }
  const x = xOf(time);
  const near = marks.filter((mark) => Math.abs(mark.x - x) <= NEAR);
  for (const mark of near.slice(0, SHOWN_MARKS)) {
    lines.push([MARK_NAMES[mark.kind] ?? mark.kind, mark.text].filter(Boolean).join(": "));
  }
  if (near.length > SHOWN_MARKS) lines.push(`and ${count(near.length - SHOWN_MARKS)} more`);
  return lines;
}

function columnOf(time) {
  const { from, to, covered } = drawn;
  const column = Math.floor((time - from) / (to - from) * covered.length);
  return Math.min(Math.max(column, 0), covered.length - 1);
}

// ------------------------------------------------------------------- pointing and zooming

function pointAt(time) {
  pointed = time;
  showCross();
}

function showCross() {
  const isShown = drawn !== null && pointed !== null && pointed >= drawn.from && pointed <= drawn.to;
  cross.hidden = tip.hidden = !isShown || dragStart !== null;
  if (cross.hidden) return;
  const x = xOf(pointed);
  plotArea.style.setProperty("--x", `${x}px`);
  tip.classList.toggle("chartTipLeft", x > drawn.plot.left + drawn.plot.width / 2);
  const lines = tell(pointed);
  setChildren(tip, lines.map((line, i) => tip.children[i] ?? element("span")));
  lines.forEach((line, i) => setText(tip.children[i], line));
}

function zoomTo(range) {
  const all = wholeTime();
  zoomed = range;
  if (range !== null) {
    const length = Math.max(range.to - range.from, SHORTEST_ZOOM);
    const from = Math.min(Math.max((range.from + range.to - length) / 2, all.from), all.to - length);
    // Nearly all is all: half of it twice may lack a moment.
    zoomed = length > NEARLY_ALL * (all.to - all.from) ? null : { from, to: from + length };
  }
  redrawNow();
}

// Around what is pointed at, else around the middle.
function zoom(factor) {
  if (!hasHistory()) return;
  const { from, to } = zoomed ?? wholeTime();
  const centre = pointed !== null && pointed >= from && pointed <= to ? pointed : (from + to) / 2;
  zoomTo({ from: centre - (centre - from) * factor, to: centre + (to - centre) * factor });
}

function listenToPointer() {
  plotArea.addEventListener("pointerdown", (event) => {
    if (drawn === null || event.button !== 0) return;
    // A finger that moves points; a mouse that is dragged selects.
    if (event.pointerType === "touch") return pointAt(timeAt(event));
    dragStart = offset(event);
    plotArea.setPointerCapture(event.pointerId);
  });
  plotArea.addEventListener("pointermove", (event) => {
    if (drawn === null) return;
    if (dragStart !== null) showSelection(offset(event));
    else pointAt(timeAt(event));
  });
  plotArea.addEventListener("pointerup", (event) => {
    const start = dragStart;
    endDrag();
    if (drawn === null || start === null) return;
    const [left, right] = [start, offset(event)].sort((a, b) => a - b);
    if (right - left >= DRAGGED) zoomTo({ from: timeOf(left), to: timeOf(right) });
    pointAt(timeAt(event));
  });
  plotArea.addEventListener("pointercancel", endDrag);
  plotArea.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") pointAt(null);
  });
  plotArea.addEventListener("dblclick", () => zoomTo(null));
}

// Px from the left of the plot, kept within it.
function offset(event) {
  const x = event.clientX - plotArea.getBoundingClientRect().left - drawn.plot.left;
  return Math.min(Math.max(x, 0), drawn.plot.width);
}

function timeOf(x) {
  return drawn.from + x / drawn.plot.width * (drawn.to - drawn.from);
}

// Px from the left of the canvas.
function xOf(time) {
  const { from, to, plot } = drawn;
  return plot.left + (time - from) / (to - from) * plot.width;
}

function timeAt(event) {
  return timeOf(offset(event));
}

function showSelection(end) {
  const [left, right] = [dragStart, end].sort((a, b) => a - b);
  selection.hidden = right - left < DRAGGED;
  cross.hidden = tip.hidden = true;
  selection.style.setProperty("--left", `${drawn.plot.left + left}px`);
  selection.style.setProperty("--width", `${right - left}px`);
}

function endDrag() {
  dragStart = null;
  selection.hidden = true;
}

function onKey(event) {
  if (drawn === null || event.altKey || event.ctrlKey || event.metaKey) return;
  const step = (drawn.to - drawn.from) * (event.shiftKey ? LARGE_KEY_PART : KEY_PART);
  switch (event.key) {
    case "ArrowLeft": moveTo((pointed ?? drawn.to + step) - step); break;
    case "ArrowRight": moveTo((pointed ?? drawn.from - step) + step); break;
    case "Home": moveTo(drawn.from); break;
    case "End": moveTo(drawn.to); break;
    case "+": case "=": zoom(1 / 2); break;
    case "-": zoom(2); break;
    case "0": zoomTo(null); break;
    case "Escape":
      endDrag();
      pointAt(null);
      break;
    default: return;
  }
  event.preventDefault();
}

function moveTo(time) {
  pointAt(Math.min(Math.max(time, drawn.from), drawn.to));
  announce(tell(pointed).join(", "));
}
