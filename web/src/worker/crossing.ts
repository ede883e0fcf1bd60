// What goes wrong in the sandbox, as the gateway is told it.
//
// Holds that translation alone.

import { CapabilityError } from "../rpc";
import { Failure } from "../sandbox/failure";

/** Does something of the sandbox's; its failures cross the connection as what they are. */
export async function crossing<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof Failure ? new CapabilityError(error.code, error.message) : error;
  }
}
