// What goes wrong here, as the gateway is told it.
//
// Holds that translation alone.

import { type CallContext, Cancelled, CapabilityError } from "../rpc";
import { Failure } from "../sandbox/failure";

/** Does something of the sandbox's; its failures cross the connection as what they are. */
export async function crossing<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof Failure ? new CapabilityError(error.code, error.message) : error;
  }
}

/** Throws when nobody waits for a call's results any more. */
export function checkWanted(call: CallContext): void {
  if (call.signal.aborted) {
    throw new Cancelled();
  }
}
