// The lease on one slot, which is what an Offer holds: a gateway has it from when it took the Offer until it has dropped
// all that came of it.
//
// Holds the servers of schema interfaces Worker and Program. Must not know how slots are offered: join.ts does. Next in a
// task's life: runs.ts.

import { type CallContext, CapabilityError, serve } from "../rpc";
import type { Invocation } from "../sandbox/invocation";
import type { SandboxConfig } from "../sandbox/limits";
import type { LargeInput, Prepared, RunningGroup, Sandbox, Slot } from "../sandbox/sandbox";
import type {
  Program$Client,
  Program_Run$Params,
  Program_Run$Results,
  Program_Task$Params,
  Program_Task$Results,
  Worker$Client,
  Worker_Load$Params,
  Worker_Load$Results,
} from "../schema/worker";
import { Program, Worker } from "../schema/worker";
import { fetchBlob } from "./blob";
import { checkWanted, crossing } from "./crossing";
import { answerStart } from "./group";
import { readInvocation, refuseCalls, sizeOfInvocation } from "./invocation";
import { serveRuns } from "./runs";

/** Tasks whose input a lease may keep here, each as large as a run's input may be. */
const TASKS_MAX = 16;
/** The input record of a run that differs in nothing. */
const NOTHING = Uint8Array.of(1, 0, 0, 0, 0);

/** What leases need of the worker that gives them. */
export interface Host {
  readonly sandbox: Sandbox;
  readonly isDraining: boolean;
  readonly limits: SandboxConfig;
}

/** A module that is ready, on one lease. */
export interface Loaded {
  readonly prepared: Prepared;
  /** Seconds that nobody was told yet. */
  compileS: number;
}

/** One slot, while a gateway has it. */
export class Lease {
  /** What goes into the Offer. */
  readonly worker: Worker$Client;
  /** Settles when the gateway has dropped all that came of it. */
  readonly ended: Promise<void>;
  readonly host: Host;
  readonly #slot: Slot;
  #end: () => void = () => undefined;
  #held = 0;
  #tasksBytes = 0;

  constructor(host: Host, slot: Slot) {
    this.host = host;
    this.#slot = slot;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    this.worker = serve(Worker, {
      load: (params: Worker_Load$Params, results: Worker_Load$Results, call: CallContext) => this.#load(params, results, call),
      released: this.hold(),
    });
  }

  /** Keeps the lease until what is returned is called, however often that is. */
  hold(): () => void {
    let isHeld = true;
    this.#held += 1;
    return () => {
      this.#held -= isHeld ? 1 : 0;
      isHeld = false;
      if (this.#held === 0) {
        this.#end();
      }
    };
  }

  /** Begins runs, which go when those before them have ended. Throws what the gateway is to hear. */
  async start(program: Loaded, task: Invocation, inputs: Uint8Array, large: LargeInput[]): Promise<RunningGroup> {
    if (this.host.isDraining) {
      throw new CapabilityError("draining", "this worker is stopping");
    }
    // The first run is the one that waited for it.
    const { prepared, compileS } = program;
    program.compileS = 0;
    return await crossing(() => this.#slot.start({ program: prepared, task, inputs, large, compileS }));
  }

  /** Keeps a task's input until what is returned is called. Throws "overloaded" when there is too much of that. */
  keepTask(task: Invocation): () => void {
    const most = TASKS_MAX * this.host.limits.inputBytesMax;
    if (this.#tasksBytes > most) {
      throw new CapabilityError(
        "overloaded",
        `the tasks on a slot may have ${most} bytes, they have ${this.#tasksBytes}`,
      );
    }
    let size = sizeOfInvocation(task);
    this.#tasksBytes += size;
    return () => {
      this.#tasksBytes -= size;
      size = 0;
    };
  }

  async #load(params: Worker_Load$Params, results: Worker_Load$Results, call: CallContext): Promise<void> {
    const digest = params.digest.toUint8Array().slice();
    const { blob, metered } = params;
    // Whoever asks no more has taken the blob with it.
    const bytes = () => fetchBlob(blob, this.host.limits.moduleBytesMax, call.signal);
    const prepared = await crossing(() => this.host.sandbox.prepare(digest, bytes, metered));
    checkWanted(call);
    results.program = serveProgram(this, { prepared, compileS: prepared.compileS });
  }
}

function serveProgram(lease: Lease, program: Loaded): Program$Client {
  return serve(Program, {
    task(params: Program_Task$Params, results: Program_Task$Results): void {
      results.runs = serveRuns(lease, program, readInvocation(params.invocation));
    },
    async run(params: Program_Run$Params, results: Program_Run$Results, call: CallContext): Promise<void> {
      refuseCalls(params);
      const group = await lease.start(program, readInvocation(params.invocation), NOTHING, []);
      await answerStart(lease, group, results, call);
    },
    released: lease.hold(),
  });
}
