// What the lists of files and of functions have in common: a filter, checkboxes, heads
// that sort, and rows of any number. What the rows say comes from a model:
//   load(query)  finds and orders what is to be shown, for {key, descending, flags, filter, tree};
//                true if that is not what was shown before
//   length, item(i), indexOf(id), currentId(), note()
//   recount()    brings the counts of all items up to date
//   toggle(item, isOpen)  for items that have `isOpen`: directories
// An item is {id, name, small, title, href, level, isOpen, total, covered}.

import { moveToWasm, u32s } from "./wasm.js";
import { element, everyFrame, setBar, setText, setTitle } from "./dom.js";
import { count, percent, readable } from "./format.js";
import { go } from "./route.js";
import { VirtualRows } from "./virtual.js";

// What `listFiles` and `listFunctions` of main.zig order by, and leave out.
export const NAME = 0, MISSED = 1, POINTS = 2, PART = 3;
const HIDE_STD = 1, HIDE_COVERED = 2;
// Rows that change their places all the time can't be read.
const SORT_MS = 2000;
// Heights of rows of one and of two lines.
const ROW_REM = 1.875, TALL_ROW_REM = 2.75;
const UTF8 = new TextEncoder();

// The wasm function `find` for a query: numbers of files or functions.
export function ask(find, { key, descending, flags, filter }) {
  moveToWasm(UTF8.encode(filter));
  return u32s(find(key, descending ? 1 : 0, flags));
}

// What was chosen on an earlier visit, over the defaults. Browsers may refuse it.
export function loadChoices(name, defaults) {
  try {
    return { ...defaults, ...JSON.parse(localStorage.getItem(name)) };
  } catch {
    return { ...defaults };
  }
}

export function saveChoices(name, choices) {
  try {
    localStorage.setItem(name, JSON.stringify(choices));
  } catch {
    // Then it is chosen anew on the next visit.
  }
}

function cell(className = "", ...children) {
  return element("span", { class: className, attributes: { role: "gridcell" } }, ...children);
}

export class Listing {
  #model;
  #panel;
  #filter;
  #heads;
  #scroller;
  #note;
  #rows;
  #choices;
  #storage;
  // The row that the Tab key finds.
  #active = 0;
  // Whether counts have changed since the rows were ordered, and since they were drawn.
  #isStale = false;
  #isPending = true;
  #sortTimer = null;
  #drawSoon = everyFrame(() => this.#onUpdate());

  // `ids` names the elements to make: {filter, heads, scroll, note}; `boxes` are checkboxes
  // {id, choice, text} for the choices "tree", "hideStd" and "hideCovered", which are kept as `storage`;
  // `isTall`: rows have two lines.
  constructor(panel, model, { storage, ids, boxes, columns, placeholder, label, choices, isTall = false }) {
    this.#panel = panel;
    this.#model = model;
    panel.classList.toggle("listTall", isTall);
    this.#storage = storage;
    this.#choices = loadChoices(this.#storage, { key: MISSED, descending: true, ...choices });
    if (!columns.some(([key]) => key === this.#choices.key)) this.#choices.key = MISSED;
    this.#filter = element("input", {
      type: "search", id: ids.filter, placeholder, autocomplete: "off", spellcheck: false,
      attributes: { "aria-label": placeholder },
    });
    this.#heads = element("div", { class: "listHeads", attributes: { id: ids.heads, role: "row" } },
      ...columns.map(([key, text]) => element("span", { attributes: { role: "columnheader" } },
        element("button", { text, data: { key }, attributes: { type: "button" } }))));
    this.#scroller = element("div", {
      class: "listScroll",
      attributes: { id: ids.scroll, role: "treegrid", "aria-label": label, "aria-owns": ids.heads },
    });
    this.#note = element("p", { class: "listNote muted", attributes: { id: ids.note } });
    panel.append(
      element("div", { class: "listTools" }, this.#filter, ...boxes.map((box) => this.#makeBox(box))),
      element("div", { class: "listTable" }, this.#heads, this.#scroller), this.#note);
    const fontSize = Number.parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;
    this.#rows = new VirtualRows(this.#scroller, {
      rowHeight: Math.max(Math.round(fontSize * (isTall ? TALL_ROW_REM : ROW_REM)), 24),
      render: (index) => this.#makeRow(index),
    });
    this.#listen();
  }

  get filterField() {
    return this.#filter;
  }

  // Finds and orders everything anew, now.
  reload() {
    this.#isStale = this.#isPending = false;
    clearTimeout(this.#sortTimer);
    this.#sortTimer = null;
    const activeId = this.#active < this.#model.length ? this.#model.item(this.#active).id : null;
    const isOther = this.#model.load(this.#query);
    this.#active = Math.max(activeId === null ? 0 : this.#model.indexOf(activeId), 0);
    this.#showHeads();
    this.#scroller.classList.toggle("listTree", this.#choices.tree === true);
    if (isOther || this.#rows.count !== this.#model.length) this.#rows.setCount(this.#model.length);
    else this.#showCounts();
    setText(this.#note, this.#model.note());
    this.#note.hidden = this.#note.textContent === "";
  }

  // Everything has changed; that matters to nobody while the list is hidden.
  reloadWhenVisible() {
    this.#isPending = true;
    this.onVisible();
  }

  // To be called where the list may have become visible.
  onVisible() {
    if (this.#isPending && this.#isVisible) this.reload();
  }

  // Brings the counts up to date with the next frame; the order follows when it disturbs nobody.
  update() {
    this.#drawSoon();
  }

  // Has the order that the list shows, or would show, for those who step through it.
  freshen() {
    if (this.#isPending) this.reload();
  }

  // Marks what is open, and brings it into sight: where nobody is reading, or if that `isWanted`.
  showCurrent(isWanted = false) {
    if (this.#isPending) return; // The rows are those of another list.
    const id = this.#model.currentId();
    for (const [index, row] of this.#rows.entries()) this.#markCurrent(row, this.#model.item(index).id === id);
    if (id === null || !this.#isVisible || (this.#isInUse && !isWanted)) return;
    const index = this.#model.indexOf(id);
    if (index >= 0) this.#rows.scrollToRow(index);
  }

  get #query() {
    const { key, descending, hideStd, hideCovered, tree } = this.#choices;
    const flags = (hideStd ? HIDE_STD : 0) | (hideCovered ? HIDE_COVERED : 0);
    return { key, descending, flags, filter: this.#filter.value.trim(), tree: tree === true };
  }

  get #isVisible() {
    return this.#panel.closest("[hidden]") === null;
  }

  get #isInUse() {
    return this.#panel.matches(":hover, :focus-within");
  }

  #listen() {
    const reloadSoon = everyFrame(() => this.reload());
    this.#filter.addEventListener("input", () => {
      this.#scroller.scrollTop = 0;
      reloadSoon();
    });
    this.#filter.addEventListener("keydown", (event) => this.#onFilterKey(event));
    this.#heads.addEventListener("click", (event) => this.#onHead(event));
    this.#scroller.addEventListener("keydown", (event) => this.#onKey(event));
    this.#scroller.addEventListener("click", (event) => this.#onClick(event));
    this.#scroller.addEventListener("focusin", (event) => this.#onFocus(event));
    // It is hidden until the first coverage has come, and the view is shown a moment after that.
    new ResizeObserver(() => this.onVisible()).observe(this.#scroller);
    this.#panel.addEventListener("pointerleave", () => this.#sortIfQuiet());
    this.#panel.addEventListener("focusout", () => this.#sortLater());
  }

  #makeBox({ id, choice, text }) {
    const box = element("input", { attributes: { id, type: "checkbox" } });
    box.checked = this.#choices[choice];
    box.addEventListener("change", () => {
      this.#choose({ [choice]: box.checked });
      this.#scroller.scrollTop = 0;
      this.reload();
    });
    return element("label", { class: "listBox" }, box, element("span", { text }));
  }

  #choose(changes) {
    this.#choices = { ...this.#choices, ...changes };
    saveChoices(this.#storage, this.#choices);
  }

  // ------------------------------------------------------------------ rows

  #makeRow(index) {
    const item = this.#model.item(index);
    // Ends of paths are told from right to left where room is short, but never read so.
    const name = item.href === undefined ? element("span") : element("a", { href: item.href, tabIndex: -1 });
    name.className = "listName";
    name.append(element("bdi", { text: item.name }));
    const label = cell("listLabel", name);
    if (item.small) label.append(element("small", { class: "muted" }, element("bdi", { text: item.small })));
    const row = element("div", {
      class: item.isOpen === undefined ? "listRow" : "listRow listDirectory",
      data: { id: item.id },
      tabIndex: index === this.#active ? 0 : -1,
      attributes: { role: "row", "aria-level": item.level },
    }, label, cell(), cell(), cell("listPart", element("span"), element("span", { class: "bar" })));
    row.style.setProperty("--level", item.level);
    if (item.isOpen !== undefined) row.setAttribute("aria-expanded", item.isOpen);
    this.#markCurrent(row, item.id === this.#model.currentId());
    this.#fill(row, item);
    return row;
  }

  #fill(row, { title, total, covered }) {
    const [, missed, points, part] = row.children;
    const counts = `${count(covered)} of ${count(total)} points are covered, ${count(total - covered)} are not.`;
    setTitle(row, `${title}\n${counts}`);
    setText(missed, readable(total - covered));
    setText(points, `${readable(covered)} / ${readable(total)}`);
    setText(part.firstElementChild, percent(covered, total));
    setBar(part.lastElementChild, covered, total);
    row.classList.toggle("listComplete", covered === total);
  }

  #showCounts() {
    for (const [index, row] of this.#rows.entries()) this.#fill(row, this.#model.item(index));
  }

  #markCurrent(row, isCurrent) {
    if (isCurrent) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }

  #showHeads() {
    for (const head of this.#heads.children) {
      const isSorted = Number(head.firstElementChild.dataset.key) === this.#choices.key;
      head.setAttribute("aria-sort", !isSorted ? "none" : this.#choices.descending ? "descending" : "ascending");
    }
  }

  // ------------------------------------------------------------------ live

  #onUpdate() {
    this.#isStale = true;
    if (this.#isPending) return this.onVisible();
    if (!this.#isVisible) {
      this.#isPending = true;
      return;
    }
    this.#model.recount();
    this.#showCounts();
    this.#sortLater();
  }

  #sortLater() {
    if (!this.#isStale) return;
    this.#sortTimer ??= setTimeout(() => {
      this.#sortTimer = null;
      this.#sortIfQuiet();
    }, SORT_MS);
  }

  // Rows never move under a pointer, a focus or a reading eye.
  #sortIfQuiet() {
    if (!this.#isStale || !this.#isVisible || this.#scroller.scrollTop > 0 || this.#isInUse) return;
    this.reload();
  }

  // ------------------------------------------------------------------ input

  #onHead(event) {
    const button = event.target.closest("button");
    if (button === null) return;
    const key = Number(button.dataset.key);
    const descending = key === this.#choices.key ? !this.#choices.descending : key !== NAME;
    this.#choose({ key, descending });
    this.#scroller.scrollTop = 0;
    this.reload();
  }

  #onFilterKey(event) {
    if (event.key === "Escape" && this.#filter.value !== "") {
      this.#filter.value = "";
      this.reload();
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      this.#moveTo(0);
    } else return;
    event.preventDefault();
  }

  #onFocus(event) {
    const row = event.target.closest(".listRow");
    if (row !== null) this.#activate(this.#indexOfRow(row));
  }

  #onClick(event) {
    const row = event.target.closest(".listDirectory");
    if (row === null) return;
    const index = this.#indexOfRow(row);
    this.#toggle(index, !this.#model.item(index).isOpen);
  }

  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || this.#model.length === 0) return;
    const item = this.#model.item(this.#active);
    const page = Math.max(this.#rows.last - this.#rows.first - 1, 1);
    switch (event.key) {
      case "ArrowDown": this.#moveTo(this.#active + 1); break;
      case "ArrowUp":
        if (this.#active === 0) this.#filter.focus();
        else this.#moveTo(this.#active - 1);
        break;
      case "PageDown": this.#moveTo(this.#active + page); break;
      case "PageUp": this.#moveTo(this.#active - page); break;
      case "Home": this.#moveTo(0); break;
      case "End": this.#moveTo(this.#model.length - 1); break;
      case "ArrowRight": this.#onRight(item); break;
      case "ArrowLeft": this.#onLeft(item); break;
      case "Enter":
      case " ":
        if (item.isOpen === undefined) go(item.href);
        else this.#toggle(this.#active, !item.isOpen);
        break;
      default: return;
    }
    event.preventDefault();
  }

  #onRight(item) {
    if (item.isOpen === false) this.#toggle(this.#active, true);
    else if (item.isOpen === true) this.#moveTo(this.#active + 1);
  }

  // Closes a directory, or goes up to the one around.
  #onLeft(item) {
    if (item.isOpen === true) return this.#toggle(this.#active, false);
    for (let index = this.#active - 1; index >= 0; index -= 1) {
      if (this.#model.item(index).level < item.level) return this.#moveTo(index);
    }
  }

  #toggle(index, isOpen) {
    this.#model.toggle(this.#model.item(index), isOpen);
    this.#active = index;
    this.#rows.setCount(this.#model.length);
    this.#moveTo(index);
  }

  #moveTo(index) {
    const wanted = Math.min(Math.max(index, 0), this.#model.length - 1);
    if (wanted < 0) return;
    this.#rows.scrollToRow(wanted);
    this.#activate(wanted);
    this.#rows.row(wanted)?.focus({ preventScroll: true });
  }

  #activate(index) {
    this.#rows.row(this.#active)?.setAttribute("tabindex", "-1");
    this.#active = index;
    this.#rows.row(index)?.setAttribute("tabindex", "0");
  }

  #indexOfRow(wanted) {
    for (const [index, row] of this.#rows.entries()) if (row === wanted) return index;
    return this.#active;
  }
}
