// A list of any length of which only the rows in sight are in the document. All rows
// have the same height, so each one's place follows from its number alone.

// Rows above and below those in sight, so that a scroll by a little shows no gap.
const OVERSCAN = 6;
const TABLE_ROLES = ["grid", "treegrid", "table"];
const FOCUSABLE = "a[href], button, input, [tabindex]";

export class VirtualRows {
  #scroller;
  #spacer = document.createElement("div");
  #render;
  #count = 0;
  // The rows that are in the document, by their numbers.
  #rows = new Map();

  // `rowHeight` in px; `render` makes the element of a row, from 0.
  constructor(scroller, { rowHeight, render, count = 0 }) {
    this.#scroller = scroller;
    this.#render = render;
    this.rowHeight = rowHeight;
    this.#spacer.className = "virtualSpacer";
    this.#spacer.style.setProperty("--row-height", `${rowHeight}px`);
    if (this.#isTable) this.#spacer.setAttribute("role", "rowgroup");
    scroller.classList.add("virtualScroller");
    scroller.append(this.#spacer);
    scroller.addEventListener("scroll", () => this.#draw(), { passive: true });
    new ResizeObserver(() => this.#draw()).observe(scroller);
    this.setCount(count);
  }

  get count() {
    return this.#count;
  }

  // The first and the last row of which something can be seen; last < first if there is none.
  get first() {
    return Math.min(Math.floor(this.#scroller.scrollTop / this.rowHeight), Math.max(this.#count - 1, 0));
  }

  get last() {
    const end = this.#scroller.scrollTop + this.#scroller.clientHeight;
    return Math.min(Math.ceil(end / this.rowHeight), this.#count) - 1;
  }

  // Another length, and all rows drawn anew.
  setCount(count) {
    this.#count = count;
    this.#spacer.style.setProperty("--rows", count);
    if (this.#isTable) this.#scroller.setAttribute("aria-rowcount", count);
    this.refresh();
  }

  // Draws all rows anew. The focus stays where it was, in the new row of the same number.
  refresh() {
    const focus = this.#focused();
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
    this.#draw();
    const row = focus === null ? undefined : this.#rows.get(focus.index);
    if (row === undefined) return;
    const target = focus.nth === -1 ? row : row.querySelectorAll(FOCUSABLE)[focus.nth];
    target?.focus({ preventScroll: true });
  }

  // The element of a row, or undefined where the row is not in the document.
  row(index) {
    return this.#rows.get(index);
  }

  // Numbers and elements of all rows that are in the document.
  entries() {
    return this.#rows.entries();
  }

  // "nearest" does not scroll if the row can be seen as a whole.
  scrollToRow(index, { block = "nearest" } = {}) {
    const top = index * this.rowHeight;
    const room = this.#scroller.clientHeight - this.rowHeight;
    const now = this.#scroller.scrollTop;
    if (block === "center") this.#scroller.scrollTop = top - room / 2;
    else if (top < now) this.#scroller.scrollTop = top;
    else if (top > now + room) this.#scroller.scrollTop = top - room;
    this.#draw();
  }

  get #isTable() {
    return TABLE_ROLES.includes(this.#scroller.getAttribute("role"));
  }

  #draw() {
    // What cannot be seen needs no rows; becoming visible is a change of size.
    if (this.#scroller.clientHeight === 0) return;
    const from = Math.max(this.first - OVERSCAN, 0);
    const to = Math.min(this.last + OVERSCAN, this.#count - 1);
    const held = this.#heldNodes();
    for (const [index, row] of this.#rows) {
      if (index >= from && index <= to) continue;
      if (held.some((node) => row.contains(node))) continue;
      row.remove();
      this.#rows.delete(index);
    }
    // In the order of their numbers: for selections, and for the Tab key.
    let before = null;
    for (let index = to; index >= from; index -= 1) {
      before = this.#rows.get(index) ?? this.#insert(index, before ?? this.#after(to));
    }
  }

  #insert(index, before) {
    const row = this.#render(index);
    row.classList.add("virtualRow");
    // As a custom property it would be inherited, and no two rows could share their styles.
    row.style.top = `${index * this.rowHeight}px`;
    if (this.#isTable) row.setAttribute("aria-rowindex", index + 1);
    this.#rows.set(index, row);
    this.#spacer.insertBefore(row, before);
    return row;
  }

  // A row below those in sight stays in the document if it is held.
  #after(index) {
    const below = [...this.#rows.keys()].filter((other) => other > index);
    return below.length === 0 ? null : this.#rows.get(Math.min(...below));
  }

  // A row that has the focus, or an end of the selection, stays although it is out of sight.
  #heldNodes() {
    const selection = getSelection();
    const nodes = selection.isCollapsed ? [] : [selection.anchorNode, selection.focusNode];
    nodes.push(document.activeElement);
    return nodes.filter((node) => node !== null && node !== this.#spacer && this.#spacer.contains(node));
  }

  #focused() {
    const active = document.activeElement;
    if (!this.#spacer.contains(active)) return null;
    for (const [index, row] of this.#rows) {
      if (row.contains(active)) return { index, nth: [...row.querySelectorAll(FOCUSABLE)].indexOf(active) };
    }
    return null;
  }
}
