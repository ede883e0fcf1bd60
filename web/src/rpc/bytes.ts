// What carries a connection: bytes in order both ways. Knows nothing of what they mean. websocket.ts is one.

/** Bytes to and from one peer. */
export interface ByteStream {
  /** Queue bytes for the peer. They must not change afterwards. Nothing happens when the stream is closed. */
  write(bytes: Uint8Array): void;
  /** Close it; what was written before still goes out. Idempotent. */
  close(reason: string): void;
  /** Hand everything to a receiver from now on, what came before included. Called once. */
  start(receiver: ByteReceiver): void;
}

/** Whoever takes what comes by a stream. */
export interface ByteReceiver {
  /** Take bytes; they are the receiver's to keep. */
  received(bytes: Uint8Array): void;
  /** Nothing comes any more. Called once. */
  ended(reason: string): void;
}

/** Bytes that crossed a stream so far. */
export interface Traffic {
  readonly sentBytes: number;
  readonly receivedBytes: number;
}
