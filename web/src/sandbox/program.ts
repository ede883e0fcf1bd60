// One run of a module in the thread that runs guests, as ww/sandbox/program.py has it.
//
// Holds what happens between a module and its end: its memory, its instance, the calls that are made, and what their
// failing means. Must not know who asks, nor when a run is to stop: its thread is ended from outside.

import { type About, type Callable, PAGE_BYTES, WASI_MODULE } from "./about";
import type { Outputs } from "./control";
import { lineOf, oneLine } from "./failure";
import { type Invocation, newResult, type Reason, type Result } from "./invocation";
import type { RunLimits } from "./limits";
import { Memories } from "./memory";
import { Preview1, WASIProcExit } from "./preview1";
import type { Input as GivenInput } from "./record";
import { MEMORY_MODULE, MEMORY_NAME } from "./rewrite";
import { Input, Output } from "./stream";
import { needsTrampoline, throughTrampoline } from "./trampoline";
import { GuestEnd, isStackOverflow, trapOf } from "./trap";

/** How a run ended otherwise than well. */
class GuestFault {
  readonly reason: Reason;
  readonly detail: string;

  constructor(reason: Reason, detail: string) {
    this.reason = reason;
    this.detail = detail;
  }
}

/** What one run is given. */
export interface Order {
  task: Invocation;
  given: GivenInput;
  limits: RunLimits;
}

/** A module that is compiled, and what is known of it. */
export class Program {
  readonly about: About;
  readonly #module: WebAssembly.Module;
  readonly #wasi: Preview1 | null;
  readonly #memories = new Memories();

  constructor(module: WebAssembly.Module, about: About) {
    this.#module = module;
    this.about = about;
    this.#wasi = about.needsWasi ? new Preview1() : null;
  }

  /** Runs it in a fresh instance; returns how it ended. */
  run(order: Order, outputs: Outputs): Result {
    const result = newResult();
    const startMs = performance.now();
    try {
      new Run(this.#module, this.about, this.#wasi, this.#memories, order, outputs, result).go();
    } catch (error) {
      if (!(error instanceof GuestFault)) {
        throw error;
      }
      result.reason = error.reason;
      result.detail = error.detail;
    }
    if (this.about.needsWasi) {
      result.stdout = outputs.stdout.taken();
      result.stderr = outputs.stderr.taken();
      result.stdoutCut = outputs.stdout.isCut;
      result.stderrCut = outputs.stderr.isCut;
    }
    result.wallS = (performance.now() - startMs) / 1000;
    result.cpuS = result.wallS;
    return result;
  }
}

class Run {
  readonly #module: WebAssembly.Module;
  readonly #about: About;
  readonly #wasi: Preview1 | null;
  readonly #memories: Memories;
  readonly #task: Invocation;
  readonly #given: GivenInput;
  readonly #limits: RunLimits;
  readonly #outputs: Outputs;
  readonly #result: Result;
  #memory: WebAssembly.Memory | null = null;
  #exports: WebAssembly.Exports = {};

  constructor(
    module: WebAssembly.Module,
    about: About,
    wasi: Preview1 | null,
    memories: Memories,
    order: Order,
    outputs: Outputs,
    result: Result,
  ) {
    this.#module = module;
    this.#about = about;
    this.#wasi = wasi;
    this.#memories = memories;
    this.#task = order.task;
    this.#given = order.given;
    this.#limits = order.limits;
    this.#outputs = outputs;
    this.#result = result;
  }

  go(): void {
    const about = this.#about;
    if (about.fault) {
      throw new GuestFault(about.fault.reason, this.#said(about.fault));
    }
    const name = this.#task.entry || "_start";
    const callable = about.callables.get(name);
    if (!callable) {
      const shown = oneLine(name, 80);
      const detail = `exports no function '${shown}' that takes and returns i32, i64, f32 or f64`;
      throw new GuestFault("compile", detail);
    }
    const given = this.#task.entry ? this.#fitted(name, callable.parameters) : [];
    try {
      if (this.#open()) {
        this.#run(name, callable, given);
      }
    } finally {
      if (this.#memory) {
        this.#memories.giveBack(this.#memory);
      }
    }
  }

  #run(name: string, callable: Callable, given: readonly bigint[]): void {
    try {
      this.#call(name, callable, given);
    } finally {
      this.#measure();
    }
  }

  #said(fault: { reason: Reason; detail: string }): string {
    return fault.reason === "memory" ? `${fault.detail}; it may have ${this.#limits.memoryBytes} bytes` : fault.detail;
  }

  /** Returns the arguments, integers as two's complement, if they are as many as there are parameters. */
  #fitted(name: string, parameters: readonly string[]): bigint[] {
    const given = this.#given.arguments ?? this.#task.arguments;
    if (given.length !== parameters.length) {
      const detail = `'${oneLine(name, 80)}' takes ${parameters.length} arguments, ${given.length} are given`;
      throw new GuestFault("compile", detail);
    }
    return given.map((value, index) => {
      if (parameters[index] === "i32" && (value < -(1n << 31n) || value >= 1n << 32n)) {
        throw new GuestFault("trap", `the argument ${value} does not fit into i32`);
      }
      return value;
    });
  }

  /** Makes an instance, and has its start section run; returns whether there is anything to go on with. */
  #open(): boolean {
    const { memory } = this.#about;
    if (memory && memory.minimum * PAGE_BYTES > this.#limits.memoryBytes) {
      const detail = `memory minimum size of ${memory.minimum} pages exceeds memory limits`;
      throw new GuestFault("memory", this.#said({ reason: "memory", detail }));
    }
    const startMs = performance.now();
    try {
      this.#memory = this.#memories.take(this.#about, this.#limits.memoryBytes);
      this.#beginWorld();
      const imports: WebAssembly.Imports = {};
      if (this.#memory) {
        imports[MEMORY_MODULE] = { [MEMORY_NAME]: this.#memory };
      }
      if (this.#wasi) {
        imports[WASI_MODULE] = this.#wasi.wasiImport as WebAssembly.ModuleImports;
      }
      this.#exports = new WebAssembly.Instance(this.#module, imports).exports;
    } catch (error) {
      this.#judge(error, true);
      return false;
    }
    this.#result.instantiateS = (performance.now() - startMs) / 1000;
    return true;
  }

  #beginWorld(): void {
    const { stdout, stderr } = this.#outputs;
    const task = this.#task;
    stdout.begin(this.#limits.outputBytes);
    stderr.begin(this.#limits.outputBytes);
    this.#wasi?.begin({
      args: this.#given.args ?? task.args,
      env: this.#given.env ?? task.env,
      seed: task.deterministic ? (this.#given.seed ?? task.seed) : null,
      memory: this.#about.showsMemory ? this.#memory : null,
      streams: [new Input(this.#given.stdin ?? task.stdin), new Output(stdout), new Output(stderr)],
    });
  }

  #call(name: string, callable: Callable, given: readonly bigint[]): void {
    const result = this.#result;
    const entry = this.#exports[name] as (...given: unknown[]) => unknown;
    const { initializer } = this.#about;
    try {
      if (!this.#task.entry) {
        entry();
        result.exitCode = 0;
        return;
      }
      if (initializer && initializer !== name) {
        (this.#exports[initializer] as () => void)();
      }
      const { parameters, result: type } = callable;
      const returned = needsTrampoline(callable)
        ? throughTrampoline(callable, entry)(...given)
        : entry(...given.map((value, index) => (parameters[index] === "i32" ? Number(value) : value)));
      result.value = type === null ? null : BigInt(returned as number | bigint);
      result.isFloat = type?.startsWith("f") ?? false;
    } catch (error) {
      this.#judge(error, false);
    }
  }

  /** Returns when the guest exited with 0; otherwise throws what its end means. */
  #judge(error: unknown, isStarting: boolean): void {
    if (error instanceof WASIProcExit) {
      this.#result.exitCode = error.code;
      if (error.code) {
        throw new GuestFault("exit", `exit code ${error.code}`);
      }
      return;
    }
    if (error instanceof GuestEnd) {
      throw new GuestFault("trap", oneLine(error.detail));
    }
    if (error instanceof WebAssembly.RuntimeError || isStackOverflow(error)) {
      throw new GuestFault("trap", trapOf(error));
    }
    if (error instanceof RangeError && isStarting) {
      throw new GuestFault("memory", this.#said({ reason: "memory", detail: lineOf(error) }));
    }
    throw new GuestFault(isStarting ? "compile" : "trap", lineOf(error));
  }

  #measure(): void {
    const { memoryBytes, showsMemory } = this.#about;
    if (memoryBytes !== null) {
      this.#result.memoryBytes = memoryBytes;
    } else if (showsMemory && this.#memory) {
      this.#result.memoryBytes = this.#memory.buffer.byteLength;
    }
  }
}
