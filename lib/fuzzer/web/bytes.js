// The bytes of an input for people to read: as a hex dump, as text, and as a string in Zig source.

import { copyOnClick, element, saveAs, setText } from "./dom.js";
import { bytes as size, count, counted } from "./format.js";
import { reportTime } from "./report.js";

// What is shown at first; each "show more" doubles it.
const FIRST_BYTES = 4096;
// Half as many in a row where the window is narrow.
const ROW_BYTES = 16;
const IS_NARROW = matchMedia("(max-width: 40rem)");
// Characters that are not seen, or change how those around them are seen.
const UNSEEN = /([\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff])\1*/g;
// Their names: not every font has a sign for each.
const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI " +
  "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US").split(" ");
// More of the same are told by their number.
const MAX_SAME = 4;
const ESCAPES = new Map([[0x0a, "\\n"], [0x0d, "\\r"], [0x09, "\\t"], [0x5c, "\\\\"], [0x22, "\\\""]]);
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const LITERAL_BYTES = HEX.map((hex, byte) =>
  ESCAPES.get(byte) ?? (isPrintable(byte) ? String.fromCharCode(byte) : "\\x" + hex));

const FORMS = [
  { name: "Hex", class: "hex", render: renderHex, copy: hexText },
  { name: "Text", class: "text", render: renderText, copy: (bytes) => new TextDecoder().decode(bytes) },
  { name: "Zig string", class: "zig", render: renderLiteral, copy: zigLiteral },
];

/** How long an input is, and what the bytes are if the test is not given them as they are. */
export function inputSize(length, form) {
  return counted(length, "byte") + (form === "smith" ? " of a Smith stream" : "");
}

/** Rows of a hex dump: {offset, hex, text}. */
function hexDump(bytes, offset = 0, length = bytes.length - offset, width = ROW_BYTES) {
  const rows = [];
  const end = Math.min(bytes.length, offset + length);
  for (let at = offset; at < end; at += width) {
    const part = bytes.subarray(at, Math.min(at + width, end));
    rows.push({
      offset: at,
      hex: Array.from(part, (byte, i) => (i > 0 && i % 8 === 0 ? " " : "") + HEX[byte]).join(" "),
      text: Array.from(part, (byte) => isPrintable(byte) ? String.fromCharCode(byte) : ".").join(""),
    });
  }
  return rows;
}

/** A string literal of Zig that has these bytes. */
function zigLiteral(bytes) {
  return `"${Array.from(bytes, (byte) => LITERAL_BYTES[byte]).join("")}"`;
}

/**
 * A place for the bytes of one input: `dom` to put somewhere, `show(bytes)`, and `clear(note)` while there are none.
 * `name` begins the ids of its elements; `href()` is where the input can be downloaded.
 */
export function byteView(name, href) {
  let bytes = null;
  let shown = FIRST_BYTES;
  let form = FORMS[0];

  const tabs = FORMS.map((each) => element("button", {
    text: each.name,
    attributes: { type: "button", role: "tab", id: `${name}-${each.class}`, "aria-controls": `${name}-bytes` },
  }));
  const copy = element("button", { text: "Copy", attributes: { type: "button" } });
  const download = element("a", { class: "button", text: "Download", attributes: { download: "" } });
  const tools = element("span", { class: "tools" }, copy, download);
  const head = element("div", { class: "bytesHead" },
    element("div", { class: "tabs", attributes: { role: "tablist", "aria-label": "How to show the input" } }, ...tabs),
    tools);
  const panel = element("div", { attributes: { id: `${name}-bytes`, role: "tabpanel", tabindex: "0" } });
  const note = element("p", { class: "muted" });
  const more = element("button", { attributes: { type: "button" } });
  const foot = element("p", { class: "bytesFoot muted" }, element("span"), " ", more);

  function render() {
    tabs.forEach((tab, i) => {
      const isChosen = FORMS[i] === form;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `${name}-${form.class}`);
    panel.className = `bytes ${form.class}`;
    const isEmpty = bytes === null || bytes.length === 0;
    panel.hidden = tools.hidden = isEmpty;
    foot.hidden = isEmpty || bytes.length <= shown;
    note.hidden = !isEmpty;
    panel.replaceChildren(...(isEmpty ? [] : form.render(bytes, shown)));
    if (isEmpty) return;
    download.href = href();
    setText(foot.firstElementChild, `The first ${size(shown)} of ${count(bytes.length)} bytes.`);
    setText(more, `Show ${size(Math.min(shown, bytes.length - shown))} more`);
  }

  function choose(index) {
    form = FORMS[(index + FORMS.length) % FORMS.length];
    render();
  }

  tabs.forEach((tab, i) => tab.addEventListener("click", () => choose(i)));
  head.firstElementChild.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose(FORMS.indexOf(form) + step);
    tabs[FORMS.indexOf(form)].focus();
  });
  more.addEventListener("click", () => {
    shown *= 2;
    render();
    // The button may be gone, which had the focus.
    if (foot.hidden) panel.focus();
  });
  copyOnClick(copy, () => form.copy(bytes));
  download.addEventListener("click", (event) => {
    if (reportTime === null) return;
    // There is nothing behind the link, but all of it is here.
    event.preventDefault();
    saveAs(href().split("/").slice(1).join("-"), bytes);
  });
  IS_NARROW.addEventListener("change", render);

  return {
    dom: element("div", { class: "byteView" }, head, panel, note, foot),
    show(newBytes) {
      bytes = newBytes;
      shown = FIRST_BYTES;
      setText(note, "No bytes: the input is empty.");
      head.hidden = bytes.length === 0;
      render();
    },
    clear(text) {
      bytes = null;
      setText(note, text);
      head.hidden = true;
      render();
    },
  };
}

// Inputs of Zig 0.14 end in thousands of zeros: a run of such rows is told in one.
function renderHex(bytes, length) {
  const width = IS_NARROW.matches ? ROW_BYTES / 2 : ROW_BYTES;
  const digits = bytes.length > 0xffff ? 8 : 4;
  const rows = hexDump(bytes, 0, length, width);
  const columns = rows[0].hex.length;
  const isZero = (row) => /^[0 ]+$/.test(row.hex);
  const doms = [];
  for (let i = 0; i < rows.length; i += 1) {
    let end = i;
    // The last row stays, and with it what follows.
    while (end < rows.length - 1 && isZero(rows[end])) end += 1;
    if (end - i > 2) {
      doms.push(element("div", { class: "zero", text: `${"".padEnd(digits)}  ${count((end - i) * width)} zeros` }));
      i = end;
    }
    doms.push(hexRow(rows[i], digits, columns));
  }
  return doms;
}

function hexRow(row, digits, columns) {
  const padding = "".padEnd(columns - row.hex.length + 2);
  const parts = row.hex.split(/((?:\b00\b *)+)/)
    .map((part, i) => i % 2 === 0 ? part : element("span", { class: "zero", text: part }));
  return element("div", {},
    element("span", { class: "offset", text: offsetText(row.offset, digits) }), "  ", ...parts,
    padding, element("span", { class: "characters", text: row.text }));
}

function hexText(bytes) {
  const rows = hexDump(bytes);
  return rows.map(({ offset, hex, text }) =>
    `${offsetText(offset, 8)}  ${hex.padEnd(rows[0].hex.length)}  ${text}\n`).join("");
}

function offsetText(offset, digits) {
  return offset.toString(16).padStart(digits, "0");
}

function renderText(bytes, length) {
  // A character that the cut goes through belongs to what is not shown.
  const text = new TextDecoder("utf-8", { ignoreBOM: true })
    .decode(bytes.subarray(0, length), { stream: length < bytes.length });
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(UNSEEN)) {
    parts.push(text.slice(end, match.index), ...unseenSigns(match[1], match[0].length));
    end = match.index + match[0].length;
  }
  parts.push(text.slice(end));
  return parts.filter((part) => part !== "");
}

function unseenSigns(character, number) {
  const code = character.charCodeAt(0);
  const name = CONTROLS[code] ?? (code === 0x7f ? "DEL" : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`);
  const sign = (text) => element("span", { class: "unseen", text });
  if (character === "\n") return Array.from({ length: number }, () => [sign(name), "\n"]).flat();
  if (number > MAX_SAME) return [sign(`${name} × ${count(number)}`)];
  return Array.from({ length: number }, () => sign(name));
}

function renderLiteral(bytes, length) {
  const literal = zigLiteral(bytes.subarray(0, length));
  return [length < bytes.length ? literal.slice(0, -1) + "…" : literal];
}

function isPrintable(byte) {
  return byte >= 0x20 && byte < 0x7f;
}
