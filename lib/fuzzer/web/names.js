// How the page calls files and places: without what the paths of all files have in common.

import { on } from "./bus.js";
import { sharedPrefix } from "./tree.js";
import { text, u32s, wasm } from "./wasm.js";

const BY_NAME = 0, ASCENDING = 0, ALL = 0;

// How much of its path is left out for a file of the user, and for one of Zig's library; null
// until somebody asks.
let prefixes = null;

export function startNames() {
  on("index", () => prefixes = null);
}

export function filePath(file) {
  return text(wasm.filePath(file));
}

export function shortPath(file) {
  prefixes ??= findPrefixes();
  const prefix = wasm.fileIsStd(file) ? prefixes.std : prefixes.own;
  const path = filePath(file);
  return path.startsWith(prefix) ? path.slice(prefix.length) : path;
}

// "parser.zig:12"
export function shortPlace(point) {
  const file = wasm.locationFile(point) >>> 0;
  if (file >= wasm.fileCount() >>> 0) return `location ${point}, in no file`;
  return `${shortPath(file)}:${wasm.locationLine(point) >>> 0}`;
}

// The function that a location is in, or "".
export function pointFunctionName(point) {
  const number = wasm.pointFunction(point) >>> 0;
  return number < wasm.functionCount() >>> 0 ? text(wasm.functionName(number)) : "";
}

function findPrefixes() {
  wasm.inbox(0);
  const files = [...u32s(wasm.listFiles(BY_NAME, ASCENDING, ALL))];
  const isStd = files.map((file) => Boolean(wasm.fileIsStd(file)));
  const paths = files.map(filePath);
  return { own: sharedPrefix(paths.filter((_, i) => !isStd[i])), std: sharedPrefix(paths.filter((_, i) => isStd[i])) };
}
