// What the server, the compiler and the tests said, the newest last.

import { on, state } from "./bus.js";
import { byId, copyOnClick, element, everyFrame, saveAs, setText, setTime } from "./dom.js";
import { clockTime, count } from "./format.js";
import { linkPlaces, printedLines, withoutEscapes } from "./printed.js";
import { route } from "./route.js";

const MAX_ENTRIES = 2000;
// Closer to the end than this is at the end: browsers scroll by parts of pixels.
const END_PX = 24;
const LEVELS = ["info", "warning", "error"];

// {key, dom, time, text, level, isWanted}, the oldest first.
let entries = [];
// Rows that came while the reader looked at earlier ones.
let unread = 0;
let isAtEnd = true;
let view;
const schedule = everyFrame(render);

export function start() {
  view = makeView();
  byId("viewLog").append(view.tools, view.empty, view.frame);
  view.filter.addEventListener("input", filterAll);
  view.level.addEventListener("change", filterAll);
  view.scroll.addEventListener("scroll", onScroll, { passive: true });
  // Rows that are not in sight have no size of their own yet, and filtered ones none at all; and what appears
  // above the log leaves it less room.
  const sizes = new ResizeObserver(keepEnd);
  sizes.observe(view.lines);
  sizes.observe(view.scroll);
  view.jump.addEventListener("click", onJump);
  view.download.addEventListener("click", () => saveAs("fuzzserver.log", wantedText()));
  copyOnClick(view.copy, wantedText);
  on("log", onLog);
  on("route", onRoute);
  on("connection", () => isShown() && schedule());
  on("index", () => isShown() && linkPlaces(view.lines));
  render();
}

function makeView() {
  const filter = element("input", {
    id: "logFilter", type: "search", placeholder: "Filter by text", spellcheck: false, autocomplete: "off",
    attributes: { "aria-label": "Filter the log by text" },
  });
  const level = element("select", { id: "logLevel", attributes: { "aria-label": "Levels to show" } },
    element("option", { value: "info", text: "All levels" }),
    element("option", { value: "warning", text: "Warnings and errors" }),
    element("option", { value: "error", text: "Errors" }));
  const number = element("span", { class: "muted" });
  const copy = element("button", { type: "button", text: "Copy" });
  const downloadButton = element("button", { type: "button", text: "Download" });
  const title = element("h2", { id: "logTitle", text: "Log" });
  const tools = element("div", { class: "logTools" }, title, filter, level, number,
    element("span", { class: "tools" }, copy, downloadButton));
  const empty = element("div", { class: "empty" }, element("h3"), element("p"));
  // Told to nobody by itself: it never ends.
  const lines = element("div", {
    id: "logLines", attributes: { role: "log", "aria-live": "off", "aria-labelledby": "logTitle" },
  });
  const scroll = element("div", {
    id: "logScroll", tabIndex: 0, attributes: { role: "group", "aria-label": "Lines of the log" },
  }, lines);
  const jump = element("button", { id: "logJump", type: "button", hidden: true });
  const frame = element("div", { class: "logFrame" }, scroll, jump);
  return { tools, filter, level, number, copy, download: downloadButton, empty, lines, scroll, jump, frame };
}

// ------------------------------------------------------------------- events

function onLog({ whole, entries: told }) {
  const keys = told.map((entry) => JSON.stringify(entry));
  // After a lost connection the server tells all again, of which most is here already.
  const last = whole ? keys.lastIndexOf(entries.at(-1)?.key) : -1;
  if (whole && last < 0) clear();
  const fresh = told.slice(last + 1).map((entry, i) => makeEntry(entry, keys[last + 1 + i])).slice(-MAX_ENTRIES);
  for (const entry of fresh) setWanted(entry);
  entries.push(...fresh);
  for (const entry of entries.splice(0, Math.max(0, entries.length - MAX_ENTRIES))) entry.dom.remove();
  if (!isAtEnd) unread += fresh.filter((entry) => entry.isWanted).length;
  const rows = document.createDocumentFragment();
  rows.append(...fresh.map((entry) => entry.dom));
  linkPlaces(rows);
  view.lines.append(rows);
  if (isShown()) schedule();
}

function onRoute() {
  if (!isShown()) return;
  linkPlaces(view.lines);
  schedule();
}

function clear() {
  entries = [];
  unread = 0;
  isAtEnd = true;
  view.lines.replaceChildren();
}

function onScroll() {
  isAtEnd = view.scroll.scrollHeight - view.scroll.scrollTop - view.scroll.clientHeight < END_PX;
  if (isAtEnd) unread = 0;
  renderJump();
}

function keepEnd() {
  if (isAtEnd) view.scroll.scrollTop = view.scroll.scrollHeight;
}

function onJump() {
  unread = 0;
  isAtEnd = true;
  render();
  // The button is gone, which had the focus.
  view.scroll.focus({ preventScroll: true });
}

function filterAll() {
  for (const entry of entries) setWanted(entry);
  isAtEnd = true;
  unread = 0;
  render();
}

// ------------------------------------------------------------------- render

function render() {
  const wanted = entries.reduce((sum, entry) => sum + entry.isWanted, 0);
  const isFiltered = wanted < entries.length;
  view.empty.hidden = wanted > 0;
  view.frame.hidden = wanted === 0;
  view.copy.disabled = view.download.disabled = wanted === 0;
  setText(view.number, isFiltered ? `${count(wanted)} of ${count(entries.length)}` : "");
  if (wanted === 0) renderEmpty(isFiltered);
  keepEnd();
  renderJump();
}

function renderEmpty(isFiltered) {
  const [title, text] = isFiltered
    ? ["Nothing matches", `None of the ${count(entries.length)} entries matches the filter.`]
    : state.ownServer === false
      ? ["This server tells no log", "Zig's own server shows coverage only."]
      : ["Nothing in the log so far", "What the server, the compiler and the tests say is shown here as it comes."];
  setText(view.empty.firstElementChild, title);
  setText(view.empty.lastElementChild, text);
}

function renderJump() {
  view.jump.hidden = isAtEnd;
  setText(view.jump, unread === 0 ? "To the end ↓" : `${count(unread)} new ${unread === 1 ? "line" : "lines"} ↓`);
}

function makeEntry({ time, source, level, text: told }, key) {
  const text = withoutEscapes(String(told)).trimEnd();
  const known = LEVELS.includes(level) ? level : "info";
  const moment = element("time");
  setTime(moment, time);
  const dom = element("div", { class: "logEntry", data: { level: known } }, moment,
    element("span", { class: "level", text: known }), element("span", { class: "source", text: source }),
    element("div", { class: "logText" }, ...printedLines(text)));
  return { key, dom, time, level: known, text: `${source} ${known}: ${text}`, isWanted: true };
}

function setWanted(entry) {
  const filter = view.filter.value.trim().toLowerCase();
  entry.isWanted = LEVELS.indexOf(entry.level) >= LEVELS.indexOf(view.level.value) &&
    (filter === "" || entry.text.toLowerCase().includes(filter));
  if (entry.dom.hidden === entry.isWanted) entry.dom.hidden = !entry.isWanted;
}

// -------------------------------------------------------------------- tools

function wantedText() {
  return entries.filter((entry) => entry.isWanted)
    .map((entry) => `${clockTime(entry.time)} ${entry.text}\n`).join("");
}

function isShown() {
  return route.view === "log";
}
