// The keyboard: one letter for each thing that is done often, and the dialog that lists them.

import { byId, element } from "./dom.js";

const TYPING = "input, textarea, select, [contenteditable]";

// By their key: {description, handler}.
const keys = new Map();

export function start() {
  const button = byId("helpButton");
  button.hidden = false;
  button.addEventListener("click", showHelp);
  addKey("?", "This list", showHelp);
  document.addEventListener("keydown", onKeyDown);
  // A click beside a dialog closes it.
  byId("help").addEventListener("click", (event) => event.target === event.currentTarget && byId("help").close());
}

// `key` is what KeyboardEvent.key says.
export function addKey(key, description, handler) {
  keys.set(key, { description, handler });
}

function onKeyDown(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.(TYPING) || byId("help").open) return;
  const known = keys.get(event.key);
  if (known === undefined) return;
  event.preventDefault();
  known.handler(event);
}

function showHelp() {
  byId("helpKeys").replaceChildren(...[...keys].map(([key, { description }]) => element("div", {},
    element("dt", {}, element("kbd", { class: "kbd", text: key })),
    element("dd", { text: description }),
  )));
  byId("help").showModal();
}
