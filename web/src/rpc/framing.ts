// Messages in a stream of bytes: cut out of what comes, and made into what goes. Holds the limits on what one may be;
// knows nothing of what messages mean. Source: capnproto.org/encoding.html, serialization over a stream.
import * as $ from "capnp-es";

/** Bytes of one message, with its table of segments. */
export const MESSAGE_BYTES_MAX = 64 << 20;
const SEGMENTS_MAX = 512;
// Each pointer that is followed takes 8 of these, again whenever it is followed: what a hostile message may cost.
const TRAVERSAL_MAX = 16 << 20;
const MULTI_SEGMENT = 1;

/** Bytes came that are no messages. */
export class NoMessage extends Error {}

/** Cuts messages out of bytes, which come cut anywhere. */
export class MessageReader {
  #table = new Uint8Array(8);
  #tableFilled = 0;
  #buffers: ArrayBuffer[] | null = null;
  #filling = 0;
  #filled = 0;
  #bytes = 0;

  /** Take bytes and give each message that they complete, with its size. Throws NoMessage. */
  push(bytes: Uint8Array, take: (message: $.Message, size: number) => void): void {
    let at = 0;
    while (at < bytes.length || this.#isComplete()) {
      if (this.#buffers === null) {
        at += this.#readTable(bytes, at);
      } else if (this.#isComplete()) {
        const [buffers, size] = [this.#buffers, this.#bytes];
        this.#buffers = null;
        this.#tableFilled = 0;
        this.#table = new Uint8Array(8);
        take(messageOf(buffers), size);
      } else {
        at += this.#fill(bytes, at);
      }
    }
  }

  #isComplete(): boolean {
    return this.#buffers !== null && this.#filling === this.#buffers.length;
  }

  #readTable(bytes: Uint8Array, at: number): number {
    const step = Math.min(this.#table.length - this.#tableFilled, bytes.length - at);
    this.#table.set(bytes.subarray(at, at + step), this.#tableFilled);
    this.#tableFilled += step;
    if (this.#tableFilled === this.#table.length) this.#useTable();
    return step;
  }

  #useTable(): void {
    const view = new DataView(this.#table.buffer);
    const count = view.getUint32(0, true) + 1;
    if (count > SEGMENTS_MAX) throw new NoMessage(`a message of ${count} segments; at most ${SEGMENTS_MAX} are taken`);
    const size = (4 + 4 * count + 7) & ~7;
    if (size > this.#table.length) {
      const table = new Uint8Array(size);
      table.set(this.#table);
      this.#table = table;
      return;
    }
    let total = size;
    for (let id = 0; id < count; id++) total += 8 * view.getUint32(4 + 4 * id, true);
    if (total > MESSAGE_BYTES_MAX) {
      throw new NoMessage(`a message of ${total} bytes; at most ${MESSAGE_BYTES_MAX} are taken`);
    }
    this.#buffers = Array.from({ length: count }, (_, id) => new ArrayBuffer(8 * view.getUint32(4 + 4 * id, true)));
    this.#bytes = total;
    this.#filling = this.#filled = 0;
    this.#skipFull();
  }

  #fill(bytes: Uint8Array, at: number): number {
    const buffer = this.#buffers![this.#filling];
    const step = Math.min(buffer.byteLength - this.#filled, bytes.length - at);
    new Uint8Array(buffer).set(bytes.subarray(at, at + step), this.#filled);
    this.#filled += step;
    this.#skipFull();
    return step;
  }

  #skipFull(): void {
    const buffers = this.#buffers!;
    while (this.#filling < buffers.length && this.#filled === buffers[this.#filling].byteLength) {
      this.#filling++;
      this.#filled = 0;
    }
  }
}

function messageOf(buffers: ArrayBuffer[]): $.Message {
  if (buffers[0].byteLength < 8) throw new NoMessage("a message without a root");
  // As capnp-es's arena of several segments, which it does not export: new segments are added beside what has come.
  const message = new $.Message({ kind: MULTI_SEGMENT, buffers } as never, false);
  message._capnp.traversalLimit = TRAVERSAL_MAX;
  return message;
}

/** Return a message as it goes into a stream. */
export function framed(message: $.Message): Uint8Array {
  const { segments } = message._capnp;
  const tableBytes = (4 + 4 * segments.length + 7) & ~7;
  const total = segments.reduce((sum, segment) => sum + segment.byteLength, tableBytes);
  if (total > MESSAGE_BYTES_MAX) {
    throw new NoMessage(`a message of ${total} bytes; at most ${MESSAGE_BYTES_MAX} can be sent`);
  }
  const bytes = new Uint8Array(total);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, segments.length - 1, true);
  let at = tableBytes;
  segments.forEach((segment, id) => {
    view.setUint32(4 + 4 * id, segment.byteLength / 8, true);
    bytes.set(new Uint8Array(segment.buffer, 0, segment.byteLength), at);
    at += segment.byteLength;
  });
  return bytes;
}
