// Draws at most once a frame, and nothing in a hidden tab: browsers give it no frames. Each part that changed draws itself once,
// however often it changed. Knows no part.

export class Painter {
  readonly #due = new Set<() => void>();
  #isAsked = false;

  /** Have that drawn with the next frame. */
  ask(draw: () => void): void {
    this.#due.add(draw);
    if (!this.#isAsked) {
      this.#isAsked = true;
      requestAnimationFrame(() => this.#paint());
    }
  }

  #paint(): void {
    this.#isAsked = false;
    const due = [...this.#due];
    this.#due.clear();
    for (const draw of due) {
      draw();
    }
  }
}
