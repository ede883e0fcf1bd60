// Slots with real threads: what stops a run, and what becomes of those around it.
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";

import { Control } from "../../src/sandbox/control";
import type { Invocation } from "../../src/sandbox/invocation";
import { NO_LIMITS } from "../../src/sandbox/limits";
import type { ToThread } from "../../src/sandbox/message";
import { concatenated, type Input, type ReadOutcome, readOutcomes, writeInput } from "../../src/sandbox/record";
import { type LargeInput, type RunningGroup, Sandbox, type Slot } from "../../src/sandbox/sandbox";
import { MemoryStore } from "../../src/sandbox/store";
import { digestOf, guest, invocation, source } from "./guests";
import { type NodePort, spawnNode } from "./node_port";
import { bundledSlot } from "./threads";

let path = "";
let sandboxes: Sandbox[] = [];
let ports: NodePort[] = [];
let controls: Control[] = [];

beforeAll(async () => {
  path = await bundledSlot();
}, 60_000);

afterEach(() => {
  sandboxes.forEach((sandbox) => sandbox.close());
  sandboxes = [];
  ports = [];
  controls = [];
  vi.unstubAllGlobals();
});

function newSandbox(config = {}): Sandbox {
  const spawn = () => {
    const port = spawnNode(path);
    ports.push(port);
    const post = (message: unknown, transfer?: Transferable[]) => {
      const said = message as ToThread;
      if (said.type === "begin" && said.control) {
        controls.push(new Control(said.control));
      }
      port.post(message, transfer);
    };
    return { ...port, post };
  };
  const sandbox = new Sandbox(spawn, new MemoryStore(), config);
  sandboxes.push(sandbox);
  return sandbox;
}

type Start = (
  name: string,
  task: Partial<Invocation>,
  inputs: readonly Input[],
  large?: LargeInput[],
) => Promise<RunningGroup>;

/** A sandbox with one slot, and a way to start groups on it. */
function slotOf(sandbox = newSandbox()): { sandbox: Sandbox; slot: Slot; start: Start } {
  const slot = sandbox.newSlot();
  const start: Start = async (name, task, inputs, large) => {
    const data = guest(name);
    const program = await sandbox.prepare(digestOf(data), source(data).fetch, task.deterministic ?? false);
    const references = (large ?? []).map(() => Uint8Array.of(255, 255, 255, 255));
    const records = concatenated([...inputs.map(writeInput), ...references]);
    return slot.start({ program, task: invocation(task), inputs: records, large });
  };
  return { sandbox, slot, start };
}

async function outcomes(group: RunningGroup): Promise<ReadOutcome[]> {
  const found: ReadOutcome[] = [];
  for (let ended = false; !ended; ) {
    await group.wait();
    const taken = group.take();
    found.push(...[taken.outcomes, ...taken.large].flatMap((records) => readOutcomes(records)));
    ended = taken.ended;
  }
  return found.sort((one, other) => one.place - other.place);
}

const SPIN = { arguments: [0n, 0n] };
const QUICK = { arguments: [1n, 0n] };
const spinning = (durationSeconds: number) => ({ entry: "run", limits: { ...NO_LIMITS, durationSeconds } });
const reasons = (found: readonly ReadOutcome[]) => found.map(({ reason }) => reason);

describe.each(["with", "without"])("a slot %s shared memory", (shared) => {
  function newSlot() {
    if (shared === "without") {
      vi.stubGlobal("SharedArrayBuffer", undefined);
    }
    return slotOf();
  }

  test("a run that does not end is stopped at its deadline, and those behind it go on", async () => {
    const { start } = newSlot();
    const found = await outcomes(await start("spin", spinning(0.2), [QUICK, SPIN, QUICK]));
    expect(reasons(found)).toEqual(["ok", "deadline", "ok"]);
    expect(found[1]!.detail).toMatch(/^ran for \d+\.\d+ s, it may for 0\.2 s$/);
    expect(found[1]!.wallS).toBeGreaterThanOrEqual(0.2);
  });

  test("what is cancelled stops or never begins, and the rest goes on", async () => {
    const { start, slot } = newSlot();
    const group = await start("spin", spinning(60), [QUICK, SPIN, QUICK, QUICK]);
    await group.wait();
    group.cancel([1, 3]);
    expect(reasons(await outcomes(group))).toEqual(["ok", "cancelled", "ok", "cancelled"]);
    // What was taken back is not counted: somebody else runs it, or nobody.
    expect([slot.ended, slot.failed]).toEqual([2, 0]);
  });

  test("groups run in the order in which they came, and a group that is closed leaves the slot", async () => {
    const { start, slot } = newSlot();
    const first = await start("spin", spinning(60), [SPIN]);
    const second = await start("noop", { entry: "run", arguments: [5n, 0n] }, Array(64).fill({}) as Input[]);
    await second.over(20);
    expect(second.isFinished).toBe(false);
    expect(slot.figures.busy).toBe(true);
    first.close();
    const found = await outcomes(second);
    expect(found.map(({ value }) => value)).toEqual(Array(64).fill(5n));
    expect(slot.ended).toBeGreaterThanOrEqual(64);
  });
});

test("what a run had written when it was stopped is told", async () => {
  const { start } = slotOf();
  const task = { entry: "stdout", arguments: [0n, 0n], limits: { ...NO_LIMITS, durationSeconds: 0.2, outputBytes: 1000 } };
  const data = guest("hostile", "floods");
  const sandbox = sandboxes[0]!;
  const program = await sandbox.prepare(digestOf(data), source(data).fetch, false);
  const group = sandbox.newSlot().start({ program, task: invocation(task), inputs: writeInput({}) });
  const [found] = await outcomes(group);
  expect([found!.reason, found!.stdout.length, found!.stdoutCut, found!.stderrCut]).toEqual(["deadline", 1000, true, false]);
  expect(reasons(await outcomes(await start("noop", { entry: "run" }, [QUICK])))).toEqual(["ok"]);
});

test("inputs by reference are waited for, and not by the runs before them", async () => {
  const { start } = slotOf();
  const record = writeInput({ stdin: new Uint8Array(2 << 20).fill(120) }).subarray(4);
  let give = () => {};
  const given = new Promise<void>((resolve) => {
    give = resolve;
  });
  const large: LargeInput = {
    size: async () => record.length,
    bytes: async function* () {
      await given;
      yield record;
    },
  };
  const limits = { ...NO_LIMITS, outputBytes: 4 << 20 };
  const group = await start("echo", { limits }, [{ stdin: Uint8Array.of(1) }], [large]);
  await group.wait();
  expect(readOutcomes(group.take().outcomes).map(({ place }) => place)).toEqual([0]);
  give();
  await group.wait();
  const taken = group.take();
  expect(taken.ended).toBe(true);
  expect(readOutcomes(taken.large[0]!)[0]!.stdout.length).toBe(2 << 20);
});

test("an input that cannot be read ends its group with why", async () => {
  const { start } = slotOf();
  const large: LargeInput = {
    size: async () => 10,
    bytes: async function* () {
      yield new Uint8Array(11);
    },
  };
  const group = await start("echo", {}, [], [large]);
  await group.over(10_000);
  expect(() => group.take()).toThrow("more than the 10 bytes");
});

test("a thread that dies takes its run with it, and no other", async () => {
  const { start } = slotOf();
  const group = await start("spin", spinning(60), [QUICK, SPIN, QUICK]);
  await vi.waitFor(() => expect(controls[0]!.running?.place).toBe(1));
  ports[0]!.die();
  const found = await outcomes(group);
  expect(reasons(found)).toEqual(["ok", "crash", "ok"]);
  expect(found[1]!.detail).toContain("the thread that ran it ended");
});

test("a slot takes no more runs than it may have, and none that no guest here could be given", async () => {
  const { start } = slotOf();
  const many = Array(256).fill({}) as Input[];
  const groups = [await start("spin", spinning(60), [SPIN])];
  for (let times = 0; times < 7; times++) {
    groups.push(await start("noop", { entry: "run", arguments: [1n, 0n] }, many));
  }
  await expect(start("noop", { entry: "run" }, many)).rejects.toMatchObject({ code: "overloaded" });
  for (const given of [{ files: Uint8Array.of(1) }, { dirs: ["d"] }, { code: Uint8Array.of(1) }, { args: ["a\0b"] }]) {
    await expect(start("echo", given, [{}])).rejects.toMatchObject({ code: "usage" });
  }
  groups.forEach((group) => group.close());
  expect(reasons(await outcomes(await start("noop", { entry: "run" }, [QUICK])))).toEqual(["ok"]);
});

test("outcomes that nobody takes hold up the runs behind them, until somebody does", async () => {
  const { start } = slotOf(newSandbox({ heldBytesMax: 100_000 }));
  const inputs = Array(200).fill({ stdin: new Uint8Array(10_000) }) as Input[];
  const group = await start("echo", {}, inputs.slice(0, 5));
  expect((await outcomes(group)).length).toBe(5);
  const larger = await start("echo", {}, inputs.slice(0, 9));
  const other = await start("echo", {}, inputs.slice(0, 9));
  await larger.over(10_000);
  expect(larger.isFinished).toBe(true);
  expect((await outcomes(larger)).length + (await outcomes(other)).length).toBe(18);
});
