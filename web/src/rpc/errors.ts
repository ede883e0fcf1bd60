// What a call fails with, and how that crosses a connection: as a code and one line, in the form of ww/rpc/errors.py.
// Knows nothing of connections.

const ENCODED = /^[^]{0,200}?ww:([a-z_]{1,40}): ([^]*)$/;
const CHARACTERS_MAX = 400;

/** The kinds of exceptions that rpc.capnp has. */
export const FAILED = 0;
export const OVERLOADED = 1;
export const DISCONNECTED = 2;
export const UNIMPLEMENTED = 3;

/** A call failed. `code` is one of ww/errors.py: usage, not_found, disconnected, overloaded, bad_module, ... */
export class CapabilityError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "CapabilityError";
  }
}

/** The connection is gone, or closing. */
export class Disconnected extends CapabilityError {
  constructor(message = "the connection to the peer is gone") {
    super("disconnected", message);
    this.name = "Disconnected";
  }
}

/** A call was given up by who made it. */
export class Cancelled extends CapabilityError {
  constructor(message = "the call was given up") {
    super("cancelled", message);
    this.name = "Cancelled";
  }
}

/** Make text that a stranger wrote printable, one line, of bounded length. */
export function oneLine(text: string): string {
  const line = text.slice(0, CHARACTERS_MAX + 1).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ");
  return line.length <= CHARACTERS_MAX ? line : `${line.slice(0, CHARACTERS_MAX)}...`;
}

/** Return what a peer is told of an error: what was thrown on purpose, and nothing but a code for everything else. */
export function encoded(error: unknown): string {
  if (error instanceof CapabilityError) return `ww:${error.code}: ${oneLine(error.message)}`;
  return "ww:remote: the peer failed to answer; its log says why";
}

/** Return what a peer meant by an exception. */
export function decoded(kind: number, reason: string): CapabilityError {
  if (kind === DISCONNECTED) return new Disconnected();
  if (kind === UNIMPLEMENTED) {
    return new CapabilityError("protocol_mismatch", "the peer does not know this call: it runs another version of ww");
  }
  const found = ENCODED.exec(reason);
  if (found === null) return new CapabilityError("remote", oneLine(reason));
  return new CapabilityError(found[1], oneLine(found[2]));
}
