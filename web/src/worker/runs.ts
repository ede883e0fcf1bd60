// What all runs of one task have in common, on one slot.
//
// Holds the server of schema interface Runs, and inputs that are by reference. Must not know how groups are followed:
// group.ts does.

import { type CallContext, capabilitiesOf, CapabilityError, keep, release, serve } from "../rpc";
import type { Invocation } from "../sandbox/invocation";
import type { LargeInput } from "../sandbox/sandbox";
import type { Blob$Client, Runs$Client, Runs_Start$Params, Runs_Start$Results } from "../schema/worker";
import { Blob, Runs } from "../schema/worker";
import { fetchBlob, sizeOf } from "./blob";
import { answerStart } from "./group";
import { refuseCalls } from "./invocation";
import type { Lease, Loaded } from "./lease";

const GROUP_MAX = 256;

export function serveRuns(lease: Lease, program: Loaded, task: Invocation): Runs$Client {
  const forget = lease.keepTask(task);
  const drop = lease.hold();
  return serve(Runs, {
    async start(params: Runs_Start$Params, results: Runs_Start$Results, call: CallContext): Promise<void> {
      refuseCalls(params);
      const large = largeOf(params);
      const over = new AbortController();
      const letGo = () => {
        over.abort();
        large.splice(0).forEach((blob) => release(blob));
      };
      try {
        // A copy: the message lives no longer than the call.
        const inputs = params.inputs.toUint8Array().slice();
        const group = await lease.start(program, task, inputs, large.map((blob) => inputOf(blob, over.signal)));
        await answerStart(lease, group, results, call, letGo);
      } catch (error) {
        letGo();
        throw error;
      }
    },
    released(): void {
      forget();
      drop();
    },
  });
}

function largeOf(params: Runs_Start$Params): Blob$Client[] {
  const { length } = params.large;
  if (length > GROUP_MAX) {
    throw new CapabilityError("usage", `large: ${length} are given, at most ${GROUP_MAX} are taken`);
  }
  return capabilitiesOf(params.large, Blob).map((blob) => keep(blob));
}

/** A group whose input never comes, and is given up, may not hold up those behind it. */
function inputOf(blob: Blob$Client, signal: AbortSignal): LargeInput {
  return { size: () => sizeOf(blob, signal), bytes: () => fetchBlob(blob, Number.MAX_SAFE_INTEGER, signal) };
}
