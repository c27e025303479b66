// Tables that are brought up to date in place: a row keeps its element, so what is marked stays marked.

import { h, keyed, say } from "/dom.js";

/**
 * A table. A column is `{ title, sort, n, cell(row, cell) -> text | node, wide, clip, low, hint }`; `key(row)`
 * tells rows apart; `open(row)` is what Enter and a click do.
 */
export class Table {
  constructor({ caption, columns, key, open, onSort, sort, tone, empty }) {
    Object.assign(this, { columns, key, open, tone, sort });
    this.heads = columns.map((column) => {
      const name = h("span", {}, column.title);
      const head = h("th", { scope: "col", class: cls(column), title: column.hint }, name);
      if (column.sort && onSort) {
        const button = h("button", { type: "button", class: "sort" }, column.title, h("span", { class: "arrow", "aria-hidden": "true" }));
        button.addEventListener("click", () => onSort(column.sort));
        head.replaceChildren(button);
      }
      return head;
    });
    this.body = h("tbody", {});
    this.empty = h("p", { class: "empty" }, empty ?? "Nothing here.");
    this.root = h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
      h("table", {}, h("caption", { class: "hidden" }, caption), h("thead", {}, h("tr", {}, this.heads)), this.body),
      this.empty);
    this.sorted(sort);
  }

  /** Shows by what rows are in order: `name`, or `-name` for the other way round. */
  sorted(sort) {
    this.columns.forEach((column, at) => {
      const turned = sort?.startsWith("-");
      const is = column.sort && sort?.replace("-", "") === column.sort;
      const down = turned ? "descending" : "ascending";
      if (is) this.heads[at].setAttribute("aria-sort", down);
      else this.heads[at].removeAttribute("aria-sort");
      const arrow = this.heads[at].querySelector(".arrow");
      if (arrow) say(arrow, is ? (turned ? "↓" : "↑") : "");
    });
  }

  set(rows) {
    this.empty.hidden = rows.length > 0;
    keyed(this.body, rows, this.key, () => this.#make(), (element, row) => this.#update(element, row));
    // Tab reaches one row; j and k go on from there.
    const first = this.body.firstElementChild;
    if (this.open && first && !this.body.querySelector("tr[tabindex='0']")) first.tabIndex = 0;
  }

  #make() {
    const cells = this.columns.map((column, at) => h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : undefined, class: cls(column) }));
    const row = h("tr", { "data-row": true, tabindex: "-1", class: this.open ? "opens" : undefined }, cells);
    if (this.open) {
      row.addEventListener("click", (event) => {
        if (!event.target.closest("a, button") && !getSelection()?.toString()) this.open(row.item, row);
      });
    }
    return row;
  }

  #update(element, row) {
    element.item = row;
    const tone = this.tone?.(row) ?? "";
    if (element.dataset.tone !== tone) element.dataset.tone = tone;
    this.columns.forEach((column, at) => {
      const cell = element.children[at];
      const shown = column.cell(row, cell);
      if (shown instanceof Node) {
        const told = shown.textContent + (shown.dataset?.tone ?? "") + (shown.getAttribute?.("href") ?? "");
        if (cell.told !== told) {
          cell.told = told;
          cell.replaceChildren(shown);
        }
      } else if (shown !== undefined) say(cell, String(shown ?? ""));
    });
  }
}

function cls(column) {
  return [column.n && "n", column.wide && "wide", column.clip && "clip", column.low && `low${column.low}`].filter(Boolean).join(" ") || undefined;
}

/** A badge of a state: a word, and a tone that never stands alone. */
export function badge(word, tone) {
  const element = h("span", { class: "badge", "data-tone": tone ?? "" }, word);
  return element;
}

