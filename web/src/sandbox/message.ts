// What a slot's supervisor and its thread say to each other.
//
// Holds types alone. Outcomes of ordinary size are in the memory that both share (control.ts), or in messages where
// there is none.

import type { About } from "./about";
import type { Invocation } from "./invocation";
import type { RunLimits } from "./limits";

export type ToThread =
  | {
      /** Said first. null: there is no memory to share. */
      type: "begin";
      control: SharedArrayBuffer | null;
    }
  | { type: "module"; key: number; module: WebAssembly.Module; about: About }
  | { type: "forget"; key: number }
  | { type: "task"; task: Invocation; limits: RunLimits }
  | { type: "outputs"; buffer: SharedArrayBuffer }
  | Batch;

/** Runs of one group, one after the other, of the module and the task that were said before. */
export interface Batch {
  type: "batch";
  module: number;
  places: Uint16Array;
  /** Where each one's record is in records: start and end. */
  spans: Uint32Array;
  records: Uint8Array;
  /** How long its group has waited here. */
  waitedS: number;
  /** How long its first run has waited for its module. */
  compileS: number;
}

export type FromThread =
  | { type: "ready"; nowMs: number }
  | { type: "logged" }
  | { type: "outcome"; record: Uint8Array }
  | {
      /** Records are none; nothing of the batch was run. */
      type: "refused";
      message: string;
    }
  | { type: "done" };
