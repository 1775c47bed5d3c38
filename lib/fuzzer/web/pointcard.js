// What is known of one location, beside its mark: for a pointer that rests on the
// mark, or the focus on it. The card is a child of the mark's row, so that the Tab
// key goes from the mark to the card's link; it is placed in the window, so that no
// edge of the source cuts it off.

import { element, setChildren } from "./dom.js";
import { clockTime, timeAgo } from "./format.js";
import { pointPlace, pointState } from "./sourcetext.js";
import { text, wasm } from "./wasm.js";

// A pointer that only passes shows nothing, and has time to reach the card.
const SHOW_MS = 120, HIDE_MS = 250;
// Between the card, its mark, and the edges of the window; px.
const GAP = 8;
const BEFORE_WATCHING = 1;

export class PointCard {
  #scroller;
  #card = element("div", { attributes: { id: "pointCard", role: "group", "aria-label": "Location" } });
  // What the card belongs to, or null while it is not shown.
  #mark = null;
  #timer = null;

  constructor(scroller) {
    this.#scroller = scroller;
    scroller.addEventListener("pointerover", (event) => this.#onOver(event));
    scroller.addEventListener("pointerout", () => this.#later(() => this.#hideUnlessUsed(), HIDE_MS));
    scroller.addEventListener("focusin", (event) => this.#onFocus(event));
    scroller.addEventListener("focusout", () => this.#later(() => this.#hideUnlessUsed(), 0));
    scroller.addEventListener("keydown", (event) => this.#onKey(event));
    scroller.addEventListener("scroll", () => this.#place(), { passive: true });
  }

  // Brings the card up to date with the coverage.
  update() {
    if (this.#mark === null) return;
    if (!this.#mark.isConnected) return this.hide();
    const stateText = pointState(+this.#mark.dataset.point);
    if (this.#card.dataset.state !== stateText) this.#fill();
  }

  hide() {
    clearTimeout(this.#timer);
    this.#mark = null;
    this.#card.remove();
  }

  #onOver(event) {
    clearTimeout(this.#timer);
    const mark = event.target.closest(".mark");
    if (mark !== null) this.#later(() => this.#show(mark), SHOW_MS);
    else this.#later(() => this.#hideUnlessUsed(), HIDE_MS);
  }

  #onFocus(event) {
    const mark = event.target.closest(".mark");
    if (mark !== null) this.#show(mark);
  }

  #onKey(event) {
    if (event.key !== "Escape" || this.#mark === null) return;
    event.preventDefault();
    const mark = this.#mark;
    const hadFocus = this.#card.contains(document.activeElement);
    if (hadFocus) mark.focus({ preventScroll: true });
    this.hide();
  }

  #later(action, delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, delay);
  }

  #hideUnlessUsed() {
    if (this.#mark === null) return;
    const active = document.activeElement;
    const isUsed = this.#mark === active || this.#card.contains(active) || this.#card.matches(":hover") ||
      this.#mark.matches(":hover");
    if (!isUsed) this.hide();
  }

  #show(mark) {
    clearTimeout(this.#timer);
    if (!mark.isConnected || this.#mark === mark) return;
    this.hide();
    this.#mark = mark;
    this.#fill();
    mark.closest(".sourceRow").append(this.#card);
    this.#place();
  }

  #fill() {
    const point = +this.#mark.dataset.point;
    this.#card.dataset.state = pointState(point);
    setChildren(this.#card, [
      element("p", { class: "cardState" },
        element("span", { class: wasm.locationCovered(point) ? "shape covered" : "shape missed" }),
        element("strong", { text: pointState(point) }),
        element("span", { class: "muted", text: pointPlace(point) })),
      functionLink(point),
      coverTime(point),
      address(point),
    ].filter((child) => child !== null));
  }

  // Below the mark, or above it where there is no room; nowhere while the mark is out of sight.
  #place() {
    if (this.#mark === null) return;
    if (!this.#mark.isConnected) return this.hide();
    const mark = this.#mark.getBoundingClientRect();
    const frame = this.#scroller.getBoundingClientRect();
    const isInSight = mark.bottom > frame.top && mark.top < frame.bottom &&
      mark.right > frame.left && mark.left < frame.right;
    this.#card.hidden = !isInSight;
    if (!isInSight) return;
    const { width, height } = this.#card.getBoundingClientRect();
    const { clientWidth, clientHeight } = document.documentElement;
    const below = mark.bottom + GAP;
    const top = below + height > clientHeight - GAP ? mark.top - GAP - height : below;
    const left = Math.max(GAP, Math.min(mark.left - GAP, clientWidth - width - GAP));
    this.#card.style.setProperty("--x", `${left}px`);
    this.#card.style.setProperty("--y", `${top}px`);
  }
}

function functionLink(point) {
  const number = wasm.pointFunction(point) >>> 0;
  if (number >= wasm.functionCount() >>> 0) return null;
  const link = element("a", { text: text(wasm.functionName(number)), href: `#l${wasm.functionPoint(number) >>> 0}` });
  return element("p", {}, "in ", link);
}

function coverTime(point) {
  const time = wasm.pointTime(point);
  if (time === 0) return null;
  if (time === BEFORE_WATCHING) {
    return element("p", { class: "muted", text: "covered before this page was watching" });
  }
  const clock = element("time", { text: clockTime(time), dateTime: new Date(time * 1000).toISOString() });
  return element("p", {}, "first covered ", clock, element("span", { class: "muted", text: `, ${timeAgo(time)}` }));
}

function address(point) {
  const value = BigInt.asUintN(64, wasm.pointAddress(point));
  if (value === 0n) return null;
  return element("p", { class: "muted", text: "address " }, element("code", { text: `0x${value.toString(16)}` }));
}
