// Coverage without main.wasm, where no compiler makes it: the files, and their sources as plain text with the state
// of each line. It comes from the same messages, and keeps up with them.

import { on, state } from "./bus.js";
import { targetId } from "./connection.js";
import { byId, element, everyFrame, setBar, setRows, setText } from "./dom.js";
import { fetchedBytes } from "./fetching.js";
import { count, percent } from "./format.js";
import { coveredOf, forget, plainFiles, pointsByLine, receive } from "./plainmap.js";
import { route } from "./route.js";
import { updateLine } from "./sourcetext.js";
import { VirtualRows } from "./virtual.js";

const ROW_HEIGHT = 20;
const NONE = 0, COVERED = 1, PARTLY = 2, MISSED = 3;
const UTF8 = new TextDecoder();

// The file that is open, its lines, and its points by their lines.
let opened = null;
let lines = [];
let byLine = new Map();
let dom, rows;

export function start() {
  const render = everyFrame(renderPlain);
  build();
  on("plain", (bytes) => receive(bytes) && render());
  on("target", () => {
    forget();
    render();
  });
  for (const event of ["wasm", "route", "server"]) on(event, render);
}

function build() {
  dom = {
    files: element("ul", { attributes: { id: "plainFiles", "aria-label": "Files" } }),
    source: element("section", { hidden: true, attributes: { id: "plainSource", "aria-labelledby": "plainTitle" } }),
    title: element("h2", { attributes: { id: "plainTitle" } }),
    note: element("p", { class: "muted" }),
    scroll: element("div", {
      tabIndex: 0, attributes: { id: "plainScroll", role: "region", "aria-label": "Source text" },
    }),
  };
  dom.source.append(dom.title, dom.note, dom.scroll);
  byId("plain").append(dom.files, dom.source);
  rows = new VirtualRows(dom.scroll, { rowHeight: ROW_HEIGHT, render: makeRow, count: 0 });
}

function renderPlain() {
  if (state.hasWasm) forget();
  const files = [...plainFiles().entries()].filter(([, { points }]) => points.length > 0);
  byId("plain").hidden = files.length === 0 || route.view !== "coverage";
  if (byId("plain").hidden) return close();
  const sorted = files.toSorted(([, a], [, b]) => (a.path < b.path ? -1 : 1));
  setRows(dom.files, sorted, makeFile, renderFile);
  const file = plainFiles()[route.file];
  if (file === undefined) return close();
  if (file !== opened) open(file);
  for (const [line, row] of rows.entries()) updateRow(row, line);
}

function makeFile() {
  return element("li", {}, element("a"), " ", element("span", { class: "muted" }), element("span", { class: "bar" }));
}

function renderFile(row, [number, { path, points }]) {
  const [link, part, bar] = row.children;
  const covered = coveredOf(points);
  setText(link, path);
  link.href = `#f${number}`;
  link.setAttribute("aria-current", String(number === route.file));
  setText(part, `${count(covered)} / ${count(points.length)} points (${percent(covered, points.length)})`);
  setBar(bar, covered, points.length);
}

function close() {
  opened = null;
  dom.source.hidden = true;
}

async function open(file) {
  opened = file;
  byLine = pointsByLine(file);
  dom.source.hidden = false;
  setText(dom.title, file.path);
  setLines([], "Loading the source…");
  try {
    const bytes = await fetchedBytes(`source/${encodeURIComponent(targetId())}/${plainFiles().indexOf(file)}`);
    if (file === opened) setLines(UTF8.decode(bytes).split("\n"), "");
  } catch (error) {
    if (file === opened) setLines([], `The source could not be loaded: ${error.message}.`);
  }
}

function setLines(text, note) {
  lines = text;
  setText(dom.note, note);
  dom.note.hidden = note === "";
  dom.scroll.hidden = note !== "";
  dom.scroll.style.setProperty("--digits", String(lines.length).length);
  dom.scroll.style.setProperty("--columns", lines.reduce((most, line) => Math.max(most, line.length), 0));
  rows.setCount(lines.length);
  if (route.line !== null && route.line <= lines.length) rows.scrollToRow(route.line - 1, { block: "center" });
}

function makeRow(line) {
  const row = element("div", { class: "sourceRow" },
    element("a", { class: "lineNumber", text: line + 1, href: `#f${route.file}:${line + 1}`, tabIndex: -1 }),
    element("span", { class: "gutter" }),
    element("code", { class: "lineText", text: lines[line] }));
  updateRow(row, line);
  return row;
}

function updateRow(row, line) {
  updateLine({ line: route.line, location: null }, row, line, stateOf(byLine.get(line + 1) ?? []));
}

function stateOf(points) {
  if (points.length === 0) return NONE;
  const covered = coveredOf(points);
  return covered === points.length ? COVERED : covered > 0 ? PARTLY : MISSED;
}
