// Tells screen readers what changed, politely and not too often: what is said while it is too soon waits, and only the last of it
// is said.
import { make, setText } from "./element";

const BETWEEN_MS = 3000;

export class Announcer {
  readonly element = make("div", { class: "unseen", role: "status", "aria-live": "polite", "aria-atomic": "true" });
  #saidAt = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  say(text: string): void {
    clearTimeout(this.#timer);
    const wait = Math.max(0, this.#saidAt + BETWEEN_MS - performance.now());
    this.#timer = setTimeout(() => {
      this.#saidAt = performance.now();
      setText(this.element, text);
    }, wait);
  }

  /** Say at once what a key of the reader's asked for, once the keys rest. */
  answer(text: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => setText(this.element, text), 150);
  }
}
