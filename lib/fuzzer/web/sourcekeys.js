// Reading the source by keyboard, and copying from it. The marks and links of the
// source are one stop of the Tab key: Left and Right go along the line, Up and Down to
// the next line that has some.

import { lineText } from "./sourcetext.js";
import { wasm } from "./wasm.js";

const LINKS = ".lineText a, .findingBadge";
const ANY = 2, NONE = 0xffff_ffff;

export class SourceKeys {
  #scroller;
  #rows;

  constructor(scroller, rows) {
    this.#scroller = scroller;
    this.#rows = rows;
    scroller.addEventListener("keydown", (event) => this.#onKey(event));
    scroller.addEventListener("focusin", () => this.update());
    document.addEventListener("copy", (event) => this.#onCopy(event));
  }

  // Makes one link of those in sight the one that the Tab key finds.
  update() {
    const active = document.activeElement;
    const stop = this.#scroller.contains(active) && active.matches(LINKS) ? active : this.#defaultStop();
    for (const link of this.#scroller.querySelectorAll(".lineText a[tabindex='0'], .findingBadge[tabindex='0']")) {
      if (link !== stop) link.tabIndex = -1;
    }
    if (stop !== null && stop.tabIndex !== 0) stop.tabIndex = 0;
  }

  #defaultStop() {
    const current = this.#scroller.querySelector(".mark.current");
    if (current !== null) return current;
    for (let line = this.#rows.first; line <= this.#rows.last; line += 1) {
      const link = this.#rows.row(line)?.querySelector(".mark");
      if (link !== null && link !== undefined) return link;
    }
    return this.#scroller.querySelector(LINKS);
  }

  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const link = event.target.closest(`${LINKS}, .lineNumber`);
    if (link === null) return;
    const row = link.closest(".sourceRow");
    const line = this.#lineOf(row);
    const links = [...row.querySelectorAll(LINKS)];
    switch (event.key) {
      case "ArrowRight": this.#focus(line, links[links.indexOf(link) + 1]); break;
      case "ArrowLeft": this.#focus(line, links[links.indexOf(link) - 1]); break;
      case "ArrowDown": this.#toLine(line, 1); break;
      case "ArrowUp": this.#toLine(line, -1); break;
      default: return;
    }
    event.preventDefault();
  }

  #toLine(from, direction) {
    for (let line = from + direction; this.#rows.row(line) !== undefined; line += direction) {
      const row = this.#rows.row(line);
      const link = row.querySelector(".mark") ?? row.querySelector(LINKS);
      if (link !== null) return this.#focus(line, link);
    }
    const point = wasm.seek(from, direction, ANY) >>> 0;
    const line = point === NONE ? NONE : wasm.lineOfPoint(point) >>> 0;
    if (line === NONE) return;
    this.#rows.scrollToRow(line);
    this.#focus(line, this.#rows.row(line)?.querySelector(".mark"));
  }

  #focus(line, link) {
    if (link === undefined || link === null) return;
    this.#rows.scrollToRow(line);
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #lineOf(row) {
    for (const [line, other] of this.#rows.entries()) if (other === row) return line;
    return -1;
  }

  // The source as it is in the file: without numbers and marks, and with the lines
  // between that are not in the document.
  #onCopy(event) {
    const selection = getSelection();
    if (selection.isCollapsed || selection.rangeCount === 0) return;
    const range = selection.getRangeAt(0);
    const start = this.#position(range.startContainer, range.startOffset);
    const end = this.#position(range.endContainer, range.endOffset);
    if (start === null || end === null) return;
    const lines = [];
    for (let line = start.line; line <= end.line; line += 1) lines.push(lineText(line));
    lines[lines.length - 1] = lines.at(-1).slice(0, end.column);
    lines[0] = lines[0].slice(start.column);
    event.clipboardData.setData("text/plain", lines.join("\n"));
    event.preventDefault();
  }

  // Line and column, from 0, of a place in the document; null if it is not in the source.
  #position(node, offset) {
    const dom = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    const row = dom.closest(".sourceRow");
    if (row === null || !this.#scroller.contains(row)) return null;
    const line = this.#lineOf(row);
    if (line === -1) return null;
    const code = row.querySelector(".lineText");
    const before = document.createRange();
    before.selectNodeContents(code);
    if (before.comparePoint(node, offset) < 0) return { line, column: 0 };
    if (before.comparePoint(node, offset) === 0) before.setEnd(node, offset);
    return { line, column: before.toString().length };
  }
}
