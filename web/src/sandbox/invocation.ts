// What a run is given, and how it ended: the terms that all of this folder share.
//
// Holds plain data alone. Must not know Cap'n Proto, workers or WebAssembly. Reasons are those of schema/worker.capnp.

import { Failure } from "./failure";
import type { AskedLimits } from "./limits";

/** worker.Reason, in its order. */
export const REASONS = [
  "ok",
  "trap",
  "exit",
  "deadline",
  "memory",
  "compile",
  "crash",
  "cancelled",
  "cpu",
  "fuel",
  "files",
  "artifacts",
] as const;
export type Reason = (typeof REASONS)[number];

/** What all runs of a task have in common, as worker.Invocation says it. */
export interface Invocation {
  /** Exported function; empty for a command. */
  entry: string;
  /** Of entry: numbers for i32 and i64, the bits of a float64 for f32 and f64. */
  arguments: readonly bigint[];
  args: readonly string[];
  /** Names and values. */
  env: readonly (readonly [string, string])[];
  stdin: Uint8Array;
  limits: AskedLimits;
  deterministic: boolean;
  /** Of a deterministic run's random numbers, unsigned. */
  seed: bigint;
  /** What no run here has: files, artifacts, folders, Python code. Any of it is refused. */
  files?: Uint8Array;
  artifacts?: readonly string[];
  dirs?: readonly string[];
  code?: Uint8Array;
}

/** How one run ended. */
export interface Result {
  reason: Reason;
  /** One line for people. */
  detail: string;
  /** What entry returned, in the form of Invocation.arguments. */
  value: bigint | null;
  isFloat: boolean;
  exitCode: number | null;
  stdout: Uint8Array;
  stderr: Uint8Array;
  stdoutCut: boolean;
  stderrCut: boolean;
  /** Linear memory at the end, which is its peak; 0 where the guest does not show it. */
  memoryBytes: number;
  /** From the start of the instance to its end. */
  wallS: number;
  instantiateS: number;
  /** What the thread took that ran it: a browser tells of no processor time. */
  cpuS: number;
}

export const NO_BYTES = new Uint8Array(0);

export function newResult(reason: Reason = "ok", detail = ""): Result {
  return {
    reason,
    detail,
    value: null,
    isFloat: false,
    exitCode: null,
    stdout: NO_BYTES,
    stderr: NO_BYTES,
    stdoutCut: false,
    stderrCut: false,
    memoryBytes: 0,
    wallS: 0,
    instantiateS: 0,
    cpuS: 0,
  };
}

const ARGUMENTS_MAX = 1000;
const TEXTS_MAX = 65_536;

/** Throws a usage failure when no guest of this sandbox could be given an invocation. */
export function checkInvocation(invocation: Invocation): void {
  const { files, artifacts, dirs, code, limits } = invocation;
  if (files?.length || artifacts?.length || dirs?.length) {
    throw new Failure("usage", "files, artifacts and dirs: this worker has no file system for guests");
  }
  if (code?.length) {
    throw new Failure("usage", "code: this worker runs no Python guests");
  }
  if (limits.fuel > 0) {
    throw new Failure("usage", "fuel: this worker does not count it");
  }
  if (limits.cpuSeconds > 0) {
    throw new Failure("usage", "cpuSeconds: this worker cannot tell processor time");
  }
  counted("arguments", invocation.arguments, ARGUMENTS_MAX);
  counted("args", invocation.args, TEXTS_MAX);
  counted("env", invocation.env, TEXTS_MAX);
  // They are ended by zeros on their way to the guest.
  if ([...invocation.args, ...invocation.env.flat()].some((text) => text.includes("\0"))) {
    throw new Failure("usage", "args and env hold no zero characters");
  }
}

function counted(what: string, given: readonly unknown[], most: number): void {
  if (given.length > most) {
    throw new Failure("usage", `${what}: ${given.length} are given, at most ${most} are taken`);
  }
}
