// Bytes by reference: read in pieces from whoever has them, and served from memory.
//
// Holds both sides of schema interface Blob. Must not know what the bytes are.

import { answered, CapabilityError, serve } from "../rpc";
import type { Blob$Client, Blob_Read$Params, Blob_Read$Results, Blob_Size$Results } from "../schema/worker";
import { Blob } from "../schema/worker";

const READ_BYTES_MAX = 1 << 20;
const PIECE_BYTES = 256 << 10;
/** Reads under way at once, so that a round trip costs no bandwidth. */
const WINDOW = 4;
const SERVED_TIMES_MAX = 2;

/** Returns how many bytes a blob says it has. */
export async function sizeOf(blob: Blob$Client, signal?: AbortSignal): Promise<number> {
  const size = (await answered(blob.size(), signal)).bytes;
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new CapabilityError("usage", `a blob of ${size} bytes: nobody takes as many`);
  }
  return Number(size);
}

/**
 * Yields a remote blob's bytes in order. Throws "usage" when it has more than bytesMax, "peer" when less than it said.
 * The signal gives it up.
 */
export async function* fetchBlob(
  blob: Blob$Client,
  bytesMax: number,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const size = await sizeOf(blob, signal);
  if (size > bytesMax) {
    throw new CapabilityError("usage", `a blob of ${size} bytes: at most ${bytesMax} are taken`);
  }
  const stop = new AbortController();
  const over = signal ? AbortSignal.any([stop.signal, signal]) : stop.signal;
  const underWay: { count: number; piece: Promise<Uint8Array> }[] = [];
  let asked = 0;
  try {
    while (asked < size || underWay.length) {
      while (asked < size && underWay.length < WINDOW) {
        const count = Math.min(PIECE_BYTES, size - asked);
        const piece = read(blob, asked, count, over);
        // One that fails while another is waited for is told when it is its turn.
        piece.catch(() => undefined);
        underWay.push({ count, piece });
        asked += count;
      }
      const { count, piece } = underWay.shift()!;
      const data = await piece;
      if (data.length !== count) {
        throw new CapabilityError("peer", `a blob ended early: ${data.length} bytes came where ${count} were asked for`);
      }
      yield data;
    }
  } finally {
    stop.abort();
  }
}

async function read(blob: Blob$Client, offset: number, count: number, signal: AbortSignal): Promise<Uint8Array> {
  const reading = blob.read((params) => {
    params.offset = BigInt(offset);
    params.count = count;
  });
  const data = (await answered(reading, signal)).data.toUint8Array();
  // A part of its message, which may be much larger, and would be kept with it.
  return data.buffer.byteLength > 2 * data.length ? data.slice() : data;
}

/** Serves bytes in memory, for as long as somebody holds it; onReleased when nobody does. */
export function serveBytes(data: Uint8Array, onReleased: () => void): Blob$Client {
  let servedBytes = 0;
  return serve(Blob, {
    size(_: unknown, results: Blob_Size$Results): void {
      results.bytes = BigInt(data.length);
    },
    read(params: Blob_Read$Params, results: Blob_Read$Results): void {
      const { count } = params;
      if (count > READ_BYTES_MAX) {
        throw new CapabilityError("usage", `a read of ${count} bytes: at most ${READ_BYTES_MAX} a call`);
      }
      const offset = params.offset < BigInt(data.length) ? Number(params.offset) : data.length;
      const piece = data.subarray(offset, offset + count);
      // Answers wait in memory for a peer that does not read them: one that asks for ever is not answered for ever.
      servedBytes += piece.length;
      if (servedBytes > SERVED_TIMES_MAX * data.length + READ_BYTES_MAX) {
        throw new CapabilityError("overloaded", "this blob was read over and over: ask for it anew");
      }
      results._initData(piece.length).copyBuffer(piece);
    },
    released: onReleased,
  });
}
