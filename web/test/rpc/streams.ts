// Two ends of a stream in memory, for tests: bytes come in order, in a later turn, cut as the test likes.
import type { ByteReceiver, ByteStream } from "../../src/rpc/bytes";

export class End implements ByteStream {
  far!: End;
  written: Uint8Array[] = [];
  closedBecause: string | null = null;
  #receiver: ByteReceiver | null = null;

  /** pieceBytes: how bytes are cut on their way. */
  constructor(readonly pieceBytes: number) {}

  static pair(pieceBytes = 1 << 20): [End, End] {
    const ends: [End, End] = [new End(pieceBytes), new End(pieceBytes)];
    [ends[0].far, ends[1].far] = [ends[1], ends[0]];
    return ends;
  }

  start(receiver: ByteReceiver): void {
    this.#receiver = receiver;
  }

  write(bytes: Uint8Array): void {
    if (this.closedBecause !== null) return;
    this.written.push(bytes);
    setTimeout(() => this.far.deliver(bytes));
  }

  deliver(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += this.pieceBytes) {
      if (this.closedBecause === null) this.#receiver?.received(bytes.slice(at, at + this.pieceBytes));
    }
  }

  close(reason: string): void {
    if (this.closedBecause !== null) return;
    this.closedBecause = reason;
    setTimeout(() => this.far.end());
  }

  end(): void {
    this.#receiver?.ended("the other end closed");
  }
}
