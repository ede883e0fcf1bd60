// The sandbox in a tab, or in Deno and Node: modules that are ready, and slots that run them.
//
// Holds what a vat asks for. Must not know Cap'n Proto or who asks. A module's way: modules.ts, rewrite.ts; a run's:
// slot.ts, then, in the slot's thread, executor.ts and program.ts.

import { DEFAULTS, type SandboxConfig } from "./limits";
import { type Fetch, Modules, type Prepared } from "./modules";
import type { SpawnSlot } from "./port";
import { Slot, type SlotFigures } from "./slot";
import type { ByteStore } from "./store";

export { Failure } from "./failure";
export type { LargeInput, RunningGroup, Start, Taken } from "./group";
export type { Invocation } from "./invocation";
export type { Prepared, Slot, SlotFigures };

/** Of all slots together. */
export interface SandboxFigures {
  ended: number;
  failed: number;
  modulesCached: number;
  memoryBytes: number;
}

export class Sandbox {
  readonly #spawn: SpawnSlot;
  readonly #config: SandboxConfig;
  readonly #modules: Modules;
  readonly #slots: Slot[] = [];

  constructor(spawn: SpawnSlot, store: ByteStore, config: Partial<SandboxConfig> = {}) {
    this.#spawn = spawn;
    this.#config = { ...DEFAULTS, ...config };
    this.#modules = new Modules(store, this.#config);
  }

  /** Has a module ready to run; see Modules. */
  prepare(digest: Uint8Array, fetch: Fetch, metered: boolean): Promise<Prepared> {
    return this.#modules.prepare(digest, fetch, metered);
  }

  /** Starts a slot, with a thread of its own. */
  newSlot(): Slot {
    const slot = new Slot(this.#spawn, this.#config);
    this.#slots.push(slot);
    return slot;
  }

  loads(): SlotFigures[] {
    return this.#slots.map((slot) => slot.figures);
  }

  figures(): SandboxFigures {
    const total = (of: (slot: Slot) => number) => this.#slots.reduce((sum, slot) => sum + of(slot), 0);
    const { modules, bytes } = this.#modules.kept;
    return {
      ended: total((slot) => slot.ended),
      failed: total((slot) => slot.failed),
      modulesCached: modules,
      memoryBytes: bytes + total((slot) => slot.heldBytes),
    };
  }

  /** Ends all threads. */
  close(): void {
    this.#slots.forEach((slot) => slot.close());
  }
}
