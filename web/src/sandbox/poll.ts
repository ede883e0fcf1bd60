// poll_oneoff: waiting for clocks and descriptors.
//
// Holds the reading of subscriptions, the waiting, the writing of events. What WASI leaves open is as ww/sandbox/
// wasi_poll.py has it. A guest that waits for ever is ended from outside. Source: WASI preview 1, poll_oneoff.

import { wasi } from "@bjorn3/browser_wasi_shim";

import type { VirtualClock } from "./determinism";
import type { GuestMemory } from "./guest_memory";

const SUBSCRIPTION_BYTES = 48;
const EVENT_BYTES = 32;
const SUBSCRIPTIONS_MAX = 512;
/** What a timer of 32 bits can hold, in milliseconds. */
const WAIT_MAX_MS = 2 ** 31 - 1;

/** What poll_oneoff asks of the functions around it. */
export interface PollHost {
  readonly memory: GuestMemory;
  /** Of a deterministic run. */
  readonly clock: VirtualClock | null;
  /** The time that the guest reads on that clock, in nanoseconds. */
  guestNowNs(clock: number): bigint;
  /** Whether there is a descriptor to read, or to write. */
  isOpen(fd: number, isInput: boolean): boolean;
}

interface Waiting {
  userdata: bigint;
  type: number;
  /** Of a clock: when it rings, by hostNowNs. */
  dueNs: bigint | null;
}

/** Sleeps in this thread without using the processor, where the page may. */
function sleepMs(milliseconds: number): void {
  if (typeof SharedArrayBuffer !== "undefined") {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
    return;
  }
  for (const end = performance.now() + milliseconds; performance.now() < end; );
}

function hostNowNs(host: PollHost): bigint {
  return host.clock ? host.clock.elapsedNs : BigInt(Math.round(performance.now() * 1e6));
}

export function pollOneoff(host: PollHost, given: number, out: number, count: number, result: number): number {
  if (count === 0) {
    return wasi.ERRNO_INVAL;
  }
  if (count > SUBSCRIPTIONS_MAX) {
    return wasi.ERRNO_NOMEM;
  }
  const { memory } = host;
  memory.checkFor("poll_oneoff", given, SUBSCRIPTION_BYTES * count, 8);
  memory.checkFor("poll_oneoff", out, EVENT_BYTES * count, 8);
  memory.checkFor("poll_oneoff", result, 4, 4);
  const waiting: Waiting[] = [];
  const elapsedNs = hostNowNs(host);
  for (let index = 0; index < count; index++) {
    const read = subscription(host, given + SUBSCRIPTION_BYTES * index, elapsedNs);
    if (typeof read === "number") {
      return read;
    }
    waiting.push(read);
  }
  const events = happened(host, waiting);
  events.forEach((event, index) => writeEvent(memory.view, out + EVENT_BYTES * index, event));
  memory.view.setUint32(result, events.length, true);
  return wasi.ERRNO_SUCCESS;
}

/** Reads what the guest waits for, or returns an errno. */
function subscription(host: PollHost, at: number, elapsedNs: bigint): Waiting | number {
  const { view } = host.memory;
  const userdata = view.getBigUint64(at, true);
  const type = view.getUint8(at + 8);
  const subject = view.getUint32(at + 16, true);
  if (type > wasi.EVENTTYPE_FD_WRITE) {
    return wasi.ERRNO_INVAL;
  }
  if (type !== wasi.EVENTTYPE_CLOCK) {
    const isThere = host.isOpen(subject, type === wasi.EVENTTYPE_FD_READ);
    return isThere ? { userdata, type, dueNs: null } : wasi.ERRNO_BADF;
  }
  const timeoutNs = view.getBigUint64(at + 24, true);
  const flags = view.getUint16(at + 40, true);
  if (subject > wasi.CLOCKID_MONOTONIC || flags > wasi.SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME) {
    return wasi.ERRNO_INVAL;
  }
  if (!flags) {
    return { userdata, type, dueNs: elapsedNs + timeoutNs };
  }
  // The guest's clock first: what passes between the two makes the wait longer, never shorter.
  const started = host.guestNowNs(subject);
  return { userdata, type, dueNs: hostNowNs(host) + timeoutNs - started };
}

/** Waits for the first of them, and returns all that there are: descriptors are always ready. */
function happened(host: PollHost, waiting: readonly Waiting[]): Waiting[] {
  const clocks = waiting.flatMap(({ dueNs }) => (dueNs === null ? [] : [dueNs]));
  if (clocks.length === waiting.length) {
    waitUntil(host, clocks.reduce((first, due) => (due < first ? due : first)));
  }
  const elapsedNs = hostNowNs(host);
  return waiting.filter(({ dueNs }) => dueNs === null || dueNs <= elapsedNs);
}

function waitUntil(host: PollHost, dueNs: bigint): void {
  if (host.clock) {
    host.clock.sleepUntil(dueNs);
    return;
  }
  for (let leftNs = dueNs - hostNowNs(host); leftNs > 0n; leftNs = dueNs - hostNowNs(host)) {
    sleepMs(Math.min(Number(leftNs) / 1e6, WAIT_MAX_MS));
  }
}

function writeEvent(view: DataView, at: number, event: Waiting): void {
  const isClock = event.type === wasi.EVENTTYPE_CLOCK;
  view.setBigUint64(at, event.userdata, true);
  view.setUint16(at + 8, wasi.ERRNO_SUCCESS, true);
  view.setUint8(at + 10, event.type);
  for (let padding = 11; padding < 16; padding++) {
    view.setUint8(at + padding, 0);
  }
  view.setBigUint64(at + 16, isClock ? 0n : 1n, true);
  view.setBigUint64(at + 24, 0n, true);
}
