// What the fuzzer has broken: a list, and all that is known of the one that is opened.

import { on, state } from "./bus.js";
import { byteView, inputSize } from "./bytes.js";
import { announce, byId, copyOnClick, element, everyFrame, setChildren, setText, setTime } from "./dom.js";
import { fetchedBytes, fetchedJson } from "./fetching.js";
import { counted } from "./format.js";
import { linkPlaces, parsePlace, placeLink, printedLines, stackItems, withoutEscapes } from "./printed.js";
import { route } from "./route.js";

// Fewer are found by looking.
const FILTER_FROM = 6;
const REPRODUCES = new Map([
  [true, {
    text: "reproduces", state: "quiet", sentence: "Yes: the input breaks the test again in a process of its own.",
  }],
  [false, {
    text: "does not reproduce", state: "busy", sentence: "No: the input alone does not break the test again.",
  }],
  [null, { text: "not tried yet", state: "quiet", sentence: "Not tried yet." }],
]);
const REPRODUCES_UNKNOWN = REPRODUCES.get(null);

// The rows by the ids of their findings: {dom, key}; key is all that the row shows.
const rows = new Map();
const chips = new Map();
// Kinds that are chosen; none is all.
const kinds = new Set();
// Ids that were told; null before the first list, which is no news.
let known = null;
// What was fetched of the open finding. `told` is what the list said of it then, `data` tells one input from another.
let opened = { id: null, told: "", detail: null, failure: "", data: "", hasPrinted: false };
let list, detail, input;
const schedule = everyFrame(render);

export function start() {
  list = makeList();
  input = byteView("findingInput", () => findingUrl(opened.id, "input"));
  detail = makeDetail();
  byId("viewFindings").append(list.dom, detail.dom);
  list.filter.addEventListener("input", renderList);
  detail.printed.addEventListener("toggle", renderPrinted);
  on("findings", onFindings);
  on("server", () => isShown() && schedule());
  on("connection", () => isShown() && schedule());
  on("route", onRoute);
  on("index", () => linkPlaces(detail.dom));
  render();
}

function makeList() {
  const title = element("h2", { id: "findingsTitle" });
  const filter = element("input", {
    type: "search", placeholder: "Filter by text", spellcheck: false, autocomplete: "off",
    attributes: { "aria-label": "Filter findings by text" },
  });
  const kindChips = element("div", { class: "chips", attributes: { role: "group", "aria-label": "Kinds to show" } });
  const tools = element("div", { class: "entriesTools" }, filter, kindChips);
  const rowList = element("ul", { id: "findingRows" });
  const note = element("p", { class: "entriesNote muted" });
  const empty = element("div", { class: "empty" }, element("h3"), element("p"));
  const dom = element("div", { class: "entries", attributes: { role: "region", "aria-label": "List of findings" } },
    element("div", { class: "entriesHead" }, title, tools), rowList, note, empty);
  return { dom, title, filter, kindChips, tools, rows: rowList, note, empty };
}

function makeDetail() {
  const copyStack = button("Copy");
  const copyCommand = button("Copy");
  const copyArgv = button("Copy");
  const parts = {
    kind: element("span", { class: "badge", data: { state: "bad" } }),
    title: element("h2", { id: "findingTitle", tabIndex: -1 }),
    note: element("p", { class: "muted", attributes: { role: "status" } }),
    facts: element("dl", { class: "facts" }),
    message: element("pre", { class: "message" }),
    stack: element("ol", { class: "stack" }),
    inputNote: element("p", { class: "muted" }),
    inputSize: element("span", { class: "muted" }),
    command: element("code"),
    argv: element("code"),
    printed: element("details", { class: "part" },
      element("summary", {}, "All that the test printed"), element("div", { class: "paper" })),
  };
  parts.stackPart = part("Where it happened", copyStack, parts.stack);
  parts.argvLine = element("div", { class: "command" }, parts.argv, copyArgv);
  parts.rest = element("div", {},
    parts.stackPart,
    part("Input", parts.inputSize, parts.inputNote, input.dom),
    part("Reproduce", null,
      element("p", { class: "muted" }, "In the project's folder:"),
      element("div", { class: "command" }, parts.command, copyCommand),
      parts.argvLine),
    parts.printed);
  parts.body = element("div", { class: "detailBody" }, parts.facts, parts.message, parts.note, parts.rest);
  parts.head = element("div", { class: "detailHead" }, parts.kind, parts.title);
  const attributes = { "aria-labelledby": "findingTitle" };
  parts.dom = element("article", { id: "findingDetail", class: "detail", attributes },
    element("a", { class: "back", href: "#findings" }, "All findings"), parts.head, parts.body);
  copyOnClick(copyStack, () => withoutEscapes(opened.detail.stack));
  copyOnClick(copyCommand, () => parts.command.textContent);
  copyOnClick(copyArgv, () => parts.argv.textContent);
  return parts;
}

function part(title, tool, ...children) {
  const head = element("div", { class: "partHead" }, element("h3", { text: title }), tool);
  return element("section", { class: "part" }, head, ...children);
}

function button(text) {
  return element("button", { type: "button", text });
}

// ------------------------------------------------------------------- events

function onFindings() {
  const findings = allFindings();
  const fresh = known === null ? [] : findings.filter((finding) => !known.has(finding.id));
  if (state.server.findings !== undefined) known = new Set(findings.map((finding) => finding.id));
  if (fresh.length === 1) announce(`New finding: ${fresh[0].kind}: ${firstLine(fresh[0].message)}`);
  if (fresh.length > 1) announce(`${fresh.length} new findings`);
  if (isShown()) schedule();
}

function onRoute() {
  if (!isShown()) return;
  const wasOpen = detail.dom.contains(document.activeElement) || list.dom.contains(document.activeElement);
  const before = opened.id;
  render();
  if (before === route.finding) return;
  detail.dom.scrollTop = 0;
  if (detail.dom.getBoundingClientRect().top < 0) detail.dom.scrollIntoView();
  // Where there is room for one of both only, the focus goes to the one that is shown now.
  if (wasOpen && document.activeElement.checkVisibility?.() !== true) {
    if (route.finding !== null) detail.title.focus();
    else rows.get(before)?.dom.querySelector("a").focus();
  }
}

// ------------------------------------------------------------------- list

function render() {
  byId("viewFindings").classList.toggle("isOpen", route.finding !== null);
  renderList();
  renderDetail();
}

function renderList() {
  const findings = allFindings();
  list.tools.hidden = findings.length < FILTER_FROM;
  if (!list.tools.hidden) renderChips(findings);
  const wanted = list.tools.hidden ? findings : findings.filter(isWanted);
  const all = findings.length === 0 ? "Findings" : counted(findings.length, "finding");
  setText(list.title, wanted.length === findings.length ? all : `${wanted.length} of ${all}`);
  setChildren(list.rows, inOrder(wanted).map(renderRow));
  list.note.hidden = wanted.length > 0 || findings.length === 0;
  setText(list.note, "No finding matches the filter.");
  list.empty.hidden = findings.length > 0;
  if (findings.length === 0) renderEmpty();
  for (const id of rows.keys()) if (!known?.has(id)) rows.delete(id);
}

function renderEmpty() {
  const [title, text] = state.ownServer === false
    ? ["This server keeps no findings", "Zig's own server shows coverage only."]
    : state.server.findings === undefined
      ? ["Findings", "Waiting for the server to tell what was found…"]
      : ["No findings so far", "When an input makes a test panic, crash, hang, leak memory, run out of it, or return " +
        "or log an error, it is kept and shown here: what broke and where, the input, and the command that breaks " +
        "it again."];
  setText(list.empty.firstElementChild, title);
  setText(list.empty.lastElementChild, text);
}

function renderChips(findings) {
  const numbers = new Map();
  for (const { kind } of findings) numbers.set(kind, (numbers.get(kind) ?? 0) + 1);
  for (const kind of kinds) if (!numbers.has(kind)) kinds.delete(kind);
  setChildren(list.kindChips, numbers.size < 2 ? [] : [...numbers].map(([kind, number]) => {
    if (!chips.has(kind)) chips.set(kind, makeChip(kind));
    const chip = chips.get(kind);
    setText(chip, `${kind} ${number}`);
    chip.setAttribute("aria-pressed", String(kinds.has(kind)));
    return chip;
  }));
}

function makeChip(kind) {
  const chip = element("button", { class: "chip", type: "button" });
  chip.addEventListener("click", () => {
    if (!kinds.delete(kind)) kinds.add(kind);
    renderList();
  });
  return chip;
}

function isWanted(finding) {
  if (kinds.size > 0 && !kinds.has(finding.kind)) return false;
  const text = [finding.kind, finding.message, finding.test, finding.target, finding.place, finding.id].join("\n");
  return text.toLowerCase().includes(list.filter.value.trim().toLowerCase());
}

// The last seen first. A finding that is found again moves up, but not while somebody points at the rows.
function inOrder(findings) {
  const newest = findings.toSorted((a, b) => b.last_time - a.last_time);
  if (!list.rows.matches(":hover, :focus-within")) return newest;
  const places = new Map([...list.rows.children].map((dom, i) => [dom.dataset.id, i]));
  return newest.toSorted((a, b) => (places.get(a.id) ?? -1) - (places.get(b.id) ?? -1));
}

function renderRow(finding) {
  let row = rows.get(finding.id);
  if (row === undefined) {
    row = { dom: makeRow(finding.id), key: "" };
    rows.set(finding.id, row);
  }
  const isOpen = finding.id === route.finding;
  const key = JSON.stringify([finding, isOpen, hasManyTargets()]);
  if (row.key === key) return row.dom;
  row.key = key;
  const [kind, message, test, facts] = row.dom.firstElementChild.children;
  const [number, seen, reproduces] = facts.children;
  setText(kind, finding.kind);
  setText(message, withoutEscapes(finding.message).split("\n").map((line) => line.trim()).join(" "));
  const place = (finding.place ?? "").split("/").at(-1);
  setText(test, [finding.test, hasManyTargets() ? finding.target : "", place].filter(Boolean).join(" · "));
  setText(number, finding.count === 1 ? "once" : counted(finding.count, "time"));
  setTime(seen, finding.last_time);
  setText(reproduces, reproducesOf(finding).text);
  reproduces.dataset.state = reproducesOf(finding).state;
  row.dom.firstElementChild.setAttribute("aria-current", String(isOpen));
  return row.dom;
}

function makeRow(id) {
  return element("li", { data: { id } }, element("a", { href: hrefOf(id) },
    element("span", { class: "badge", data: { state: "bad" } }),
    element("span", { class: "title" }),
    element("span", { class: "test" }),
    element("span", { class: "facts" }, element("span"), element("time"), element("span", { class: "reproduces" }))));
}

// ----------------------------------------------------------------- detail

function renderDetail() {
  const id = route.finding;
  detail.dom.hidden = id === null;
  if (id !== opened.id) {
    opened = { id, told: "", detail: null, failure: "", data: "", hasPrinted: false };
    detail.printed.open = false;
    input.clear("Loading the input…");
  }
  if (id === null) return;
  const finding = allFindings().find((each) => each.id === id);
  detail.kind.hidden = detail.facts.hidden = finding === undefined;
  if (finding === undefined) return renderUnknown(id);
  renderSummary(finding);
  const told = JSON.stringify(finding);
  if (told !== opened.told) {
    opened.told = told;
    renderLoaded();
    load(id);
  }
}

function renderUnknown(id) {
  const isLoading = state.server.findings === undefined && state.ownServer !== false;
  setText(detail.title, isLoading ? "Loading…" : "No such finding");
  setNote(isLoading ? "" : `There is no finding with the id ${id}. It may be kept in another cache folder.`);
  detail.message.hidden = detail.rest.hidden = true;
}

function setNote(text) {
  setText(detail.note, text);
  detail.note.hidden = text === "";
}

function renderSummary(finding) {
  setText(detail.kind, finding.kind);
  setText(detail.title, firstLine(finding.message));
  const rest = withoutEscapes(finding.message).split("\n").slice(1).join("\n");
  setText(detail.message, rest);
  detail.message.hidden = rest.trim() === "";
  const reproduces = reproducesOf(finding);
  const place = parsePlace(finding.place ?? "");
  setFacts([
    ["Test", finding.test],
    hasManyTargets() && ["Target", finding.target],
    place !== null && ["Place", placeLink(place)],
    ["Found", finding.count === 1 ? "once" : counted(finding.count, "time")],
    ["First seen", timeOf(finding.first_time), `, after ${counted(finding.n_runs, "run")}`],
    finding.count > 1 && ["Last seen", timeOf(finding.last_time)],
    ["Reproduces", reproduces.sentence],
  ].filter(Boolean));
}

// Each fact is a name and what is said of it. What has not changed stays, with what is selected in it.
function setFacts(facts) {
  facts.forEach(([name, ...values], i) => {
    const row = detail.facts.children[i] ?? detail.facts.appendChild(element("div", {}, element("dt"), element("dd")));
    const value = element("dd", {}, ...values);
    setText(row.firstElementChild, name);
    if (row.lastElementChild.textContent !== value.textContent) row.lastElementChild.replaceWith(value);
  });
  while (detail.facts.children.length > facts.length) detail.facts.lastElementChild.remove();
  linkPlaces(detail.facts);
}

function timeOf(unixSeconds) {
  const dom = element("time");
  setTime(dom, unixSeconds);
  return dom;
}

async function load(id) {
  const loading = opened;
  const told = loading.told;
  const isCurrent = () => opened === loading && opened.told === told;
  try {
    const value = await fetchedJson(findingUrl(id, "json"));
    if (!isCurrent()) return;
    opened.detail = value;
    opened.failure = "";
  } catch (error) {
    if (!isCurrent()) return;
    opened.failure = `What is known of it could not be loaded: ${error.message}.`;
  }
  renderLoaded();
  const { input_size: size, input_literal: literal, minimized_size: minimized } = opened.detail ?? {};
  const data = JSON.stringify([size, literal, minimized]);
  if (opened.detail !== null && data !== opened.data) await loadInput(id, loading, data);
}

async function loadInput(id, loading, data) {
  try {
    const bytes = await fetchedBytes(findingUrl(id, "input"));
    if (opened !== loading) return;
    opened.data = data;
    input.show(bytes);
  } catch (error) {
    if (opened === loading) input.clear(`The input could not be loaded: ${error.message}.`);
  }
}

function renderLoaded() {
  const { failure, detail: known } = opened;
  setNote(failure);
  detail.rest.hidden = known === null;
  if (known === null) return;
  const stack = known.stack ?? "";
  detail.stackPart.hidden = stack.trim() === "";
  setChanged(detail.stack, stackItems(stack, known.place ?? ""));
  linkPlaces(detail.stack);
  setText(detail.inputSize, sizeText(known));
  setText(detail.inputNote, known.input_note);
  detail.inputNote.hidden = known.input_note === "";
  setText(detail.command, known.command);
  setText(detail.argv, known.argv.map(quoted).join(" "));
  detail.argvLine.hidden = known.argv.length === 0;
  detail.printed.hidden = (known.stderr ?? "").trim() === "";
  opened.hasPrinted = false;
  renderPrinted();
}

// It may be long, and is seldom wanted.
function renderPrinted() {
  if (!detail.printed.open || opened.detail === null || opened.hasPrinted) return;
  opened.hasPrinted = true;
  const paper = detail.printed.lastElementChild;
  setChanged(paper, printedLines(opened.detail.stderr));
  linkPlaces(paper);
}

// Replaces the children if they say something else.
function setChanged(dom, children) {
  const isSame = children.length === dom.children.length && children.every((child, i) =>
    child.textContent === dom.children[i].textContent && child.className === dom.children[i].className);
  if (!isSame) dom.replaceChildren(...children);
}

// ---------------------------------------------------------------- helpers

function isShown() {
  return route.view === "findings";
}

function allFindings() {
  return Array.isArray(state.server.findings) ? state.server.findings : [];
}

function hasManyTargets() {
  return (state.server.targets?.length ?? 0) > 1;
}

function hrefOf(id) {
  return "#finding/" + encodeURIComponent(id);
}

function findingUrl(id, suffix) {
  return `findings/${encodeURIComponent(id)}.${suffix}`;
}

function reproducesOf(finding) {
  return REPRODUCES.get(finding.reproduces) ?? REPRODUCES_UNKNOWN;
}

function firstLine(message) {
  return withoutEscapes(message).split("\n", 1)[0];
}

function sizeText({ input_size: size, form, exact, minimized_size: minimized }) {
  const text = inputSize(size, form) + (exact ? ", known exactly" : "");
  if (minimized === null || minimized === undefined) return text;
  return minimized === size ? `${text}, minimized` : `${text}, minimized to ${minimized}`;
}

// As a shell takes it.
function quoted(argument) {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'"'"'`)}'`;
}
