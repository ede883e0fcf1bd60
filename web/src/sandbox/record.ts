// What a run is given beyond what its task's other runs are, and how it ended, as bytes.
//
// Holds the records that schema/worker.capnp describes, as ww/records.py does. Must not know who runs what. Whatever a
// stranger wrote is read with a usage failure at what is no record.

import { Failure } from "./failure";
import { NO_BYTES, REASONS, type Reason, type Result } from "./invocation";

/** A record longer than this goes by reference. */
export const LARGE_BYTES = 1 << 20;
const BY_REFERENCE = 0xffffffff;
const ARGUMENTS = 1;
const ARGS = 2;
const ENV = 4;
const STDIN = 8;
const FILES = 16;
const SEED = 32;
const NAME = 64;
const ALL = 127;
const ARGUMENTS_MAX = 1000;
const HAS_RESULT = 1;
const IS_FLOAT = 2;
const HAS_EXIT = 4;
const STDOUT_CUT = 8;
const STDERR_CUT = 16;
/** Of an outcome's record, beside its output, artifacts and detail. */
export const OUTCOME_BYTES = 112;

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const ENCODER = new TextEncoder();

/** What one run is given in place of what its task says; absent: what that says. */
export interface Input {
  arguments?: readonly bigint[];
  args?: readonly string[];
  env?: readonly (readonly [string, string])[];
  stdin?: Uint8Array;
  files?: Uint8Array;
  seed?: bigint;
  /** For people, and nothing to a worker. */
  name?: string;
}

export const SAME: Input = Object.freeze({});

function bad(what: string): Failure {
  return new Failure("usage", `inputs: ${what}`);
}

class Cursor {
  at: number;
  readonly end: number;
  readonly #data: Uint8Array;
  readonly #view: DataView;

  constructor(data: Uint8Array, start: number, end: number) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.at = start;
    this.end = end;
  }

  #take(size: number): number {
    if (size > this.end - this.at) {
      throw bad("an input record is cut off");
    }
    this.at += size;
    return this.at - size;
  }

  uint16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  int64(): bigint {
    return this.#view.getBigInt64(this.#take(8), true);
  }

  uint64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  bytes(): Uint8Array {
    const length = this.#view.getUint32(this.#take(4), true);
    const start = this.#take(length);
    return this.#data.subarray(start, start + length);
  }

  text(): string {
    try {
      return UTF8.decode(unshared(this.bytes()));
    } catch (error) {
      throw error instanceof Failure ? error : bad("an input record's texts are not UTF-8");
    }
  }

  texts(): string[] {
    const texts = this.text().split("\0");
    if (texts.pop() !== "") {
      throw bad("a text is not ended");
    }
    return texts;
  }
}

/** TextDecoder takes nothing that is shared with another thread. */
function unshared(data: Uint8Array): Uint8Array<ArrayBuffer> {
  return data.buffer instanceof ArrayBuffer ? (data as Uint8Array<ArrayBuffer>) : data.slice();
}

/** Reads the record in data from start, behind its length, to end. stdin and files are parts of data. */
export function readInput(data: Uint8Array, start = 4, end = data.length): Input {
  if (!(start < end && end <= data.length)) {
    throw bad("an input record is empty");
  }
  const flags = data[start]!;
  const cursor = new Cursor(data, start + 1, end);
  const input: Input = {};
  if (flags > ALL) {
    throw bad("an input record has an unknown flag");
  }
  if (flags & ARGUMENTS) {
    const count = cursor.uint16();
    if (count > ARGUMENTS_MAX) {
      throw bad(`${count} arguments are given, at most ${ARGUMENTS_MAX} are taken`);
    }
    input.arguments = Array.from({ length: count }, () => cursor.int64());
  }
  if (flags & ARGS) {
    input.args = cursor.texts();
  }
  if (flags & ENV) {
    input.env = pairs(cursor.texts());
  }
  if (flags & STDIN) {
    input.stdin = cursor.bytes();
  }
  if (flags & FILES) {
    input.files = cursor.bytes();
  }
  if (flags & SEED) {
    input.seed = cursor.uint64();
  }
  if (flags & NAME) {
    input.name = cursor.text();
  }
  if (cursor.at !== end) {
    throw bad("an input record has another length than it says");
  }
  return input;
}

function pairs(texts: readonly string[]): [string, string][] {
  if (texts.length % 2) {
    throw bad("env has a name without a value");
  }
  return Array.from({ length: texts.length / 2 }, (_, index) => [texts[2 * index]!, texts[2 * index + 1]!]);
}

/** Returns a record, its length included. The texts hold no zero characters. */
export function writeInput(given: Input): Uint8Array {
  const parts: Uint8Array[] = [];
  let flags = 0;
  const add = (flag: number, ...added: Uint8Array[]) => {
    flags |= flag;
    parts.push(...added);
  };
  const sized = (data: Uint8Array) => [numbers(4, (view) => view.setUint32(0, data.length, true)), data];
  const ended = (texts: readonly string[]) => sized(ENCODER.encode(texts.map((text) => `${text}\0`).join("")));
  if (given.arguments !== undefined) {
    const values = given.arguments;
    const write = (view: DataView) => {
      view.setUint16(0, values.length, true);
      values.forEach((value, index) => view.setBigInt64(2 + 8 * index, value, true));
    };
    add(ARGUMENTS, numbers(2 + 8 * values.length, write));
  }
  if (given.args !== undefined) {
    add(ARGS, ...ended(given.args));
  }
  if (given.env !== undefined) {
    add(ENV, ...ended(given.env.flat()));
  }
  if (given.stdin !== undefined) {
    add(STDIN, ...sized(given.stdin));
  }
  if (given.files !== undefined) {
    add(FILES, ...sized(given.files));
  }
  if (given.seed !== undefined) {
    const seed = given.seed;
    add(SEED, numbers(8, (view) => view.setBigUint64(0, seed, true)));
  }
  if (given.name) {
    add(NAME, ...sized(ENCODER.encode(given.name)));
  }
  const body = concatenated([Uint8Array.of(flags), ...parts]);
  return concatenated(sized(body));
}

function numbers(size: number, write: (view: DataView) => void): Uint8Array {
  const data = new Uint8Array(size);
  write(new DataView(data.buffer));
  return data;
}

export function concatenated(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Where a record is: behind its length, and its end. What is by reference is empty. */
export type Span = readonly [start: number, end: number];

/** Returns where each input record in data is, of at most `most`. */
export function spansOf(data: Uint8Array, most: number): Span[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const spans: Span[] = [];
  for (let at = 0; at < data.length; ) {
    if (spans.length === most) {
      throw bad(`a group has at most ${most} runs`);
    }
    if (data.length - at < 4) {
      throw bad("a record is cut off");
    }
    const length = view.getUint32(at, true);
    at += 4;
    if (length === BY_REFERENCE) {
      spans.push([at, at]);
      continue;
    }
    if (length === 0) {
      throw bad("an input record is empty");
    }
    if (length > data.length - at) {
      throw bad("a record is cut off");
    }
    spans.push([at, at + length]);
    at += length;
  }
  if (!spans.length) {
    throw bad("a group has at least one run");
  }
  return spans;
}

/** What is told of a run beside its result. */
export interface Told {
  memoryLimitBytes: number;
  /** Seconds that it waited at the worker. */
  queueS: number;
  /** Seconds of those that its module was compiled in. */
  compileS: number;
}

/** Returns the record of the end of the run at that place of a group. */
export function writeOutcome(place: number, result: Result, told: Told): Uint8Array<ArrayBuffer> {
  const detail = result.detail ? ENCODER.encode(result.detail) : NO_BYTES;
  const { stdout, stderr } = result;
  const size = OUTCOME_BYTES + stdout.length + stderr.length + detail.length;
  const data = new Uint8Array(size);
  const view = new DataView(data.buffer);
  view.setUint32(0, size - 4, true);
  view.setUint32(4, place, true);
  view.setUint8(8, REASONS.indexOf(result.reason));
  view.setUint8(9, flagsOf(result));
  view.setUint32(12, result.exitCode ?? 0, true);
  view.setBigInt64(16, result.value ?? 0n, true);
  // Numbers below 2^53, in two halves: cheaper than bigints.
  uint64(view, 24, result.memoryBytes);
  uint64(view, 32, told.memoryLimitBytes);
  view.setFloat64(56, result.wallS, true);
  view.setFloat64(64, result.instantiateS, true);
  view.setFloat64(72, result.cpuS, true);
  view.setFloat64(80, told.queueS, true);
  view.setFloat64(88, told.compileS, true);
  view.setUint32(96, stdout.length, true);
  view.setUint32(100, stderr.length, true);
  view.setUint32(108, detail.length, true);
  data.set(stdout, OUTCOME_BYTES);
  data.set(stderr, OUTCOME_BYTES + stdout.length);
  data.set(detail, size - detail.length);
  return data;
}

function uint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function flagsOf(result: Result): number {
  let flags = 0;
  if (result.value !== null) {
    flags = result.isFloat ? HAS_RESULT | IS_FLOAT : HAS_RESULT;
  }
  if (result.exitCode !== null) {
    flags |= HAS_EXIT;
  }
  if (result.stdoutCut) {
    flags |= STDOUT_CUT;
  }
  return result.stderrCut ? flags | STDERR_CUT : flags;
}

/** An outcome record, read: what tests and figures need. */
export interface ReadOutcome extends Result {
  place: number;
  memoryLimitBytes: number;
  queueS: number;
  compileS: number;
}

/** Reads outcome records that this sandbox wrote. */
export function readOutcomes(data: Uint8Array): ReadOutcome[] {
  const found: ReadOutcome[] = [];
  for (let at = 0; at < data.length; ) {
    const view = new DataView(data.buffer, data.byteOffset + at);
    found.push(readOutcome(data, at, view));
    at += 4 + view.getUint32(0, true);
  }
  return found;
}

function readOutcome(data: Uint8Array, at: number, view: DataView): ReadOutcome {
  const flags = view.getUint8(9);
  let from = at + OUTCOME_BYTES;
  const take = (sizeAt: number) => {
    const size = view.getUint32(sizeAt, true);
    from += size;
    return data.slice(from - size, from);
  };
  const stdout = take(96);
  const stderr = take(100);
  take(104);
  return {
    place: view.getUint32(4, true),
    reason: REASONS[view.getUint8(8)] as Reason,
    value: flags & HAS_RESULT ? view.getBigInt64(16, true) : null,
    isFloat: (flags & IS_FLOAT) !== 0,
    exitCode: flags & HAS_EXIT ? view.getUint32(12, true) : null,
    stdoutCut: (flags & STDOUT_CUT) !== 0,
    stderrCut: (flags & STDERR_CUT) !== 0,
    memoryBytes: Number(view.getBigUint64(24, true)),
    memoryLimitBytes: Number(view.getBigUint64(32, true)),
    wallS: view.getFloat64(56, true),
    instantiateS: view.getFloat64(64, true),
    cpuS: view.getFloat64(72, true),
    queueS: view.getFloat64(80, true),
    compileS: view.getFloat64(88, true),
    stdout,
    stderr,
    detail: new TextDecoder().decode(take(108)),
  };
}
