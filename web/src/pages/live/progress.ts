// How far a task is: a bar of what succeeded, failed and runs, with the count beside it.
import { make, setAttribute, setText } from "../page/element";
import { whole } from "../page/format";
import { endedRuns, type Task } from "./shapes";

const PARTS = ["succeeded", "failed", "cancelled", "running"] as const;

export class Progress {
  readonly element: HTMLElement;
  readonly #bar: HTMLElement;
  readonly #count = make("span", { class: "count" });
  readonly #parts = PARTS.map((state) => make("span", { "data-state": state }));

  constructor(name: string) {
    this.#bar = make("span", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-label": name }, ...this.#parts);
    this.element = make("span", { class: "progress" }, this.#bar, this.#count);
  }

  set(task: Task): void {
    const ended = endedRuns(task);
    PARTS.forEach((state, index) => {
      const share = `${((100 * task.runs[state]) / Math.max(1, task.repeats)).toFixed(2)}%`;
      const part = this.#parts[index]!;
      if (part.style.width !== share) {
        part.style.width = share;
      }
    });
    setAttribute(this.#bar, "aria-valuemax", task.repeats);
    setAttribute(this.#bar, "aria-valuenow", ended);
    setText(this.#count, task.repeats === 1 ? (ended ? "1 run" : "0 of 1") : `${whole(ended)} / ${whole(task.repeats)}`);
  }
}
