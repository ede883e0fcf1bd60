// What ends a guest, and what that is called.
//
// Holds the names of traps, which are wasmtime's, and what the engines of browsers say in their place. Must not know
// runs. Sources: V8 messages (WasmTrap...), SpiderMonkey js.msg, JavaScriptCore WasmExceptionType.h.

import { oneLine } from "./failure";

/** Thrown by a function of ours to end the guest by a trap. */
export class GuestEnd {
  readonly detail: string;

  constructor(detail: string) {
    this.detail = detail;
  }
}

/**
 * V8 says of a call by table one thing where wasmtime has two, until version 13, and so of a float that is no integer:
 * what is more common of the two stands here.
 */
const TRAPS: readonly (readonly [RegExp, string])[] = [
  [/unreachable/i, "unreachable"],
  [/call stack|too much recursion|stack overflow/i, "stack_overflow"],
  [/(divide|remainder|division|modulo).*zero/i, "integer_division_by_zero"],
  [/divide result unrepresentable|integer overflow|division.*overflow/i, "integer_overflow"],
  [/invalid conversion to integer/i, "bad_conversion_to_integer"],
  [/float unrepresentable|out of bounds trunc|out-of-range/i, "integer_overflow"],
  [/null function|indirect call to null|null table entry|null entry/i, "indirect_call_to_null"],
  [/signature/i, "bad_signature"],
  [/(table|element).*(out of bounds|out of range)|out of bounds.*(table|call_indirect)/i, "table_out_of_bounds"],
  [/(memory|data).*out of bounds|out of bounds.*memory|index out of bounds/i, "memory_out_of_bounds"],
];

/** Returns what a trap of the engine is called. */
export function trapOf(error: unknown): string {
  const said = error instanceof Error ? error.message : String(error);
  return TRAPS.find(([pattern]) => pattern.test(said))?.[1] ?? oneLine(said);
}

/** Whether what was thrown says that the stack was at its end, which the guest's own calls or ours may have met. */
export function isStackOverflow(error: unknown): boolean {
  const isOurs = error instanceof RangeError || (error instanceof Error && error.name === "InternalError");
  return isOurs && /call stack|too much recursion/i.test(error.message);
}
