// The tab "New": the points that were covered last, with the newest on top.

import { on, state } from "./bus.js";
import { byId, element, everyFrame, setText } from "./dom.js";
import { clockTime, counted, timeAgo } from "./format.js";
import { startFollow } from "./follow.js";
import { freshAge, latestPoints } from "./fresh.js";
import { pointFunctionName, shortPlace } from "./names.js";
import { reportTime } from "./report.js";
import { VirtualRows } from "./virtual.js";
import { wasm } from "./wasm.js";

const ROW_HEIGHT = 46;
const TICK_MS = 1000;
// Points of one function that were covered so shortly after one another are one piece of news; s.
const TOGETHER = 2;
const BEFORE_WATCHING = 1;

// {point, points, file, line, function, time}: the first in the source of some points that
// were covered together.
let groups = [];
let list, note, rows;

export function start() {
  build();
  const loadSoon = everyFrame(load);
  on("coverage", loadSoon);
  on("points", loadSoon);
  on("index", loadSoon);
  on("target", loadSoon);
  setInterval(tick, TICK_MS);
  // What nobody sees is drawn when it comes into sight.
  new ResizeObserver(loadSoon).observe(byId("panelNew"));
}

function build() {
  const follow = element("button", {
    type: "button", text: "Follow", title: "Scroll the source to what is newly covered (f)",
    attributes: { id: "follow", "aria-pressed": "false", "aria-keyshortcuts": "f" },
  });
  note = element("p", { class: "muted", attributes: { id: "newNote" } });
  list = element("div", { attributes: { id: "newList", role: "list", "aria-label": "Newly covered points" } });
  byId("panelNew").append(element("div", { class: "newTools" }, follow, note), list);
  rows = new VirtualRows(list, { rowHeight: ROW_HEIGHT, render: makeRow, count: 0 });
  // In a report, nothing new comes.
  follow.hidden = reportTime !== null;
  if (!follow.hidden) startFollow(follow);
}

function load() {
  if (byId("panelNew").hidden) return;
  const before = groups;
  groups = state.hasIndex ? groupPoints() : [];
  const isSame = groups.length === before.length && groups.every((group, i) => isSameNews(group, before[i]));
  if (!isSame) show(before);
  setText(note, noteText());
  list.hidden = groups.length === 0;
  tick();
}

// Rows don't move away under a pointer, a focus or a reading eye: what is new comes above them.
function show(before) {
  const isRead = list.scrollTop > 0 || list.matches(":hover, :focus-within");
  const first = isRead ? rows.first : 0;
  const anchor = isRead ? before[first] : undefined;
  const offset = list.scrollTop - first * ROW_HEIGHT;
  rows.setCount(groups.length);
  const index = anchor === undefined ? -1 : groups.findIndex((group) => group.point === anchor.point);
  if (index > first) list.scrollTop = index * ROW_HEIGHT + offset;
}

function groupPoints() {
  const made = [];
  for (const point of latestPoints()) {
    const one = describe(point);
    const last = made.at(-1);
    if (last === undefined || !belongsTo(one, last)) {
      made.push(one);
      continue;
    }
    last.points += 1;
    if (one.line < last.line) Object.assign(last, { point: one.point, line: one.line });
  }
  return made;
}

function describe(point) {
  return {
    point, points: 1, time: wasm.pointTime(point), file: wasm.locationFile(point) >>> 0,
    line: wasm.locationLine(point) >>> 0, function: wasm.pointFunction(point) >>> 0,
  };
}

function belongsTo(one, group) {
  if (one.file !== group.file || Math.abs(group.time - one.time) > TOGETHER) return false;
  return one.line === group.line || (one.function === group.function && one.function < wasm.functionCount() >>> 0);
}

function isSameNews(a, b) {
  return a.point === b.point && a.points === b.points && a.time === b.time;
}

function noteText() {
  if (groups.length > 0) return "";
  return state.hasCoverage ? "Nothing new yet. What the fuzzer covers from now on is listed here." : "No coverage yet.";
}

function makeRow(index) {
  const { point, points } = groups[index];
  const name = pointFunctionName(point);
  const place = element("span", { class: "newsPlace" }, element("span", { text: shortPlace(point) }));
  if (points > 1) place.append(element("span", { class: "muted", text: ` +${counted(points - 1, "point")}` }));
  const link = element("a", { class: "newsLink", href: `#l${point}` }, place,
    element("span", { class: "newsFacts muted" },
      element("span", { class: "newsFunction", text: name, title: name }), element("time")));
  const row = element("div", { class: "newsRow", attributes: { role: "listitem" } }, link);
  tickRow(row, index);
  return row;
}

function tickRow(row, index) {
  const { point, time } = groups[index];
  const dom = row.querySelector("time");
  setText(dom, time <= BEFORE_WATCHING ? "" : timeAgo(time));
  if (time > BEFORE_WATCHING && dom.title === "") dom.title = clockTime(time);
  row.classList.toggle("fresh", freshAge(point) !== null);
}

// Only rows that are in the document tell their time.
function tick() {
  if (document.hidden || list.clientHeight === 0) return;
  for (const [index, row] of rows.entries()) tickRow(row, index);
}
