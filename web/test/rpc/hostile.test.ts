// A peer that keeps to the format and to nothing else: whatever it says, this side lives or hangs up.
import * as $ from "capnp-es";
import { Message } from "capnp-es/capnp/rpc";
import { describe, expect, it } from "vitest";

import { answered } from "../../src/rpc/calls";
import { Connection } from "../../src/rpc/connection";
import { framed } from "../../src/rpc/framing";
import { Blob, type Blob$Client } from "../../src/schema/worker";
import { End } from "./streams";

/** A connection here, and what writes messages to it as a peer would. */
function facing() {
  const [near, far] = End.pair();
  far.start({ received: () => undefined, ended: () => undefined });
  const here = new Connection(near);
  const say = (fill: (root: Message) => void) => {
    const message = new $.Message();
    fill(message.initRoot(Message));
    far.write(framed(message));
  };
  /** Answers the first question with a promise of that number. */
  const promise = (id: number) =>
    say((root) => {
      const payload = root._initReturn()._initResults();
      payload._initCapTable(1).get(0).senderPromise = id;
      $.utils.setInterfacePointer(0, payload.content);
    });
  const resolve = (promiseId: number, to: number) =>
    say((root) => {
      const resolved = root._initResolve();
      resolved.promiseId = promiseId;
      resolved._initCap().senderPromise = to;
    });
  return { here, say, promise, resolve };
}

describe("a peer that means ill", () => {
  it.each([
    { steps: [[1, 1]] },
    {
      steps: [
        [1, 2],
        [2, 1],
      ],
    },
  ])("is hung up on when its promises come to each other: $steps", async ({ steps }) => {
    const { here, promise, resolve } = facing();
    const blob = new Blob.Client(here.bootstrap()) as Blob$Client;
    promise(1);
    for (const [from, to] of steps) resolve(from!, to!);
    // Followed, it would never end.
    expect(await here.closed).toContain("to itself");
    await expect(answered(blob.size())).rejects.toMatchObject({ code: "disconnected" });
  });
});
