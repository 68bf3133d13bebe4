// A table of thousands of rows; only the visible rows exist as elements.

"use strict";

aot.Table = class {
  /**
   * frame: the element that scrolls; table: inside it.
   * columns: [{key, label, title, isText, width}]; cell(row, column): content of a cell.
   */
  constructor(frame, table, columns, cell, onSort) {
    this.frame = frame;
    this.table = table;
    this.columns = columns;
    this.cell = cell;
    this.onSort = onSort;
    this.rows = [];
    this.rowHeight = 32;
    this.beyond = 10;
    this.head = table.tHead;
    this.body = table.tBodies[0];
    this.above = aot.make("tr", { ariaHidden: "true", className: "spacer" }, aot.make("td", { colSpan: columns.length }));
    this.below = this.above.cloneNode(true);
    const widths = aot.make("colgroup");
    for (const column of columns) {
      const col = aot.make("col");
      col.style.width = `${column.width}px`;
      widths.append(col);
    }
    table.prepend(widths);
    table.style.minWidth = `${columns.reduce((sum, column) => sum + column.width, 0)}px`;
    this.head.append(aot.make("tr", {}, ...columns.map((column) => this.#heading(column))));
    frame.addEventListener("scroll", () => this.#render(), { passive: true });
    new ResizeObserver(() => this.#render()).observe(frame);
  }

  /** Show rows in the given order; sort: {key, isDown}, the order to indicate in the heading. */
  show(rows, sort) {
    this.rows = rows;
    this.range = null;
    this.table.ariaRowCount = String(rows.length + 1);
    for (const heading of this.head.rows[0].cells) {
      const isSorted = heading.dataset.key === sort.key;
      heading.ariaSort = isSorted ? (sort.isDown ? "descending" : "ascending") : "none";
    }
    this.#render();
  }

  /** Show all rows, as a printed page does not scroll, or only the visible ones again. */
  printAll(isPrinted) {
    this.isPrinted = isPrinted;
    this.range = null;
    this.#render();
  }

  #heading(column) {
    const button = aot.make("button", { type: "button", className: "plain", title: column.title ?? "" }, column.label);
    button.addEventListener("click", () => this.onSort(column));
    const className = column.isText ? "text" : "number";
    return aot.make("th", { scope: "col", className, dataset: { key: column.key } }, button);
  }

  #render() {
    const first = this.isPrinted ? 0 : Math.max(0, Math.floor(this.frame.scrollTop / this.rowHeight) - this.beyond);
    const visible = Math.ceil(this.frame.clientHeight / this.rowHeight) + 2 * this.beyond;
    const count = this.isPrinted ? this.rows.length : visible;
    const last = Math.min(this.rows.length, first + count);
    const range = `${first}-${last}`;
    if (this.range === range) return;
    this.range = range;
    const focused = document.activeElement?.closest?.("tr")?.dataset.row;
    this.above.firstChild.style.height = `${first * this.rowHeight}px`;
    this.below.firstChild.style.height = `${(this.rows.length - last) * this.rowHeight}px`;
    const rows = this.rows.slice(first, last).map((row, place) => this.#row(row, first + place));
    this.body.replaceChildren(this.above, ...rows, this.below);
    if (focused !== undefined) this.body.querySelector(`[data-row="${focused}"] a`)?.focus({ preventScroll: true });
  }

  #row(row, place) {
    const line = aot.make("tr", { dataset: { row: place } });
    line.ariaRowIndex = String(place + 2);
    for (const column of this.columns) {
      line.append(aot.make("td", { className: column.isText ? "text" : "number" }, this.cell(row, column)));
    }
    return line;
  }
};

/** Compare two rows by the values of a column: rows without a value come last in both directions; equal values are ordered by name. */
aot.comparison = (place, isDown, namePlace) => {
  const collator = new Intl.Collator("en", { numeric: true });
  const plain = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b)));
  return (one, other) => {
    const [a, b] = [one[place], other[place]];
    if (a === null || b === null) return (a === null) - (b === null) || plain(one[namePlace], other[namePlace]);
    return (isDown ? plain(b, a) : plain(a, b)) || plain(one[namePlace], other[namePlace]);
  };
};
