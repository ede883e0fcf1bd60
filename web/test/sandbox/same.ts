// Runs guests as whoever started it says, for tests/web/test_sandbox_same.py: a JSON line for each group on stdin, one for
// its outcomes on stdout. Records go both ways as they are.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";

import { Failure } from "../../src/sandbox/failure";
import type { Invocation } from "../../src/sandbox/invocation";
import { concatenated } from "../../src/sandbox/record";
import { Sandbox, type Slot } from "../../src/sandbox/sandbox";
import { MemoryStore } from "../../src/sandbox/store";
import { spawnNode } from "./node_port";

interface Asked {
  module: string;
  metered: boolean;
  inputs: string;
  task: Omit<Invocation, "arguments" | "seed" | "stdin"> & { arguments: string[]; seed: string; stdin: string };
}

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, "base64"));

async function run(sandbox: Sandbox, slot: Slot, asked: Asked): Promise<string> {
  const data = bytesOf(asked.module);
  const digest = new Uint8Array(createHash("sha256").update(data).digest());
  const fetch = async function* () {
    yield data;
  };
  const program = await sandbox.prepare(digest, fetch, asked.metered);
  const { arguments: given, seed, stdin, ...rest } = asked.task;
  const task = { ...rest, arguments: given.map(BigInt), seed: BigInt(seed), stdin: bytesOf(stdin) };
  const group = slot.start({ program, task, inputs: bytesOf(asked.inputs) });
  const records: Uint8Array[] = [];
  for (let ended = false; !ended; ) {
    await group.wait();
    const taken = group.take();
    records.push(taken.outcomes, ...taken.large);
    ended = taken.ended;
  }
  return JSON.stringify({ outcomes: Buffer.from(concatenated(records)).toString("base64") });
}

async function main(): Promise<void> {
  const threadPath = new URL("slot.mjs", import.meta.url).pathname;
  const sandbox = new Sandbox(() => spawnNode(threadPath), new MemoryStore(), { memoryBytesMax: 256 << 20 });
  const slot = sandbox.newSlot();
  for await (const line of createInterface({ input: process.stdin })) {
    const said = await run(sandbox, slot, JSON.parse(line) as Asked).catch((error: unknown) => {
      const code = error instanceof Failure ? error.code : "error";
      return JSON.stringify({ code, message: (error as Error).message });
    });
    process.stdout.write(`${said}\n`);
  }
  process.exit(0);
}

void main();
