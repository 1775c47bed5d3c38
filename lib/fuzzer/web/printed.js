// Text that Zig, a test or the server printed: stack traces and compile errors, with links into the source.

import { element } from "./dom.js";
import { placeHref } from "./route.js";

// What terminals take for colours, titles and the like.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])|\r(?=\n)/g;
const PLACE = /^(.+?):(\d+):(\d+): (.*)$/;
const CARET = /^\s*[~^]+\s*$/;
const FRAME = /^(0x[0-9a-f]+) in (.*?)(?: \(([^()]*)\))?$/;
// What Zig says of a frame without debug info.
const NOWHERE = /^\?\?\?:\?:\?: /;
const SEVERITY = /^(error|warning|note|thread \d+ panic)(?:\(\w+\))?:/;
// Fewer frames are not worth a click.
const FOLD_FROM = 3;
// Zig's own files, which are seldom where the mistake is, and our copy of one of them.
const LIBRARY =
  /(?:^|\/)(?:lib\/(?:zig\/)?(?:std|compiler|compiler_rt|fuzzer)(?:\/|\.zig$)|\.zig-cache\/fuzzserver\/runner\/)/;

/** The text without what is meant for a terminal. */
export function withoutEscapes(text) {
  return text.replace(ESCAPES, "");
}

/** Elements for a text of several lines, one after the other; lines that are nothing special share one. */
export function printedLines(text) {
  return joined(parse(text)).map((part) => element("div", { class: "printed" }, ...printedParts(part)));
}

/**
 * An item for each frame of a stack trace, and for each other line in it. `place` is where the user's code broke.
 * Below the user's frames come those that called the test, always the same: they are folded away.
 */
export function stackItems(stack, place) {
  const items = [];
  let folded = [];
  let isBelow = false;
  const unfold = () => {
    items.push(...(folded.length < FOLD_FROM ? folded : [foldedItem(folded)]));
    folded = [];
  };
  for (const part of parse(stack.trimEnd())) {
    const item = stackItem(part, place);
    if (isBelow && item.classList.contains("library")) {
      folded.push(item);
      continue;
    }
    unfold();
    items.push(item);
    // Any other line begins another trace.
    isBelow = item.classList.contains("frame") && !item.classList.contains("library");
  }
  unfold();
  return items;
}

function foldedItem(items) {
  return element("li", { class: "folded" }, element("details", {},
    element("summary", { text: `${items.length} callers in Zig's own code` }), element("ol", {}, ...items)));
}

function stackItem(part, place) {
  const [, address, name, module] = (part.path !== undefined && FRAME.exec(part.text)) || [];
  if (address === undefined) {
    return element("li", { class: NOWHERE.test(part.text) ? "printed library" : "printed" }, ...printedParts(part));
  }
  const isPlace = `${part.path}:${part.line}:${part.column}` === place;
  return element("li", { class: isPlace ? "frame here" : LIBRARY.test(part.path) ? "frame library" : "frame" },
    element("span", { class: "function", text: name }),
    placeLink(part),
    element("span", { class: "address", text: module === undefined ? address : `${address} (${module})` }),
    ...codeOf(part));
}

/** A link to a place in the source; it leads somewhere once `linkPlaces` finds the file. */
export function placeLink({ path, line, column }) {
  const nameStart = path.lastIndexOf("/") + 1;
  return element("a", { class: "place", data: { path, line } },
    element("span", { class: "directory", text: path.slice(0, nameStart) }),
    element("span", { class: "name", text: `${path.slice(nameStart)}:${line}:${column}` }));
}

/** Lets the places below `root` lead to the files of the coverage that is shown, where it has them. */
export function linkPlaces(root) {
  // To look for a file that is not there is slow, and logs name the same ones again and again.
  const unknown = new Set();
  for (const link of root.querySelectorAll("a.place")) {
    const { path, line } = link.dataset;
    const href = unknown.has(path) ? null : placeHref(path, +line);
    if (href === null) unknown.add(path);
    if (href === null) link.removeAttribute("href");
    else if (link.getAttribute("href") !== href) link.setAttribute("href", href);
  }
}

/** {path, line, column} of "path:line:column"; null if the text is no such place. */
export function parsePlace(text) {
  const { path, line, column } = parse(text + ": ")[0];
  return path === undefined ? null : { path, line, column };
}

// {text} for a line; {path, line, column, text} for one that begins with a place, and {code, caret} besides
// where the source line and the line that points into it follow.
function parse(text) {
  const lines = withoutEscapes(text).split("\n");
  const parts = [];
  for (let i = 0; i < lines.length; i += 1) {
    const [, path, line, column, rest] = PLACE.exec(lines[i]) ?? [];
    if (path === undefined) {
      parts.push({ text: lines[i] });
    } else if (CARET.test(lines[i + 2] ?? "")) {
      parts.push({ path, line, column, text: rest, code: lines[i + 1], caret: lines[i + 2] });
      i += 2;
    } else {
      parts.push({ path, line, column, text: rest });
    }
  }
  return parts;
}

// Tests may print very many short lines, each of which would cost the browser as much as a long one.
function joined(parts) {
  const result = [];
  for (const part of parts) {
    const last = result.at(-1);
    if (last !== undefined && isPlain(last) && isPlain(part)) last.text += "\n" + part.text;
    else result.push(part);
  }
  return result;
}

function isPlain({ path, text }) {
  return path === undefined && !SEVERITY.test(text);
}

function printedParts(part) {
  const [severity, word] = SEVERITY.exec(part.text) ?? ["", ""];
  const text = part.text.slice(severity.length);
  const level = /^(error|thread)/.test(word) ? "error" : word;
  return [
    ...(part.path === undefined ? [] : [placeLink(part), ": "]),
    ...(severity === "" ? [text] : [element("b", { class: level, text: severity }), text]),
    ...codeOf(part),
  ];
}

// What the caret points at is underlined instead: that holds in a line that is wrapped, too.
function codeOf({ code, caret }) {
  if (code === undefined) return [];
  const indent = code.length - code.trimStart().length;
  const start = Math.max(indent, characters(code, caret.search(/\S/)));
  const end = Math.max(start + 1, characters(code, caret.trimEnd().length));
  return [element("code", { class: "code" },
    code.slice(indent, start), element("u", { text: code.slice(start, end) || " " }), code.slice(end))];
}

// Carets are placed by bytes.
function characters(code, bytes) {
  return new TextDecoder().decode(new TextEncoder().encode(code).subarray(0, bytes)).length;
}
