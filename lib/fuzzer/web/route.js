// What the address asks for behind its #, and how it changes:
//   #coverage, #l<location>, #f<file>, #f<file>:<line>, #findings, #finding/<id>,
//   #corpus, #corpus/<index>/<number>, #log
// Another executable numbers its files and locations anew. So the history
// remembers places by their names, and the open place stays open.

import { emit, on, state } from "./bus.js";
import { text, u32s, wasm } from "./wasm.js";

const NOWHERE = {
  view: "coverage", file: null, line: null, location: null, finding: null, corpus: null, input: null,
};
// Browsers refuse too many changes of the address, as of a key that is held down.
const REPLACE_MS = 150;

// `file` and `line` (from 1) are told of a location too, if there is such a
// one; `file` may be a number that the executable does not have.
export const route = { ...NOWHERE };

// What is open, by its names: {path, line, column} (the last two null for a
// file alone), or null.
let place = null;
let replaceTimer = null;
let pathIndexes = null;

export function start() {
  hideToken();
  on("index", onIndex);
  addEventListener("popstate", (event) => {
    clearTimeout(replaceTimer);
    follow(location.hash, event.state?.place ?? null);
    emit("route");
  });
  document.addEventListener("click", onClick);
  follow(location.hash, history.state?.place ?? null);
}

// The address that the server prints may hold a secret, which the browser keeps
// as a cookie from then on: nobody should see it on a screen or in a shared link.
function hideToken() {
  const url = new URL(location.href);
  if (!url.searchParams.has("token")) return;
  url.searchParams.delete("token");
  history.replaceState(history.state, "", url);
}

export function go(hash, { replace = false } = {}) {
  follow(hash, null);
  clearTimeout(replaceTimer);
  if (replace) replaceTimer = setTimeout(write, REPLACE_MS, "replaceState");
  else write("pushState");
  emit("route");
}

// The link to a place in a file that the executable has, or null. A path that
// is not known as it is may be the end of one that is.
export function placeHref(path, line) {
  if (!state.hasIndex) return null;
  pathIndexes ??= indexPaths();
  const file = pathIndexes.get(path) ?? onlyFileEndingWith("/" + path);
  return file === undefined ? null : hashOf({ file, line });
}

function onIndex() {
  pathIndexes = null;
  follow(hashOf(route), place);
  // What is not there any more is remembered all the same: a later build may have it again.
  if (hashOf(route) !== location.hash) write("replaceState");
  // After all others have taken in the new index.
  queueMicrotask(() => emit("route"));
}

// Links within the page. Browsers would follow them too, but scroll to what
// answers to the name, and keep no place in the history.
function onClick(event) {
  const link = event.target.closest?.('a[href^="#"]');
  if (link === null || link === undefined || event.defaultPrevented || event.button !== 0) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
}

// Makes `route` what the hash says, or where the numbers in it have changed,
// what they meant.
function follow(hash, remembered) {
  Object.assign(route, NOWHERE, parse(hash));
  place = remembered;
  if (!state.hasIndex || route.view !== "coverage") return;
  // A place that the build before this one did not have leaves no number to be found by.
  if (remembered !== null && !isAt(remembered)) findPlace(remembered);
  if (route.location === null && route.file === null) return;
  if (route.location !== null && route.location < wasm.locationCount()) {
    route.file = wasm.locationFile(route.location) >>> 0;
    route.line = wasm.locationLine(route.location) >>> 0;
  }
  if (hasFile(route.file)) place = currentPlace();
}

function parse(hash) {
  const [kind, ...rest] = decoded(hash.replace(/^#/, "")).split("/");
  const [, letter, digits, line] = /^([lf])(\d{1,9})(?::(\d{1,9}))?$/.exec(kind) ?? [];
  if (letter === "l") return { location: +digits };
  if (letter === "f") return { file: +digits, line: line === undefined ? null : +line };
  if (kind === "finding" && rest.length > 0) return { view: "findings", finding: rest.join("/") };
  if (kind === "corpus") return { view: "corpus", corpus: number(rest[0]), input: number(rest[1]) };
  return { view: ["findings", "log"].includes(kind) ? kind : "coverage" };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function number(digits) {
  return /^\d{1,9}$/.test(digits ?? "") ? +digits : null;
}

function hashOf({ view = "coverage", location = null, file = null, line = null, ...rest }) {
  if (location !== null) return `#l${location}`;
  if (file !== null) return `#f${file}` + (line === null ? "" : `:${line}`);
  if (view === "coverage") return "";
  if (view === "findings" && rest.finding !== null) return `#finding/${encodeURIComponent(rest.finding)}`;
  if (view === "corpus" && rest.corpus !== null) {
    return `#corpus/${rest.corpus}` + (rest.input === null ? "" : `/${rest.input}`);
  }
  return `#${view}`;
}

function hasFile(file) {
  return file !== null && file < wasm.fileCount();
}

function pathOf(file) {
  return text(wasm.filePath(file));
}

function currentPlace() {
  const column = route.location === null ? null : wasm.locationColumn(route.location) >>> 0;
  return { path: pathOf(route.file), line: route.line, column };
}

function isAt({ path, line, column }) {
  if (route.location === null) return hasFile(route.file) && pathOf(route.file) === path;
  if (route.location >= wasm.locationCount()) return false;
  const file = wasm.locationFile(route.location) >>> 0;
  return hasFile(file) && pathOf(file) === path && (wasm.locationLine(route.location) >>> 0) === line &&
    (wasm.locationColumn(route.location) >>> 0) === column;
}

// The same place under its new number, else the line, else nothing.
function findPlace({ path, line, column }) {
  pathIndexes ??= indexPaths();
  const file = pathIndexes.get(path) ?? null;
  route.location = null;
  route.file = file;
  route.line = file === null ? null : line;
  if (file === null || column === null) return;
  for (const location of u32s(wasm.fileLocations(file))) {
    if ((wasm.locationLine(location) >>> 0) !== line || (wasm.locationColumn(location) >>> 0) !== column) continue;
    route.location = location;
    return;
  }
}

function indexPaths() {
  const indexes = new Map();
  for (let file = 0; file < wasm.fileCount(); file += 1) indexes.set(pathOf(file), file);
  return indexes;
}

function onlyFileEndingWith(end) {
  const found = [...pathIndexes].filter(([path]) => path.endsWith(end));
  return found.length === 1 ? found[0][1] : undefined;
}

function write(how) {
  try {
    const kept = how === "replaceState" ? history.state : null;
    history[how]({ ...kept, place }, "", hashOf(route) || location.pathname + location.search);
  } catch (error) {
    console.warn("the address could not be changed:", error.message);
  }
}
