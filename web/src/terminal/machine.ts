// What differs between Deno and Node: threads, and what is told of the machine.
//
// Holds that alone. Nothing is asked for that was not granted: Deno would ask whoever sits at the terminal.

import { availableParallelism, hostname, totalmem } from "node:os";
import process from "node:process";
import type { SlotPort, SpawnSlot } from "../sandbox/port";
import { portOf } from "../worker/threads";

interface DenoGlobal {
  readonly permissions: { querySync(asked: { name: string; kind?: string; variable?: string }): { state: string } };
}

const deno = (globalThis as { Deno?: DenoGlobal }).Deno;

export const KIND = deno ? "deno" : "node";

/** Where the machine's may not be asked for: as much as a tab claims. */
const MEMORY_BYTES_CLAIMED = 4 * 2 ** 30;

/** Beside this file, wherever that was loaded from. Not a literal: it is built on its own. */
const here = import.meta.url;
const slotUrl = () => new URL("./slot.mjs", here);

/** Returns what starts a slot's thread. */
export async function slotSpawner(): Promise<SpawnSlot> {
  if (deno) {
    return () => portOf(new Worker(slotUrl(), { type: "module" }));
  }
  const { Worker: Thread } = await import("node:worker_threads");
  return () => {
    const thread = new Thread(slotUrl());
    const port: SlotPort = {
      post: (message, transfer) => thread.postMessage(message, (transfer ?? []) as never[]),
      onMessage: (hear) => thread.on("message", hear),
      onError: (hear) => {
        thread.on("error", (error: Error) => hear(error.message || "its thread failed"));
        thread.on("messageerror", () => hear("its thread said what nobody can read"));
        thread.on("exit", () => hear("its thread ended"));
      },
      terminate: () => {
        thread.removeAllListeners();
        thread.on("error", () => undefined);
        void thread.terminate();
      },
    };
    return port;
  };
}

export const cores = (): number => (deno ? navigator.hardwareConcurrency : availableParallelism());

/** Never 0: no run that says what memory it needs would come here. */
export const memoryBytes = (): number => (isGranted("systemMemoryInfo") ? totalmem() : MEMORY_BYTES_CLAIMED);

export const hostName = (): string => (isGranted("hostname") ? hostname() : "");

/** Returns a variable of the environment, where that may be read, and reads as little as that. */
export function variable(name: string): string | undefined {
  if (deno && deno.permissions.querySync({ name: "env", variable: name }).state !== "granted") {
    return undefined;
  }
  return process.env[name];
}

function isGranted(kind: string): boolean {
  return !deno || deno.permissions.querySync({ name: "sys", kind }).state === "granted";
}
