// What a guest may use at most in this sandbox, whatever its task asks for.
//
// Holds the maxima and how a request is held to them. Must not know who enforces them.

/** A worker.Limits as it came: 0 means the default, more than the maximum the maximum. */
export interface AskedLimits {
  durationSeconds: number;
  memoryBytes: number;
  outputBytes: number;
  cpuSeconds: number;
  fuel: number;
}

export const NO_LIMITS: AskedLimits = { durationSeconds: 0, memoryBytes: 0, outputBytes: 0, cpuSeconds: 0, fuel: 0 };

/** What one run may use: 0 is no default any more. */
export interface RunLimits {
  /** Wall clock. */
  durationS: number;
  /** Linear memory. */
  memoryBytes: number;
  /** Of stdout and of stderr, each. */
  outputBytes: number;
}

/** What a sandbox takes and gives. */
export interface SandboxConfig {
  durationDefaultS: number;
  /** Wall clock of one run. */
  durationMaxS: number;
  /** Linear memory of one run, and the default. */
  memoryBytesMax: number;
  outputBytesDefault: number;
  /** Of stdout and of stderr, each. */
  outputBytesMax: number;
  /** All that one run is given: stdin, args and env. */
  inputBytesMax: number;
  /** Size of one module. */
  moduleBytesMax: number;
  compileMaxS: number;
  /** Compiled modules that are kept. */
  modulesMax: number;
  /** Bytes of the modules that they were compiled from, together. */
  modulesBytesMax: number;
  /** What one slot holds of runs that wait: inputs, and outcomes that nobody has asked for, each. */
  heldBytesMax: number;
  /** Seconds that a run which is to stop has to come to its end by itself, before its thread is ended. */
  graceS: number;
}

export const DEFAULTS: SandboxConfig = {
  durationDefaultS: 60,
  durationMaxS: 3600,
  memoryBytesMax: 1 << 30,
  outputBytesDefault: 64 << 10,
  outputBytesMax: 32 << 20,
  inputBytesMax: 64 << 20,
  moduleBytesMax: 64 << 20,
  compileMaxS: 60,
  modulesMax: 16,
  modulesBytesMax: 128 << 20,
  heldBytesMax: 64 << 20,
  graceS: 0.05,
};

/** Resolves what a task asks for. */
export function limitsOf(asked: AskedLimits, config: SandboxConfig): RunLimits {
  const memoryBytes = held(asked.memoryBytes, config.memoryBytesMax, config.memoryBytesMax);
  return {
    durationS: held(asked.durationSeconds, config.durationDefaultS, config.durationMaxS),
    memoryBytes,
    outputBytes: held(asked.outputBytes, config.outputBytesDefault, config.outputBytesMax),
  };
}

function held(asked: number, otherwise: number, most: number): number {
  return Math.min(asked > 0 ? asked : otherwise, most);
}
