// The whole open source on a narrow strip beside the scrollbar: what is not covered
// where, what is in sight, where findings and newly covered locations are. The worse
// a part is covered, the wider is its bar; so nobody needs the colours to tell.

import { on } from "./bus.js";
import { element, everyFrame } from "./dom.js";
import { u8s, wasm } from "./wasm.js";

const COLORS = ["covered", "partly", "missed", "new", "bad", "muted"];
// Of `overview`: by state, how far from the left edge a bar goes, as parts of the width.
const BARS = [
  null, { color: "covered", width: 0.3 }, { color: "partly", width: 0.55 }, { color: "missed", width: 0.8 },
];
// px
const MARK_HEIGHT = 3, BOX_MIN = 6;

export class Strip {
  #canvas = element("canvas", { attributes: { id: "overviewStrip", "aria-hidden": "true" } });
  #scroller;
  #rows;
  #marks;
  #colors = null;
  #draw = everyFrame(() => this.#drawNow());

  // `marks()` gives the lines, from 0, to be marked: {findings, fresh}.
  constructor(scroller, rows, marks) {
    this.#scroller = scroller;
    this.#rows = rows;
    this.#marks = marks;
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    scroller.addEventListener("scroll", () => this.#draw(), { passive: true });
    on("theme", () => this.#recolor());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#recolor());
    this.#canvas.addEventListener("pointerdown", (event) => this.#onDown(event));
    this.#canvas.addEventListener("pointermove", (event) => {
      if (this.#canvas.hasPointerCapture(event.pointerId)) this.#scrollTo(event);
    });
    this.#canvas.addEventListener("wheel", (event) => scroller.scrollBy(0, event.deltaY), { passive: true });
  }

  get dom() {
    return this.#canvas;
  }

  // Draws with the next frame.
  update() {
    this.#draw();
  }

  #recolor() {
    this.#colors = null;
    this.#draw();
  }

  // Where the last line ends, in px: short sources don't fill the strip.
  get #end() {
    return Math.min(this.#canvas.clientHeight, this.#rows.count * this.#rows.rowHeight);
  }

  #drawNow() {
    const width = this.#canvas.clientWidth;
    const height = this.#canvas.clientHeight;
    if (width === 0 || height === 0) return;
    const scale = devicePixelRatio;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    if (this.#rows.count === 0) return;
    this.#colors ??= this.#readColors();
    this.#drawStates(context, width);
    const { findings, fresh } = this.#marks();
    for (const line of fresh) this.#drawTick(context, line, width * 0.55, width, this.#colors.new);
    for (const line of findings) this.#drawFinding(context, line, width);
    this.#drawBox(context, width);
  }

  #drawStates(context, width) {
    // A row of the strip is no lower than a line of a short source.
    const rows = Math.max(1, Math.min(Math.floor(this.#end), this.#rows.count));
    const rowHeight = this.#end / rows;
    u8s(wasm.overview(rows)).forEach((state, row) => {
      const bar = BARS[state];
      if (bar === null || bar === undefined) return;
      context.fillStyle = this.#colors[bar.color];
      context.fillRect(1, row * rowHeight, width * bar.width - 1, Math.max(rowHeight - (rowHeight > 3 ? 1 : 0), 1));
    });
  }

  #drawTick(context, line, from, to, color) {
    context.fillStyle = color;
    context.fillRect(from, this.#y(line) - MARK_HEIGHT / 2, to - from, MARK_HEIGHT);
  }

  // A triangle that points at the line.
  #drawFinding(context, line, width) {
    const y = this.#y(line);
    context.fillStyle = this.#colors.bad;
    context.beginPath();
    context.moveTo(width - 9, y);
    context.lineTo(width, y - 5);
    context.lineTo(width, y + 5);
    context.fill();
  }

  #drawBox(context, width) {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    if (scrollHeight <= clientHeight) return;
    const part = this.#end / (this.#rows.count * this.#rows.rowHeight);
    const height = Math.max(clientHeight * part, BOX_MIN);
    const top = Math.min(scrollTop * part, this.#end - height);
    context.fillStyle = this.#colors.muted;
    context.globalAlpha = 0.16;
    context.fillRect(0, top, width, height);
    context.globalAlpha = 0.8;
    context.strokeStyle = this.#colors.muted;
    context.strokeRect(0.5, top + 0.5, width - 1, height - 1);
    context.globalAlpha = 1;
  }

  // The middle of a line.
  #y(line) {
    return (line + 0.5) / this.#rows.count * this.#end;
  }

  // A canvas knows no custom properties: an element with the colour does.
  #readColors() {
    const probe = element("span");
    this.#canvas.append(probe);
    const colors = {};
    for (const name of COLORS) {
      probe.style.setProperty("color", `var(--${name})`);
      colors[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    return colors;
  }

  #onDown(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#scrollTo(event);
  }

  #scrollTo(event) {
    const y = event.clientY - this.#canvas.getBoundingClientRect().top;
    const part = this.#end === 0 ? 0 : y / this.#end;
    this.#scroller.scrollTop = part * this.#rows.count * this.#rows.rowHeight - this.#scroller.clientHeight / 2;
  }
}
