// The main loop of a thread that runs guests: batches in, guests run, outcomes out, as ww/sandbox/executor.py has it.
//
// Holds the modules that it was given, and the outcomes on their way. Must not know why a guest runs, nor how:
// program.ts does; nor deadlines: whoever started the thread ends it. A thread that has run guests shares nothing with
// them: every run has an instance of its own, and a memory that is empty.

import { Control, LOGGED_BYTES_MAX, type Outputs } from "./control";
import { lineOf } from "./failure";
import { type Invocation, newResult, type Result } from "./invocation";
import type { RunLimits } from "./limits";
import type { Batch, FromThread, ToThread } from "./message";
import type { ExecutorPort } from "./port";
import { Program } from "./program";
import { type Input, readInput, writeOutcome } from "./record";

/** Outcomes wait that long for others, so that short runs share a message. */
const FLUSH_AFTER_MS = 5;

/** Runs what comes, for as long as the thread lives. */
export function serve(port: ExecutorPort): void {
  const executor = new Executor(port);
  port.onMessage((message) => executor.hear(message as ToThread));
}

/** Where output is kept, and how much of each stream there. */
class Place {
  constructor(
    readonly bytes: number,
    readonly outputs: Outputs | null = null,
  ) {}
}

class Executor {
  readonly #port: ExecutorPort;
  readonly #programs = new Map<number, Program>();
  #control = Control.fresh();
  #isShared = false;
  #task: { task: Invocation; limits: RunLimits } | null = null;
  /** Where output outlives this thread, and where it goes that is too large for that. */
  #shared = new Place(0);
  #own = new Place(0);
  /** Since when outcomes are in the log that nobody was told of; 0: there are none. */
  #unsaidSinceMs = 0;

  constructor(port: ExecutorPort) {
    this.#port = port;
  }

  #say(message: FromThread, transfer: Transferable[] = []): void {
    this.#port.post(message, transfer);
  }

  hear(message: ToThread): void {
    switch (message.type) {
      case "begin":
        if (message.control) {
          this.#control = new Control(message.control);
          this.#isShared = true;
          this.#own = new Place(0);
        }
        this.#say({ type: "ready", nowMs: performance.now() });
        break;
      case "module":
        this.#programs.set(message.key, new Program(message.module, message.about));
        break;
      case "forget":
        this.#programs.delete(message.key);
        break;
      case "task":
        this.#task = message;
        break;
      case "outputs":
        this.#shared = new Place(message.buffer.byteLength / 2, this.#control.outputs(message.buffer));
        break;
      case "batch":
        this.#answer(message);
    }
  }

  #answer(batch: Batch): void {
    let inputs: Input[];
    try {
      const at = batch.spans;
      inputs = Array.from(batch.places, (_, index) => readInput(batch.records, at[2 * index]!, at[2 * index + 1]!));
    } catch (error) {
      this.#say({ type: "refused", message: lineOf(error) });
      return;
    }
    this.#runAll(batch, inputs);
    this.#control.rest();
    this.#unsaidSinceMs = 0;
    this.#say({ type: "done" });
  }

  #runAll(batch: Batch, inputs: readonly Input[]): void {
    const control = this.#control;
    const { task, limits } = this.#task!;
    const program = this.#programs.get(batch.module)!;
    const outputs = this.#outputsFor(limits);
    const beganMs = performance.now() - 1000 * batch.waitedS;
    let compileS = batch.compileS;
    inputs.forEach((given, index) => {
      const place = batch.places[index]!;
      control.rest();
      control.waitWhilePaused();
      if (control.isMarked(place)) {
        this.#add(writeOutcome(place, CANCELLED, { memoryLimitBytes: limits.memoryBytes, queueS: 0, compileS: 0 }));
        return;
      }
      control.enter(place, performance.now());
      const result = program.run({ task, given, limits }, outputs);
      const queueS = Math.max(0, (performance.now() - beganMs) / 1000 - result.wallS);
      this.#add(writeOutcome(place, result, { memoryLimitBytes: limits.memoryBytes, queueS, compileS }));
      compileS = 0;
    });
  }

  #outputsFor({ outputBytes }: RunLimits): Outputs {
    if (this.#shared.outputs && outputBytes <= this.#shared.bytes) {
      return this.#shared.outputs;
    }
    if (outputBytes > this.#own.bytes || !this.#own.outputs) {
      this.#own = new Place(outputBytes, this.#control.outputs(new ArrayBuffer(2 * outputBytes)));
    }
    return this.#own.outputs!;
  }

  #add(record: Uint8Array<ArrayBuffer>): void {
    if (!this.#isShared || record.length > LOGGED_BYTES_MAX) {
      this.#say({ type: "outcome", record }, [record.buffer]);
      return;
    }
    const nowMs = performance.now();
    const isFirst = this.#unsaidSinceMs === 0;
    this.#control.append(record, () => this.#flush());
    this.#unsaidSinceMs ||= nowMs;
    // The first of a batch at once: it may be the only one for long.
    if (isFirst || nowMs - this.#unsaidSinceMs > FLUSH_AFTER_MS) {
      this.#flush();
      this.#unsaidSinceMs = nowMs;
    }
  }

  #flush(): void {
    this.#say({ type: "logged" });
  }
}

const CANCELLED: Result = newResult("cancelled");
