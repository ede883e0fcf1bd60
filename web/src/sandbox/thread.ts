// A slot's thread, from its start to its end, as its supervisor sees it.
//
// Holds what it was told already (modules, task), the memory that is shared with it, and how its clock goes. Must not
// know groups, nor when a run is to stop: slot.ts does.

import { Control, newBuffer, OUTPUT_BYTES_MAX, type Outputs } from "./control";
import type { Invocation } from "./invocation";
import type { RunLimits } from "./limits";
import type { FromThread, ToThread } from "./message";
import type { Prepared } from "./modules";
import type { SlotPort, SpawnSlot } from "./port";

/** Modules that it keeps. */
const MODULES_MAX = 8;

/** What a thread has to say beside its readiness. */
export interface ThreadListener {
  logged(): void;
  outcome(record: Uint8Array): void;
  refused(message: string): void;
  done(): void;
  /** It ended by itself. */
  died(reason: string): void;
}

export class Thread {
  /** Ends when it hears; rejected when it dies before. */
  readonly ready: Promise<void>;
  readonly control: Control | null;
  readonly #port: SlotPort;
  readonly #keys = new Map<Prepared["module"], number>();
  #nextKey = 1;
  #task: Invocation | null = null;
  #limits = "";
  #isOver = false;
  #behindMs = 0;
  #outputs: Outputs | null = null;
  #outputBytes = 0;

  constructor(spawn: SpawnSlot, listener: ThreadListener) {
    this.control = typeof SharedArrayBuffer === "undefined" ? null : Control.fresh();
    this.#port = spawn();
    this.ready = new Promise((resolve, reject) => {
      this.#port.onMessage((message) => this.#hear(message as FromThread, listener, resolve));
      this.#port.onError((reason) => {
        if (!this.#isOver) {
          this.#isOver = true;
          reject(new Error(reason));
          listener.died(reason);
        }
      });
    });
    // Who waits for nothing hears by the listener.
    this.ready.catch(() => undefined);
    this.#say({ type: "begin", control: (this.control?.buffer as SharedArrayBuffer | undefined) ?? null });
  }

  #say(message: ToThread, transfer: Transferable[] = []): void {
    this.#port.post(message, transfer);
  }

  #hear(message: FromThread, listener: ThreadListener, resolve: () => void): void {
    if (this.#isOver) {
      return;
    }
    switch (message.type) {
      case "ready":
        // What it says took its time to come: its clock is taken to be behind by that much, and no run ends early.
        this.#behindMs = performance.now() - message.nowMs;
        resolve();
        break;
      case "logged":
        listener.logged();
        break;
      case "outcome":
        listener.outcome(message.record);
        break;
      case "refused":
        listener.refused(message.message);
        break;
      case "done":
        listener.done();
    }
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Has runs go, one after the other. */
  run(
    program: Prepared,
    task: Invocation,
    limits: RunLimits,
    batch: { places: readonly number[]; records: Uint8Array<ArrayBuffer>; spans: Uint32Array },
    waits: { waitedS: number; compileS: number },
  ): void {
    const module = this.#keyOf(program);
    this.#setTask(task, limits);
    const places = Uint16Array.from(batch.places);
    const { records, spans } = batch;
    this.#say({ type: "batch", module, places, spans, records, ...waits }, [records.buffer]);
  }

  #keyOf(program: Prepared): number {
    const known = this.#keys.get(program.module);
    const key = known ?? this.#nextKey++;
    this.#keys.delete(program.module);
    this.#keys.set(program.module, key);
    if (known === undefined) {
      this.#say({ type: "module", key, module: program.module, about: program.about });
      const [oldest] = this.#keys;
      if (this.#keys.size > MODULES_MAX && oldest) {
        this.#keys.delete(oldest[0]);
        this.#say({ type: "forget", key: oldest[1] });
      }
    }
    return key;
  }

  #setTask(task: Invocation, limits: RunLimits): void {
    const said = JSON.stringify(limits);
    if (task === this.#task && said === this.#limits) {
      return;
    }
    this.#task = task;
    this.#limits = said;
    const { outputBytes } = limits;
    if (this.control && outputBytes > this.#outputBytes && outputBytes <= OUTPUT_BYTES_MAX) {
      const buffer = newBuffer(2 * outputBytes) as SharedArrayBuffer;
      this.#outputBytes = outputBytes;
      this.#outputs = this.control.outputs(buffer);
      this.#say({ type: "outputs", buffer });
    }
    this.#say({ type: "task", task, limits });
  }

  /** Which run is under way, and since when by this clock; null where that is not known. */
  get running(): { place: number; startedMs: number } | null {
    const running = this.control?.running;
    return running ? { place: running.place, startedMs: running.startedMs + this.#behindMs } : null;
  }

  /** Returns what the run under way has written, where that is known. */
  outputs(limits: RunLimits): Outputs | null {
    return limits.outputBytes <= this.#outputBytes ? this.#outputs : null;
  }

  /** Ends it, whatever it does. */
  end(): void {
    this.#isOver = true;
    this.#port.terminate();
  }
}
