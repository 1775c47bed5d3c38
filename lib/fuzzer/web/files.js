// The tabs beside the source: files as a tree or a flat list, and functions. What is
// behind the third tab, news.js fills.

import { on, state } from "./bus.js";
import { byId, element, setText } from "./dom.js";
import { count, counted } from "./format.js";
import { addKey } from "./keys.js";
import { MISSED, NAME, PART, POINTS, ask, Listing, loadChoices, saveChoices } from "./listing.js";
import { go, route } from "./route.js";
import { baseName, countLeaves, directoryOf, recountNode, sharedPrefix, sortNodes, treeOf } from "./tree.js";
import { text, wasm } from "./wasm.js";

const TABS = ["Files", "Functions", "New"];
const TAB_STORAGE = "fuzzserver.side";
const SORT_VALUES = {
  [NAME]: (node) => node.name,
  [MISSED]: (node) => node.total - node.covered,
  [POINTS]: (node) => node.total,
  [PART]: (node) => node.covered / node.total,
};

// Files with points, or directories of such.
class Files {
  // By file number: paths, also without what all of them share and no reader needs.
  #paths = [];
  #shortPaths = [];
  #listed = 0;
  #roots = [];
  #rows = [];
  // Directories that were opened and closed by hand, by their paths; others while a
  // filter is set, which opens all.
  #opened = new Map();
  #openedFiltered = new Map();
  #query = null;

  // All numbers mean something else than before.
  renumber() {
    this.#paths = Array.from({ length: wasm.fileCount() }, (_, file) => text(wasm.filePath(file)));
    const listed = [...this.#paths.keys()].filter((file) => wasm.fileTotal(file) > 0);
    this.#listed = listed.length;
    const pathsOf = (isStd) => listed.filter((file) => isStdFile(file) === isStd).map((file) => this.#paths[file]);
    const own = sharedPrefix(pathsOf(false)).length;
    const std = sharedPrefix(pathsOf(true));
    // Where Zig is installed tells nothing, but its files are not to be mixed with others.
    const afterZig = std.includes("/lib/") ? std.lastIndexOf("/lib/") + 1 : std.length;
    this.#shortPaths = this.#paths.map((path, file) =>
      isStdFile(file) ? "zig/" + path.slice(afterZig) : path.slice(own));
    this.#rows = [];
  }

  load(query) {
    const before = this.#rows;
    if (query.filter !== this.#query?.filter) this.#openedFiltered.clear();
    this.#query = query;
    const files = state.hasIndex ? [...ask(wasm.listFiles, query)] : [];
    const leaves = files.map((file) => this.#leaf(file));
    this.#roots = query.tree ? treeOf(leaves, (leaf) => this.#shortPaths[leaf.file]) : leaves;
    this.recount();
    if (!query.tree) for (const leaf of leaves) leaf.small = directoryOf(this.#shortPaths[leaf.file]);
    // What is shown of a flat list is ordered by names alone, not by paths.
    const isByName = query.key === NAME;
    if (query.tree || isByName) sortNodes(this.#roots, SORT_VALUES[query.key], query.descending, isByName);
    this.#flatten();
    return !areSame(before, this.#rows);
  }

  recount() {
    for (const root of this.#roots) recountNode(root, (leaf) => wasm.fileCovered(leaf.file));
  }

  toggle(directory, isOpen) {
    const opened = this.#query.filter === "" ? this.#opened : this.#openedFiltered;
    opened.set(directory.path, isOpen);
    this.#flatten();
  }

  get length() {
    return this.#rows.length;
  }

  item(index) {
    return this.#rows[index];
  }

  indexOf(id) {
    return this.#rows.findIndex((node) => node.id === id);
  }

  currentId() {
    return route.file === null ? null : `f${route.file}`;
  }

  note() {
    if (!state.hasIndex) return "Files appear here once the fuzzer has reported its coverage.";
    const notes = [];
    const shown = countLeaves(this.#roots);
    if (this.#listed === 0) notes.push("No file has coverage points.");
    else if (shown === 0) {
      notes.push(this.#query.filter !== "" ? "No path matches the filter." : "Nothing is left: all files are hidden.");
    } else if (shown < this.#listed) {
      notes.push(`${count(shown)} of ${counted(this.#listed, "file")}.`);
    }
    const stray = wasm.fileTotal(wasm.fileCount());
    if (stray > 0) notes.push(`${counted(stray, "point")} ${stray === 1 ? "belongs" : "belong"} to no file.`);
    return notes.join(" ");
  }

  // The file before or after the open one, in the order that is shown; null if there is none.
  neighbour(direction) {
    const files = this.#rows.filter((node) => node.file !== undefined);
    const place = files.findIndex((node) => node.id === this.currentId());
    if (place === -1) return files.at(direction > 0 ? 0 : -1) ?? null;
    return files[place + direction] ?? null;
  }

  #leaf(file) {
    const path = this.#shortPaths[file];
    return {
      id: `f${file}`, file, name: baseName(path), small: "", title: this.#paths[file], href: `#f${file}`, level: 1,
      isStd: isStdFile(file), total: wasm.fileTotal(file), covered: 0,
    };
  }

  #flatten() {
    const isFiltered = this.#query.filter !== "";
    const opened = isFiltered ? this.#openedFiltered : this.#opened;
    this.#rows = [];
    const add = (nodes, level) => {
      for (const node of nodes) {
        node.level = level;
        this.#rows.push(node);
        if (node.children === undefined) continue;
        // Zig's own files are many, and seldom what is looked for.
        node.isOpen = opened.get(node.path) ?? (isFiltered || !node.isStd);
        if (node.isOpen) add(node.children, level + 1);
      }
    };
    add(this.#roots, 1);
  }
}

class Functions {
  #numbers = new Uint32Array();
  #filter = "";

  // All numbers mean something else than before.
  renumber() {
    this.#numbers = new Uint32Array();
  }

  load(query) {
    const before = this.#numbers;
    this.#filter = query.filter;
    this.#numbers = state.hasPoints ? ask(wasm.listFunctions, query) : new Uint32Array();
    return before.length !== this.#numbers.length || before.some((number, i) => number !== this.#numbers[i]);
  }

  recount() {
    // `item` asks anew each time.
  }

  get length() {
    return this.#numbers.length;
  }

  item(index) {
    const number = this.#numbers[index];
    const name = text(wasm.functionName(number));
    const point = wasm.functionPoint(number) >>> 0;
    const file = wasm.functionFile(number) >>> 0;
    const path = file < wasm.fileCount() ? text(wasm.filePath(file)) : "";
    const line = wasm.locationLine(point);
    return {
      id: `k${number}`, name, small: path === "" ? "" : `${baseName(path)}:${line}`,
      title: path === "" ? name : `${name}\n${path}:${line}`, href: `#l${point}`, level: 1,
      total: wasm.functionTotal(number), covered: wasm.functionCovered(number),
    };
  }

  indexOf(id) {
    return this.#numbers.indexOf(Number(id.slice(1)));
  }

  currentId() {
    if (!state.hasPoints || route.location === null || route.location >= wasm.locationCount()) return null;
    return `k${wasm.pointFunction(route.location)}`;
  }

  note() {
    const all = state.hasPoints ? wasm.functionCount() : 0;
    if (all === 0) return "No function is known: the executable has no debug info that names them.";
    if (this.length === all) return `${counted(all, "function")}, ${count(wasm.functionsCovered())} of them entered.`;
    if (this.length > 0) return `${count(this.length)} of ${counted(all, "function")}.`;
    return this.#filter !== "" ? "No function matches the filter." : "Nothing is left: all functions are hidden.";
  }
}

function isStdFile(file) {
  return wasm.fileIsStd(file) !== 0;
}

function areSame(a, b) {
  return a.length === b.length && a.every((node, i) =>
    node.id === b[i].id && node.name === b[i].name && node.level === b[i].level &&
    node.small === b[i].small && node.isOpen === b[i].isOpen);
}

// ------------------------------------------------------------------- panels and tabs

const files = new Files();
const functions = new Functions();
let fileList = null;
let functionList = null;
let functionBody = null;
let functionsWait = null;
let lastCovered = -1;

export function start() {
  const columns = [[MISSED, "Missed"], [POINTS, "Points"], [PART, "Covered"]];
  const fileBody = element("div", { class: "listPanel" });
  byId("panelFiles").append(fileBody);
  fileList = new Listing(fileBody, files, {
    storage: "fuzzserver.files",
    ids: { filter: "fileFilter", heads: "fileHeads", scroll: "fileScroll", note: "filesNote" },
    boxes: [
      { id: "filesAsTree", choice: "tree", text: "As tree" },
      { id: "hideStd", choice: "hideStd", text: "Hide std" },
      { id: "hideCovered", choice: "hideCovered", text: "Hide covered" },
    ],
    choices: { tree: true, hideStd: false, hideCovered: false },
    columns: [[NAME, "File"], ...columns], placeholder: "Filter files", label: "Files",
  });
  functionBody = element("div", { class: "listPanel" });
  functionsWait = element("p", { class: "listNote muted" });
  byId("panelFunctions").append(functionBody, functionsWait);
  functionList = new Listing(functionBody, functions, {
    storage: "fuzzserver.functions",
    ids: { filter: "functionFilter", heads: "functionHeads", scroll: "functionScroll", note: "functionsNote" },
    boxes: [
      { id: "hideStdFunctions", choice: "hideStd", text: "Hide std" },
      { id: "hideCoveredFunctions", choice: "hideCovered", text: "Hide covered" },
    ],
    choices: { hideStd: true, hideCovered: false },
    columns: [[NAME, "Function"], ...columns], placeholder: "Filter functions", label: "Functions", isTall: true,
  });
  startTabs();
  listen();
  addKey("/", "Filter the list", focusFilter);
  addKey("[", "Previous file of the list", () => step(-1));
  addKey("]", "Next file of the list", () => step(1));
  showFunctionsWait();
  fileList.reload();
}

function listen() {
  on("index", () => {
    lastCovered = -1;
    files.renumber();
    functions.renumber();
    fileList.reloadWhenVisible();
    onFunctions();
  });
  on("points", onFunctions);
  on("connection", showFunctionsWait);
  on("coverage", onCoverage);
  on("route", () => {
    reloadShown();
    fileList.showCurrent();
    functionList.showCurrent();
  });
}

function onFunctions() {
  functions.renumber();
  showFunctionsWait();
  functionList.reloadWhenVisible();
}

// Most updates only bring new counters.
function onCoverage(newlyCovered) {
  const covered = wasm.coveredCount();
  if (newlyCovered === 0 && covered === lastCovered) return;
  lastCovered = covered;
  fileList.update();
  if (state.hasPoints) functionList.update();
}

function showFunctionsWait() {
  functionBody.hidden = !state.hasPoints;
  functionsWait.hidden = state.hasPoints;
  setText(functionsWait, state.ownServer === false
    ? "This server does not tell which functions there are."
    : "Functions appear here once the debug info has been read.");
}

function reloadShown() {
  fileList.onVisible();
  if (state.hasPoints) functionList.onVisible();
}

function step(direction) {
  if (!state.hasIndex) return;
  fileList.freshen();
  const file = files.neighbour(direction);
  if (file === null) return;
  go(file.href);
  fileList.showCurrent(true);
}

function focusFilter() {
  if (route.view === "log") return byId("logFilter")?.focus();
  if (route.view !== "coverage") go("#coverage");
  const isFunctions = chosenTab() === "Functions" && state.hasPoints;
  if (!isFunctions) showTab("Files");
  const field = (isFunctions ? functionList : fileList).filterField;
  field.focus();
  field.select();
}

function startTabs() {
  for (const name of TABS) {
    const tab = byId(`tab${name}`);
    tab.addEventListener("click", () => showTab(name));
    tab.addEventListener("keydown", onTabKey);
  }
  const { tab } = loadChoices(TAB_STORAGE, { tab: TABS[0] });
  showTab(TABS.includes(tab) ? tab : TABS[0]);
}

function chosenTab() {
  return TABS.find((name) => byId(`tab${name}`).getAttribute("aria-selected") === "true");
}

function showTab(chosen) {
  for (const name of TABS) {
    const tab = byId(`tab${name}`);
    tab.setAttribute("aria-selected", name === chosen);
    tab.tabIndex = name === chosen ? 0 : -1;
    byId(`panel${name}`).hidden = name !== chosen;
  }
  saveChoices(TAB_STORAGE, { tab: chosen });
  reloadShown();
}

function onTabKey(event) {
  const place = TABS.indexOf(chosenTab());
  const places = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: -1 };
  if (!(event.key in places) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const name = TABS.at(places[event.key] % TABS.length);
  showTab(name);
  byId(`tab${name}`).focus();
}
