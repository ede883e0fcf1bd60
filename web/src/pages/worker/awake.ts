// Keeping the screen awake while the tab works, where the browser can and the reader wants it: what sleeps computes nothing.
import { make, setText } from "../page/element";

export class Awake {
  readonly element: HTMLElement;
  readonly #box = make("input", { type: "checkbox", id: "awake", "aria-describedby": "awake-help" });
  readonly #help = make("p", { class: "help", id: "awake-help" });
  #isWorking = false;
  #lock: WakeLockSentinel | null = null;
  #isAsking = false;

  constructor() {
    this.element = make("div", { class: "field check" }, this.#box, make("label", { for: "awake" }, "Keep the screen awake meanwhile"), this.#help);
    this.element.hidden = !("wakeLock" in navigator);
    this.#box.addEventListener("change", () => {
      setText(this.#help, "");
      void this.#settle();
    });
    // Browsers take it back from tabs that are not to be seen.
    document.addEventListener("visibilitychange", () => void this.#settle());
  }

  /** Whether the tab works, or tries to. */
  set(isWorking: boolean): void {
    if (isWorking !== this.#isWorking) {
      this.#isWorking = isWorking;
      void this.#settle();
    }
  }

  async #settle(): Promise<void> {
    const isWanted = () => this.#isWorking && this.#box.checked && document.visibilityState === "visible";
    if (this.element.hidden || this.#isAsking) {
      return;
    }
    this.#isAsking = true;
    try {
      if (isWanted() && (!this.#lock || this.#lock.released)) {
        this.#lock = await navigator.wakeLock.request("screen");
      }
    } catch {
      this.#box.checked = false;
      setText(this.#help, "The browser does not allow it now: the battery may be low.");
    } finally {
      this.#isAsking = false;
    }
    if (!isWanted()) {
      const lock = this.#lock;
      this.#lock = null;
      await lock?.release();
    }
  }
}
