// The interesting inputs that the fuzzer keeps for each test, and the bytes of the one that is opened.

import { on, state } from "./bus.js";
import { byteView, inputSize } from "./bytes.js";
import { byId, element, setChildren, setText, setTime } from "./dom.js";
import { fetchedBytes, fetchedJson } from "./fetching.js";
import { bytes as size, counted, count } from "./format.js";
import { reportTime } from "./report.js";
import { route } from "./route.js";

const REFRESH_MS = 10_000;
const MAX_ROWS = 500;
const SMITH_NOTE = "The test is not given these bytes. Its std.testing.Smith makes numbers, choices and strings of them, " +
  "in the order in which the test asks for them.";

// What /corpus.json says; null until it has been asked.
let corpora = null;
let failure = "";
let isLoading = false;
// What is drawn of each corpus, by its target and test.
const groups = new Map();
// The input whose bytes are shown; empty if none are.
let openedKey = "";
let list, detail, input;

export function start() {
  list = makeList();
  input = byteView("corpusInput", () => `corpus/${route.corpus}/${route.input}`);
  detail = makeDetail();
  byId("viewCorpus").append(list.dom, detail.dom);
  list.refresh.addEventListener("click", refresh);
  on("route", onRoute);
  on("connection", () => isShown() && state.connection === "connected" && refresh());
  setInterval(() => isShown() && !document.hidden && !state.paused && refresh(), REFRESH_MS);
  onRoute();
}

function makeList() {
  const title = element("h2", { text: "Corpus" });
  const refresh = element("button", { type: "button", text: "Refresh", hidden: reportTime !== null });
  const note = element("p", { class: "entriesNote muted", attributes: { role: "status" } });
  const groupList = element("div", { id: "corpusRows" });
  const empty = element("div", { class: "empty", hidden: true }, element("h3"), element("p"));
  const head = element("div", { class: "entriesHead" }, element("div", { class: "entriesTitle" }, title, refresh));
  const dom = element("div", { class: "entries", attributes: { role: "region", "aria-label": "Inputs by test" } },
    head, note, groupList, empty);
  return { dom, refresh, note, groups: groupList, empty };
}

function makeDetail() {
  const title = element("h2", { tabIndex: -1 });
  const facts = element("p", { class: "muted" });
  const note = element("p", { class: "muted", text: SMITH_NOTE, hidden: true });
  const older = element("a", { class: "button" }, "Older");
  const newer = element("a", { class: "button" }, "Newer");
  const head = element("div", { class: "detailHead" }, title, element("span", { class: "tools" }, newer, older));
  const body = element("div", {}, element("a", { class: "back", href: "#corpus" }, "All inputs"), head,
    element("div", { class: "detailBody" }, facts, note, input.dom));
  const hint = element("p", { class: "empty" },
    "The fuzzer keeps an input when it covers something new. Choose one to see its bytes.");
  const attributes = { "aria-label": "Input" };
  const dom = element("article", { id: "corpusDetail", class: "detail", attributes }, body, hint);
  return { dom, body, hint, title, facts, note, older, newer };
}

function onRoute() {
  if (!isShown()) return;
  const isKnown = corpora !== null;
  const before = openedKey;
  const wasOpen = byId("viewCorpus").contains(document.activeElement);
  render();
  if (openedKey !== before) detail.dom.scrollTop = 0;
  if (openedKey !== before && detail.dom.getBoundingClientRect().top < 0) detail.dom.scrollIntoView();
  // Where there is room for one of both only, the focus goes to the one that is shown now.
  if (wasOpen && document.activeElement.checkVisibility?.() !== true) {
    if (route.input !== null) detail.title.focus();
    else list.refresh.focus();
  }
  if (!isKnown || route.input === null) refresh();
}

async function refresh() {
  if (isLoading || state.ownServer === false) return render();
  isLoading = true;
  try {
    corpora = (await fetchedJson("corpus.json")).corpora;
    failure = "";
  } catch (error) {
    failure = error.message;
  }
  isLoading = false;
  render();
}

// ------------------------------------------------------------------- list

function render() {
  byId("viewCorpus").classList.toggle("isOpen", route.input !== null);
  const all = corpora ?? [];
  const message = state.ownServer === false || failure === "" ? "" : `The corpus could not be loaded: ${failure}.`;
  setText(list.note, message);
  list.note.hidden = message === "";
  renderEmpty(all);
  setChildren(list.groups, all.map((corpus) => renderGroup(corpus, all)));
  renderDetail();
}

function renderEmpty(all) {
  list.empty.hidden = all.length > 0;
  const [title, text] = state.ownServer === false
    ? ["This server shows no corpus", "Zig's own server shows coverage only."]
    : corpora === null
      ? ["Corpus", failure === "" ? "Loading…" : ""]
      : ["No corpus so far", "The fuzzer keeps each input that covers something new. Once a fuzz test runs, its " +
        "inputs are listed here."];
  setText(list.empty.firstElementChild, title);
  setText(list.empty.lastElementChild, text);
}

function renderGroup(corpus, all) {
  const key = JSON.stringify([corpus.target, corpus.test]);
  let group = groups.get(key);
  if (group === undefined) {
    group = makeGroup();
    groups.set(key, group);
    group.dom.open = corpus === all.find((each) => each.count > 0);
  }
  const isRoute = route.corpus === corpus.index;
  // Opened once: the reader may close it again.
  if (isRoute && !group.wasRoute) group.dom.open = true;
  group.wasRoute = isRoute;
  const hasManyTargets = new Set(all.map((each) => each.target)).size > 1;
  setText(group.test, corpus.test);
  setText(group.facts, [hasManyTargets ? corpus.target : "", counted(corpus.count, "input"), size(corpus.size)]
    .filter(Boolean).join(" · "));
  group.download.href = `corpus/${corpus.index}.tar`;
  group.body.hidden = corpus.count === 0;
  group.note.hidden = corpus.count > 0;
  group.corpus = corpus;
  if (group.dom.open) renderInputs(group);
  return group.dom;
}

function makeGroup() {
  const test = element("span", { class: "title" });
  const facts = element("span", { class: "facts" });
  // A report holds single inputs only.
  const download = element("a", {
    class: "button", text: "Download all", hidden: reportTime !== null, attributes: { download: "" },
  });
  const rows = element("tbody");
  const more = element("button", { type: "button" });
  const heads = ["Input", "Size", "Kept"].map((text) => element("th", { text, attributes: { scope: "col" } }));
  const body = element("div", {}, element("p", { class: "groupTools" }, download),
    element("table", { class: "inputs" }, element("thead", {}, element("tr", {}, ...heads)), rows),
    element("p", { class: "groupTools" }, more));
  const note = element("p", { class: "entriesNote muted", text: "No input covers more than the one before, so far." });
  const dom = element("details", { class: "group" }, element("summary", {}, test, " ", facts), body, note);
  const group = {
    dom, test, facts, download, body, note, more, rows,
    byNumber: new Map(), shown: MAX_ROWS, corpus: null, wasRoute: false,
  };
  dom.addEventListener("toggle", () => dom.open && renderInputs(group));
  more.addEventListener("click", () => {
    const first = group.rows.children.length;
    group.shown += MAX_ROWS;
    renderInputs(group);
    group.rows.children[first].querySelector("a").focus();
  });
  return group;
}

function renderInputs(group) {
  const inputs = newestFirst(group.corpus);
  const shown = inputs.slice(0, group.shown);
  setChildren(group.rows, shown.map((each) => renderInput(group, each)));
  const numbers = new Set(shown.map((each) => each.number));
  for (const number of group.byNumber.keys()) if (!numbers.has(number)) group.byNumber.delete(number);
  group.more.parentElement.hidden = inputs.length <= group.shown;
  const further = Math.min(MAX_ROWS, inputs.length - shown.length);
  setText(group.more, `Show ${count(further)} more of ${count(inputs.length)}`);
}

function renderInput(group, { number, size: length, time }) {
  const { index } = group.corpus;
  const isOpen = route.corpus === index && route.input === number;
  const key = [index, length, time, isOpen].join();
  let row = group.byNumber.get(number);
  if (row === undefined) {
    const head = element("th", { attributes: { scope: "row" } }, element("a", { text: number }));
    row = { dom: element("tr", {}, head, element("td"), element("td", {}, element("time"))), key: "" };
    group.byNumber.set(number, row);
  }
  if (row.key === key) return row.dom;
  row.key = key;
  const [head, bytes, kept] = row.dom.children;
  head.firstElementChild.href = `#corpus/${index}/${number}`;
  head.firstElementChild.setAttribute("aria-current", String(isOpen));
  setText(bytes, size(length));
  setTime(kept.firstElementChild, time);
  return row.dom;
}

function newestFirst(corpus) {
  return corpus.inputs.toSorted((a, b) => b.time - a.time || b.number - a.number);
}

// ----------------------------------------------------------------- detail

function renderDetail() {
  detail.body.hidden = route.input === null;
  detail.hint.hidden = !detail.body.hidden;
  detail.dom.hidden = detail.body.hidden && !corpora?.some((corpus) => corpus.count > 0);
  if (route.input === null) {
    openedKey = "";
    return;
  }
  const corpus = corpora?.find((each) => each.index === route.corpus);
  const inputs = corpus === undefined ? [] : newestFirst(corpus);
  const place = inputs.findIndex((each) => each.number === route.input);
  setText(detail.title, `Input ${route.input}`);
  detail.note.hidden = corpus?.form !== "smith";
  setNeighbour(detail.newer, inputs[place - 1]);
  setNeighbour(detail.older, place < 0 ? undefined : inputs[place + 1]);
  if (place < 0) return renderUnknown();
  const { number, size: length, time } = inputs[place];
  const kept = element("time");
  setTime(kept, time);
  const facts = element("p", {}, `${corpus.test} · ${inputSize(length, corpus.form)} · kept `, kept);
  if (facts.textContent !== detail.facts.textContent) detail.facts.replaceChildren(...facts.childNodes);
  load(`corpus/${corpus.index}/${number}`, JSON.stringify([corpus.target, corpus.test, number, length, time]));
}

function setNeighbour(link, neighbour) {
  link.hidden = neighbour === undefined;
  if (neighbour !== undefined) link.href = `#corpus/${route.corpus}/${neighbour.number}`;
}

function renderUnknown() {
  openedKey = "";
  setText(detail.facts, "");
  input.clear(corpora === null && failure === "" ? "Loading…" :
    "There is no such input now. When the fuzzer starts again, it leaves out what it does not need and numbers the " +
    "rest anew.");
}

async function load(url, key) {
  if (key === openedKey) return;
  openedKey = key;
  let show;
  try {
    const bytes = await fetchedBytes(url);
    show = () => input.show(bytes);
  } catch (error) {
    show = () => input.clear(`The input could not be loaded: ${error.message}.`);
  }
  if (key === openedKey) show();
}

function isShown() {
  return route.view === "corpus";
}
