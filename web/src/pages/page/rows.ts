// The rows of a table by key: those that stay are changed where they are, so that focus and selection stay too. Links in rows are
// reached by one Tab, and from row to row by the arrow keys. Knows no columns.
import { make } from "./element";

export interface Row<Value> {
  readonly element: HTMLTableRowElement;
  update(value: Value): void;
}

export class Rows<Value> {
  readonly element = make("tbody");
  readonly #rows = new Map<string, Row<Value>>();
  readonly #make: (value: Value) => Row<Value>;

  constructor(makeRow: (value: Value) => Row<Value>) {
    this.#make = makeRow;
    this.element.addEventListener("keydown", (event) => this.#move(event));
    this.element.addEventListener("focusin", (event) => this.#rove(event.target as Element));
  }

  /** Show these values, in this order. */
  show(values: readonly Value[], key: (value: Value) => string): void {
    const wanted = new Set<string>();
    let place: Element | null = this.element.firstElementChild;
    for (const value of values) {
      const id = key(value);
      if (wanted.has(id)) {
        continue;
      }
      wanted.add(id);
      let row = this.#rows.get(id);
      if (!row) {
        row = this.#make(value);
        this.#rows.set(id, row);
      }
      row.update(value);
      if (row.element === place) {
        place = place.nextElementSibling;
      } else {
        this.element.insertBefore(row.element, place);
      }
    }
    for (const [id, row] of this.#rows) {
      if (!wanted.has(id)) {
        row.element.remove();
        this.#rows.delete(id);
      }
    }
    this.#rove(this.#links().find((link) => link.tabIndex === 0) ?? null);
  }

  #links(): HTMLElement[] {
    return [...this.element.querySelectorAll<HTMLElement>("[data-row]")];
  }

  #rove(target: Element | null): void {
    const links = this.#links();
    const current = links.includes(target as HTMLElement) ? target : (links.find((link) => link.tabIndex === 0) ?? links[0]);
    for (const link of links) {
      const index = link === current ? 0 : -1;
      if (link.tabIndex !== index) {
        link.tabIndex = index;
      }
    }
  }

  #move(event: KeyboardEvent): void {
    const links = this.#links();
    const at = links.indexOf(event.target as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at >= 0 && to !== undefined && links[to]) {
      event.preventDefault();
      links[to].focus();
    }
  }
}

/** A table in a region that scrolls sideways where there is too little room. */
export function table(caption: string, columns: readonly (string | [name: string, kind: string])[], body: HTMLElement, look = ""): HTMLElement {
  const heads = columns.map((column) => {
    const [name, kind] = typeof column === "string" ? [column, ""] : column;
    return make("th", { scope: "col", class: kind || null }, name);
  });
  return make("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    make("table", { class: look || null }, make("caption", { class: "unseen" }, caption),
      make("thead", {}, make("tr", {}, ...heads)), body)); // prettier-ignore
}
