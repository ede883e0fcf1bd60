// How busy a worker is, as pages show it.
//
// Holds the counting of runs a second. Must not know who looks.

import type { Sandbox } from "../sandbox/sandbox";
import type { LoadMessage } from "./messages";

const WINDOW_MS = 5000;

/** How much happened in the last seconds, of something that is counted from the beginning. */
export class Rate {
  readonly #seen: { atMs: number; count: number }[] = [];

  /** Notes the count; returns how much a second it grew by lately. */
  note(count: number, nowMs: number): number {
    this.#seen.push({ atMs: nowMs, count });
    while (this.#seen.length > 2 && this.#seen[1]!.atMs <= nowMs - WINDOW_MS) {
      this.#seen.shift();
    }
    const first = this.#seen[0]!;
    const passedMs = nowMs - first.atMs;
    return passedMs > 0 ? (1000 * (count - first.count)) / passedMs : 0;
  }
}

/** Returns what a page is told. */
export function loadOf(
  sandbox: Sandbox,
  rate: Rate,
  traffic: { sentBytes: number; receivedBytes: number },
  nowMs: number,
): LoadMessage {
  const figures = sandbox.figures();
  return {
    type: "load",
    slots: sandbox.loads().map(({ busy, module, sinceMs }) => ({
      busy,
      module,
      since_ms: sinceMs === undefined ? undefined : nowMs - sinceMs,
    })),
    ended: figures.ended,
    failed: figures.failed,
    per_second: rate.note(figures.ended, nowMs),
    sent_bytes: traffic.sentBytes,
    received_bytes: traffic.receivedBytes,
    modules_cached: figures.modulesCached,
    memory_bytes: figures.memoryBytes,
  };
}
