import { describe, expect, it, vi } from "vitest";
import { answered, cancel } from "../../src/rpc/calls";
import { type Handlers, keep, release, serve } from "../../src/rpc/capability";
import { Connection } from "../../src/rpc/connection";
import { CapabilityError } from "../../src/rpc/errors";
import { setCapabilities, capabilitiesOf, isNull } from "../../src/rpc/values";
import {
  Blob,
  Group,
  Runs,
  type Blob$Client,
  type Runs$Client,
  type Runs$Server$Target,
} from "../../src/schema/worker";
import { End } from "./streams";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Two connections that talk to each other; `serving` answers the other's first calls. */
function talking(handlers: Handlers<Runs$Server$Target>, pieceBytes?: number) {
  const [near, far] = End.pair(pieceBytes);
  const there = new Connection(far, serve(Runs, handlers).client);
  const here = new Connection(near);
  return { here, there, near, far, runs: new Runs.Client(here.bootstrap()) as Runs$Client };
}

function started(runs: Runs$Client, words: string, ...large: Blob$Client[]) {
  return runs.start((params) => {
    const bytes = new TextEncoder().encode(words);
    params._initInputs(bytes.length).copyBuffer(bytes);
    setCapabilities(params._initLarge(large.length), large);
  });
}

function counting(sizes: number[]): Blob$Client {
  return serve(Blob, {
    size(_params, results) {
      sizes.push(sizes.length);
      results.bytes = BigInt(sizes.length);
    },
    read() {
      throw new CapabilityError("not_found", "nothing to read");
    },
  });
}

describe("a connection", () => {
  it.each([1 << 20, 3])("carries calls, results and failures, cut every %i bytes", async (pieceBytes) => {
    const { runs } = talking(
      {
        start(params, results) {
          if (params.inputs.length === 0) throw new CapabilityError("usage", "nothing given");
          results._initOutcomes(params.inputs.length).copyBuffer(params.inputs.toUint8Array());
        },
      },
      pieceBytes,
    );
    expect(text((await answered(started(runs, "hello"))).outcomes.toUint8Array())).toBe("hello");
    await expect(answered(started(runs, ""))).rejects.toMatchObject({ code: "usage", message: "nothing given" });
  });

  it("keeps the order of calls on what comes back to its owner", async () => {
    // The first calls go by way of the peer, since nobody knows yet whose the capability is; the last ones need not.
    const seen: string[] = [];
    const group = serve(Group, {
      more: () => void seen.push("more"),
      cancel: (params) => void seen.push(String(params.runs.get(0))),
    });
    let kept: Blob$Client | null = null;
    const there = talking({
      async start(params, results) {
        if (params.large.length) {
          kept = keep(capabilitiesOf(params.large, Blob)[0]);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
        results.group = new Group.Client(kept!.client) as typeof group;
      },
    });
    await answered(started(there.runs, "", new Blob.Client(group.client) as Blob$Client));
    const asking = started(there.runs, "");
    const early = asking.getGroup();
    const cancelled = (which: number, of: typeof early) =>
      answered(of.cancel((params) => params._initRuns(1).set(0, which)));
    const calls = [0, 1, 2].map((which) => cancelled(which, early));
    const answer = await answered(asking);
    const late = [3, 4].map((which) => cancelled(which, answer.group));
    const later = [5].map((which) => cancelled(which, early));
    await Promise.all([...calls, ...late, ...later]);
    expect(seen).toEqual(["0", "1", "2", "3", "4", "5"]);
  });

  it("lets go of what nobody refers to any more, and says so to who serves it", async () => {
    const released = vi.fn();
    const { runs, there } = talking({
      start(_params, results) {
        results.group = serve(Group, { more() {}, cancel() {}, released });
      },
    });
    const answer = await answered(started(runs, ""));
    const second = keep(answer.group);
    release(answer);
    await expect(answered(answer.group.more())).rejects.toMatchObject({ code: "usage" });
    await answered(second.more());
    expect(released).not.toHaveBeenCalled();
    release(second);
    await vi.waitFor(() => expect(released).toHaveBeenCalledOnce());
    const third = await answered(started(runs, ""));
    expect(isNull(third.group)).toBe(false);
    there.close();
    await vi.waitFor(() => expect(released).toHaveBeenCalledTimes(2));
  });

  it("tells who serves a call that it was given up, and lets go of the results that nobody gets", async () => {
    const released = vi.fn();
    let seen: AbortSignal | null = null;
    let goOn = () => {};
    const { runs } = talking({
      async start(_params, results, context) {
        seen = context.signal;
        await new Promise<void>((resolve) => (goOn = resolve));
        results.group = serve(Group, { more() {}, cancel() {}, released });
      },
    });
    const calling = started(runs, "");
    const failing = expect(answered(calling)).rejects.toMatchObject({ code: "cancelled" });
    await vi.waitFor(() => expect(seen).not.toBeNull());
    cancel(calling);
    await failing;
    await vi.waitFor(() => expect(seen!.aborted).toBe(true));
    goOn();
    await vi.waitFor(() => expect(released).toHaveBeenCalledOnce());
  });

  it("fails what is under way when it ends, on both sides", async () => {
    let seen: AbortSignal | null = null;
    const { runs, here, there } = talking({
      start(_params, _results, context) {
        seen = context.signal;
        return new Promise(() => {});
      },
    });
    const failing = expect(answered(started(runs, ""))).rejects.toMatchObject({ code: "disconnected" });
    await vi.waitFor(() => expect(seen).not.toBeNull());
    here.close("enough");
    await failing;
    expect(await here.closed).toBe("enough");
    expect(await there.closed).toBe("the other end closed");
    expect(seen!.aborted).toBe(true);
    await expect(answered(started(runs, ""))).rejects.toMatchObject({ code: "disconnected" });
  });

  it("survives whatever comes: it goes on, or is closed", async () => {
    const sizes: number[] = [];
    const silent = vi.spyOn(console, "error").mockImplementation(() => {});
    const recorded = await conversation(sizes);
    let random = 1;
    const next = (below: number) => {
      random = (Math.imul(random, 1103515245) + 12345) >>> 0;
      return Math.floor((random / 2 ** 32) * below);
    };
    let closed = 0;
    for (let round = 0; round < 1500; round++) {
      const [end, far] = End.pair();
      const connection = new Connection(end, counting([]).client);
      void connection.closed.then(() => closed++);
      const bytes = recorded.map((part) => part.slice());
      for (let spoilt = 0; spoilt <= round % 4; spoilt++) {
        const part = bytes[next(bytes.length)];
        part[next(round % 2 ? 64 : part.length)] = next(256);
      }
      if (round % 5 === 0) bytes.splice(next(bytes.length), 1);
      if (round % 7 === 0) bytes.push(Uint8Array.from({ length: 4096 }, () => next(256)));
      for (const part of bytes) end.deliver(part);
      far.closedBecause = "ignored";
      if (round % 100 === 0) await new Promise((resolve) => setTimeout(resolve));
      connection.close();
    }
    await vi.waitFor(() => expect(closed).toBe(1500));
    silent.mockRestore();
  }, 60_000);
});

/** Return what one side of a conversation writes. */
async function conversation(sizes: number[]): Promise<Uint8Array[]> {
  const { runs, near } = talking({
    async start(params, results) {
      for (const blob of capabilitiesOf(params.large, Blob)) await answered(blob.size());
      results.group = serve(Group, { more() {}, cancel() {} });
    },
  });
  const asking = started(runs, "words", counting(sizes), counting(sizes));
  await answered(asking.getGroup().more());
  const answer = await answered(asking);
  await answered(started(runs, "more words"));
  release(answer, runs);
  await new Promise((resolve) => setTimeout(resolve, 5));
  return near.written;
}
