// Invocations as the gateway sends them, as plain data.
//
// Holds the translation from schema/worker.capnp to sandbox/invocation.ts, and how much a task holds here. Must not know
// who asks or who runs. What a stranger says of lengths is looked at before the lists are read.

import { CapabilityError, isNull } from "../rpc";
import type { Invocation } from "../sandbox/invocation";
import type { Calls$Client, Invocation as Message } from "../schema/worker";

const ARGUMENTS_MAX = 1000;
const TEXTS_MAX = 65_536;

interface Listed<T> {
  readonly length: number;
  get(index: number): T;
}

/** Reads an Invocation. Throws "usage" when it is none that a guest could be given. */
export function readInvocation(message: Message): Invocation {
  const { limits } = message;
  return {
    entry: message.entry,
    arguments: listed("arguments", message.arguments, ARGUMENTS_MAX),
    args: listed("args", message.args, TEXTS_MAX),
    env: listed("env", message.env, TEXTS_MAX).map(({ key, value }): [string, string] => [key, value]),
    // A copy: the message that it is in lives no longer than the call.
    stdin: message.stdin.toUint8Array().slice(),
    limits: {
      durationSeconds: limits.durationSeconds,
      memoryBytes: Number(limits.memoryBytes),
      outputBytes: Number(limits.outputBytes),
      cpuSeconds: limits.cpuSeconds,
      fuel: Number(limits.fuel),
    },
    deterministic: message.deterministic,
    seed: message.seed,
    files: message.files.toUint8Array().slice(0, 1),
    artifacts: listed("artifacts", message.artifacts, TEXTS_MAX),
    dirs: listed("dirs", message.dirs, TEXTS_MAX),
    code: message.code.toUint8Array().slice(0, 1),
  };
}

/** Refuses runs that are granted calls: only Python guests make any, which this worker lacks. */
export function refuseCalls(params: { readonly calls: Calls$Client }): void {
  if (!isNull(params.calls)) {
    throw new CapabilityError("usage", "calls: this worker runs no guests that make any");
  }
}

/** Returns roughly what a task's invocation takes while it is kept. */
export function sizeOfInvocation(invocation: Invocation): number {
  const texts = [...invocation.args, ...invocation.env.flat()];
  return 1024 + invocation.stdin.length + texts.reduce((size, text) => size + 2 * text.length + 32, 0);
}

/** Returns a message's list, of at most `most` elements. Elements may have no size on the wire, so they are counted first. */
function listed<T>(what: string, list: Listed<T>, most: number): T[] {
  const { length } = list;
  if (length > most) {
    throw new CapabilityError("usage", `${what}: ${length} are given, at most ${most} are taken`);
  }
  return Array.from({ length }, (_, index) => list.get(index));
}
