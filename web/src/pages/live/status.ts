// How a state looks: a sign and a word, so that no colour has to be told from another.
import { make, setAttribute, setText } from "../page/element";

const SIGNS: Record<string, string> = {
  scheduled: "◷", queued: "◌", running: "●", succeeded: "✓", failed: "✕", cancelled: "⊘", unsatisfiable: "!",
}; // prettier-ignore

export class StatusMark {
  readonly element = make("span", { class: "status" });
  readonly #sign = make("span", { "aria-hidden": "true" });
  readonly #word = make("span");

  constructor(status = "") {
    this.element.append(this.#sign, this.#word);
    if (status) {
      this.set(status);
    }
  }

  set(status: string): void {
    setAttribute(this.element, "data-state", status);
    setText(this.#sign, SIGNS[status] ?? "·");
    setText(this.#word, status);
  }
}
