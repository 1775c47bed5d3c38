// Changing the document, and no more of it than has changed. All text goes in
// as text: no string from outside ever becomes markup.

import { clockTime, count, readable, timeAgo } from "./format.js";

const GOOD_STATES = ["fuzzing", "connected"];
const BAD_STATES = ["failed", "crashed", "token needed"];
const QUIET_STATES = ["serving", "stopped", "never started"];
const ANNOUNCE_MS = 2000;
const COPIED_MS = 2000;

export function byId(id) {
  return document.getElementById(id);
}

// A selection in a text that is replaced is lost, and so is the time to lay it out.
export function setText(dom, text) {
  if (dom.textContent !== text) dom.textContent = text;
}

// Children that are in their place already are not touched, which would cost focus and selection.
export function setChildren(dom, children) {
  const kept = new Set(children);
  for (const child of [...dom.childNodes]) if (!kept.has(child)) child.remove();
  children.forEach((child, i) => {
    if (dom.childNodes[i] !== child) dom.insertBefore(child, dom.childNodes[i] ?? null);
  });
}

// As many children as there are values, each filled in by `render(row, value, i)`.
// They are made by `make`, a function or a <template> of one element, and used again.
export function setRows(dom, values, make, render) {
  const makeRow = make instanceof HTMLTemplateElement ? () => make.content.firstElementChild.cloneNode(true) : make;
  const rows = values.map((value, i) => dom.children[i] ?? makeRow(value, i));
  setChildren(dom, rows);
  values.forEach((value, i) => render(rows[i], value, i));
}

// element("a", {class: "x", text: "y", href: "#z", data: {k: 1}, attributes: {role: "row"}}, "text", child)
// All but the tag may be missing; null among the children is skipped.
export function element(tag, ...rest) {
  const hasOptions = rest.length > 0 && rest[0] !== null && typeof rest[0] === "object" && !(rest[0] instanceof Node);
  const { class: className, text, data = {}, attributes = {}, ...properties } = hasOptions ? rest.shift() : {};
  const dom = document.createElement(tag);
  if (className !== undefined) dom.className = className;
  if (text !== undefined) dom.textContent = text;
  Object.assign(dom, properties);
  Object.assign(dom.dataset, data);
  for (const [name, value] of Object.entries(attributes)) dom.setAttribute(name, value);
  dom.append(...rest.filter((child) => child !== null && child !== undefined));
  return dom;
}

export function setBadge(dom, state) {
  setText(dom, state);
  const kind = BAD_STATES.includes(state) ? "bad" : GOOD_STATES.includes(state) ? "good" :
    QUIET_STATES.includes(state) ? "quiet" : "busy";
  if (dom.dataset.state !== kind) dom.dataset.state = kind;
}

// Readable, and exact when pointed at; NaN is what nobody knows.
export function setNumber(dom, value, suffix = "") {
  setText(dom, Number.isNaN(value) ? "–" : readable(value) + suffix);
  setTitle(dom, Number.isNaN(value) ? "" : count(value) + suffix);
}

export function setTitle(dom, title) {
  if (dom.title !== title) dom.title = title;
}

// A bar is as full as --part says.
export function setBar(dom, part, whole) {
  const value = whole === 0 ? "0" : (part / whole).toFixed(4);
  if (dom.style.getPropertyValue("--part") !== value) dom.style.setProperty("--part", value);
}

// How long ago it was grows while nothing is drawn: it is told when asked for.
export function setTime(dom, unixSeconds) {
  dom.dateTime = new Date(unixSeconds * 1000).toISOString();
  setText(dom, clockTime(unixSeconds));
  dom.onpointerenter = () => dom.title = timeAgo(unixSeconds);
}

// Gives a function that may be called at any rate, and renders once a frame at most.
export function everyFrame(render) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      render();
    });
  };
}

export function copyOnClick(button, text) {
  const label = button.textContent;
  let timer = null;
  button.addEventListener("click", async () => {
    const isCopied = await copy(text());
    button.textContent = isCopied ? "Copied" : "Not allowed";
    announce(isCopied ? "Copied" : "The browser does not allow to copy");
    clearTimeout(timer);
    timer = setTimeout(() => button.textContent = label, COPIED_MS);
  });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

// Browsers give no clipboard to pages that come neither from this machine nor by https.
function copySelected(text) {
  const field = element("textarea", { class: "visuallyHidden", value: text });
  const focused = document.activeElement;
  // Where a dialog is open, nothing outside it can be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return isCopied;
}

// Gives the reader a text or bytes as a file.
export function saveAs(name, content) {
  const url = URL.createObjectURL(new Blob([content]));
  element("a", { href: url, download: name }).click();
  // Not before the browser has begun to read it.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

let announced = "";
let announceTimer = null;
let lastAnnounced = -Infinity;

// Tells screen readers. Of what comes in quick succession, the last is told.
export function announce(text) {
  announced = text;
  if (announceTimer !== null) return;
  announceTimer = setTimeout(() => {
    announceTimer = null;
    lastAnnounced = performance.now();
    // The same sentence again would be no change, and not be read.
    const dom = byId("live");
    dom.textContent = announced === dom.textContent ? announced + "\u00a0" : announced;
  }, Math.max(0, lastAnnounced + ANNOUNCE_MS - performance.now()));
}
