// Runs under way, as their gateway follows them.
//
// Holds the server of schema interface Group, and how outcomes are put into messages. Must not know how runs are run:
// sandbox/ does.

import { type CallContext, CapabilityError, serve, setCapabilities } from "../rpc";
import type { RunningGroup } from "../sandbox/sandbox";
import type {
  Blob$Client,
  Group$Client,
  Group_Cancel$Params,
  Group_More$Params,
  Group_More$Results,
  Program_Run$Results,
  Runs_Start$Results,
} from "../schema/worker";
import { Group } from "../schema/worker";
import { serveBytes } from "./blob";
import { checkWanted, crossing } from "./crossing";
import type { Lease } from "./lease";

/** How long the answer to a group waits for its end. */
const ANSWER_WITHIN_MS = 30;
/** Outcomes of a group wait that long for others. */
const LINGER_MS = 5;
const GROUP_MAX = 256;

/** Answers the start of a group, once it has ended or soon. */
export async function answerStart(
  lease: Lease,
  group: RunningGroup,
  results: Program_Run$Results | Runs_Start$Results,
  call: CallContext,
  onEnd: () => void = () => undefined,
): Promise<void> {
  const following = new Following(lease, group, onEnd);
  try {
    await group.over(ANSWER_WITHIN_MS);
    checkWanted(call);
    if (!(await following.answer(results))) {
      results.group = serveGroup(following);
    }
  } catch (error) {
    // The connection broke, or there is nothing more to be told.
    following.close();
    throw error;
  }
}

function serveGroup(following: Following): Group$Client {
  const { group } = following;
  return serve(Group, {
    async more(_: Group_More$Params, results: Group_More$Results): Promise<void> {
      await following.room();
      await group.wait();
      if (!group.hasEnded) {
        await group.over(LINGER_MS);
      }
      await following.answer(results);
    },
    cancel(params: Group_Cancel$Params): void {
      group.cancel(placesOf(params.runs.toUint8Array()));
    },
    // When nobody holds it any more, nobody could learn the outcomes.
    released: () => following.close(),
  });
}

/** A group, and what of its outcomes the gateway holds here. */
class Following {
  readonly group: RunningGroup;
  readonly #bytesMax: number;
  readonly #onEnd: (() => void)[];
  #heldBytes = 0;
  #freed: () => void = () => undefined;

  constructor(lease: Lease, group: RunningGroup, onEnd: () => void) {
    this.group = group;
    // Its slot is in use for as long as it is, also when the gateway wants nothing else of that.
    this.#onEnd = [onEnd, lease.hold()];
    this.#bytesMax = lease.host.limits.heldBytesMax;
  }

  /** Waits until the gateway holds less: it asks for more once it has read what there was. */
  async room(): Promise<void> {
    while (this.#heldBytes > this.#bytesMax) {
      await new Promise<void>((resolve) => (this.#freed = resolve));
    }
  }

  /** Writes what has ended into an answer; returns whether that is all. */
  async answer(results: Program_Run$Results | Runs_Start$Results | Group_More$Results): Promise<boolean> {
    const { outcomes, large, ended } = await crossing(() => this.group.take());
    results._initOutcomes(outcomes.length).copyBuffer(outcomes);
    if (large.length) {
      setCapabilities(results._initLarge(large.length), large.map((record) => this.#hold(record)));
    }
    results.ended = ended;
    if (ended) {
      this.#end();
    }
    return ended;
  }

  /** Stops what is under way. Idempotent. */
  close(): void {
    this.group.close();
    this.#end();
  }

  #end(): void {
    this.#onEnd.splice(0).forEach((end) => end());
  }

  #hold(record: Uint8Array): Blob$Client {
    let size = record.length;
    this.#heldBytes += size;
    return serveBytes(record, () => {
      this.#heldBytes -= size;
      size = 0;
      this.#freed();
    });
  }
}

/** Reads uint32 each, little-endian. */
export function placesOf(data: Uint8Array): number[] {
  if (data.length % 4 || data.length > 4 * GROUP_MAX) {
    throw new CapabilityError("usage", "runs: expected uint32 each, no more than a group has");
  }
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  return Array.from({ length: data.length / 4 }, (_, index) => view.getUint32(4 * index, true));
}
