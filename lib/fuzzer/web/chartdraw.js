// Draws the history on a canvas: axes, lines and marks. Lengths are CSS px.

import { count, readable } from "./format.js";

const SIDE = 46, NARROW_SIDE = 38, NARROW = 420;
const TOP = 18, BOTTOM = 20, AXIS_GAP = 6;
// Axes are divided so that no label needs many digits.
const NICE = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];
const SECOND = 1, MINUTE = 60, HOUR = 3600, DAY = 86400;
const TIME_STEPS = [
  ...[1, 2, 5, 10, 15, 30].map((n) => n * SECOND), ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE),
  ...[1, 2, 3, 6, 12].map((n) => n * HOUR), ...[1, 2, 7, 14, 30, 90, 365].map((n) => n * DAY),
];
const TIME_LABEL_WIDTH = 84;
const SECONDS = new Intl.DateTimeFormat("sv-SE", { timeStyle: "medium" });
const MINUTES = new Intl.DateTimeFormat("sv-SE", { timeStyle: "short" });
const DAYS = new Intl.DateTimeFormat("en-US", { month: "short", day: "numeric" });
const MARK_SIZE = 4.5;
// More marks of one kind than this, side by side, are one.
const MARK_GAP = 7;
// Those that matter more come later, and are drawn over others.
export const MARK_COLOURS = { start: "good", build: "link", restart: "busy", finding: "bad" };

// Where the plot is within a canvas of this size, and over how many lines its axes are divided.
export function layOut(width, height) {
  const side = width < NARROW ? NARROW_SIDE : SIDE;
  const high = Math.max(height - TOP - BOTTOM, 1);
  return {
    left: side, top: TOP, width: Math.max(width - 2 * side, 1), height: high,
    lines: high >= 110 ? 4 : high >= 60 ? 3 : 2,
  };
}

// `plot` is of layOut; `from` and `to` Unix seconds; `covered` and `speed` have a value per px
// of the plot, NaN for none; `fits`: the left axis need not start at 0; `marks` are {x, kind}.
export function draw(context, { plot, from, to, covered, speed, fits, marks, colours, font }) {
  context.font = font;
  context.lineJoin = context.lineCap = "round";
  const left = axisOf(covered, plot.lines, { fits, isWhole: true });
  const right = axisOf(speed, plot.lines, { fits: false, isWhole: false });
  drawGrid(context, plot, left, right, colours);
  drawTimes(context, plot, from, to, colours);
  drawArea(context, plot, covered, left, colours);
  for (const mark of marks) drawMarkLine(context, plot, mark, colours);
  drawLine(context, plot, speed, right, colours.keyword, 1);
  drawLine(context, plot, covered, left, colours.covered, 2);
  drawMarkShapes(context, plot, marks, colours);
}

// From `low`, `step` by `step`.
function axisOf(values, lines, { fits, isWhole }) {
  let min = Infinity;
  let max = 0;
  for (const value of values) {
    if (value < min) min = value;
    if (value > max) max = value;
  }
  const base = fits && min < max ? min : 0;
  let step = niceStep((max - base) / lines, isWhole);
  // The low end is a multiple of the step, which may leave too little room above.
  while (Math.floor(base / step) * step + lines * step < max) step = niceStep(step * 1.01, isWhole);
  return { low: Math.floor(base / step) * step, step };
}

// The least nice number that is not below.
function niceStep(value, isWhole) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  const step = unit * NICE.find((nice) => nice * unit >= value * 0.999999);
  return isWhole ? Math.ceil(step) : step;
}

// In one unit, "8 k" below "16 k", unless that makes two the same.
function labelsOf({ low, step }, lines) {
  const values = Array.from({ length: lines + 1 }, (_, i) => low + i * step);
  const isLarge = values.at(-1) >= 10_000;
  const labels = values.map((value) =>
    isLarge && value > 0 && value < 10_000 ? `${count(value / 1000)} k` : readable(value));
  return new Set(labels).size === labels.length ? labels : values.map(count);
}

function heightOf(plot, axis, value) {
  return plot.top + plot.height * (1 - (value - axis.low) / (axis.step * plot.lines));
}

function drawGrid(context, plot, left, right, colours) {
  context.textBaseline = "middle";
  context.lineWidth = 1;
  const [leftLabels, rightLabels] = [left, right].map((axis) => labelsOf(axis, plot.lines));
  const room = plot.left - AXIS_GAP;
  for (let i = 0; i <= plot.lines; i += 1) {
    const y = Math.round(plot.top + plot.height * (1 - i / plot.lines)) + 0.5;
    context.strokeStyle = colours.line;
    context.beginPath();
    context.moveTo(plot.left, y);
    context.lineTo(plot.left + plot.width, y);
    context.stroke();
    context.textAlign = "right";
    context.fillStyle = colours.covered;
    context.fillText(leftLabels[i], room, y, room);
    context.textAlign = "left";
    context.fillStyle = colours.keyword;
    context.fillText(rightLabels[i], plot.left + plot.width + AXIS_GAP, y, room);
  }
}

function drawTimes(context, plot, from, to, colours) {
  const most = Math.max(plot.width / TIME_LABEL_WIDTH, 1);
  const step = TIME_STEPS.find((size) => (to - from) / size <= most) ?? TIME_STEPS.at(-1);
  // Steps are counted in local time, so that days start at midnight.
  const zone = new Date(from * 1000).getTimezoneOffset() * 60;
  const y = plot.top + plot.height;
  context.textBaseline = "alphabetic";
  context.textAlign = "center";
  context.fillStyle = colours.muted;
  context.strokeStyle = colours.muted;
  for (let time = Math.ceil((from - zone) / step) * step + zone; time <= to; time += step) {
    const x = plot.left + (time - from) / (to - from) * plot.width;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x, y + 4);
    context.stroke();
    const isMidnight = (time - zone) % DAY === 0;
    const format = step >= DAY || (isMidnight && step >= MINUTE) ? DAYS : step >= MINUTE ? MINUTES : SECONDS;
    const label = format.format(time * 1000);
    const half = context.measureText(label).width / 2;
    context.fillText(label, Math.min(Math.max(x, half), 2 * plot.left + plot.width - half), y + 16);
  }
}

// Calls `render(start, end)` for each stretch of values without a gap.
function eachStretch(values, render) {
  let start = -1;
  for (let i = 0; i <= values.length; i += 1) {
    const isGap = i === values.length || Number.isNaN(values[i]);
    if (!isGap && start === -1) start = i;
    if (!isGap || start === -1) continue;
    render(start, i);
    start = -1;
  }
}

function trace(context, plot, values, axis, start, end) {
  for (let i = start; i < end; i += 1) context.lineTo(plot.left + i + 0.5, heightOf(plot, axis, values[i]));
}

function drawLine(context, plot, values, axis, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  eachStretch(values, (start, end) => {
    context.beginPath();
    // A single value is a dot.
    context.moveTo(plot.left + start + 0.5, heightOf(plot, axis, values[start]));
    trace(context, plot, values, axis, start, end);
    context.stroke();
  });
}

function drawArea(context, plot, values, axis, colours) {
  const bottom = plot.top + plot.height;
  context.fillStyle = colours.covered;
  context.globalAlpha = 0.14;
  eachStretch(values, (start, end) => {
    context.beginPath();
    context.moveTo(plot.left + start, bottom);
    trace(context, plot, values, axis, start, end);
    context.lineTo(plot.left + end, bottom);
    context.fill();
  });
  context.globalAlpha = 1;
}

function drawMarkLine(context, plot, { x, kind }, colours) {
  context.strokeStyle = colours[MARK_COLOURS[kind]] ?? colours.muted;
  context.globalAlpha = 0.55;
  context.lineWidth = 1;
  context.setLineDash(kind === "finding" ? [] : [3, 3]);
  context.beginPath();
  context.moveTo(Math.round(x) + 0.5, plot.top - 4);
  context.lineTo(Math.round(x) + 0.5, plot.top + plot.height);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function drawMarkShapes(context, plot, marks, colours) {
  const order = Object.keys(MARK_COLOURS);
  const last = new Map();
  for (const { x, kind } of [...marks].sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind) || a.x - b.x)) {
    if (x - (last.get(kind) ?? -Infinity) < MARK_GAP) continue;
    last.set(kind, x);
    context.fillStyle = colours[MARK_COLOURS[kind]] ?? colours.muted;
    context.beginPath();
    traceShape(context, kind, Math.round(x) + 0.5, plot.top - 4 - MARK_SIZE);
    context.fill();
  }
}

// Each kind has its own: a triangle to the right, one that points up, a diamond, a square.
function traceShape(context, kind, x, y) {
  const r = MARK_SIZE;
  const corners = {
    start: [[-r, -r], [r, 0], [-r, r]],
    restart: [[-r, r], [0, -r], [r, r]],
    finding: [[0, -r - 1], [r + 1, 0], [0, r + 1], [-r - 1, 0]],
  }[kind] ?? [[-r + 1, -r + 1], [r - 1, -r + 1], [r - 1, r - 1], [-r + 1, r - 1]];
  for (const [dx, dy] of corners) context.lineTo(x + dx, y + dy);
  context.closePath();
}
