// What goes wrong around a run, as opposed to in it: that is an outcome.
//
// Holds one class, whose codes are those of ww/errors.py. Must not know how it crosses a connection.

export type FailureCode = "usage" | "bad_module" | "overloaded" | "store" | "closed" | "draining";

/** A call that failed, in one line for people. */
export class Failure extends Error {
  readonly code: FailureCode;

  constructor(code: FailureCode, message: string) {
    super(message);
    this.name = "Failure";
    this.code = code;
  }
}

/** Makes text that a stranger wrote fit for a message: printable, one line, of bounded length. */
export function oneLine(text: string, charactersMax = 300): string {
  return text.slice(0, charactersMax).replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, "?");
}

/** Returns what an unknown error says, in one line. */
export function lineOf(error: unknown): string {
  return oneLine(error instanceof Error ? error.message : String(error)) || "unknown";
}
