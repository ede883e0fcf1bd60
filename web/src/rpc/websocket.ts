// A WebSocket as a stream of bytes. Holds what waits to be sent, and the messages that come before there are bytes;
// knows nothing of what any of it means.
import type { ByteReceiver, ByteStream, Traffic } from "./bytes";
import { CapabilityError, Disconnected, oneLine } from "./errors";

/** Bytes of one message that is sent; longer ones are cut. */
const MESSAGE_BYTES_MAX = 256 << 10;
/** Bytes that may wait for a peer that takes nothing. */
const WAITING_BYTES_MAX = 128 << 20;
/** Of what comes before there are bytes: characters of a text, texts, and bytes that come early. */
const TEXT_MAX = 4096;
const TEXTS_MAX = 4;
const EARLY_BYTES_MAX = 1 << 20;
// What is written while the handlers of what came go on in turn leaves together.
const TURNS = 8;
const NORMAL = 1000;
const EXPLAIN_MS = 3000;
const UPGRADE_REQUIRED = 426;

/** A WebSocket that is open. */
export class SocketStream implements ByteStream, Traffic {
  sentBytes = 0;
  receivedBytes = 0;
  readonly #socket: WebSocket;
  readonly #texts: string[] = [];
  readonly #early: Uint8Array[] = [];
  #receiver: ByteReceiver | null = null;
  #expecting: { resolve(text: string): void; reject(error: unknown): void } | null = null;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #ended: string | null = null;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => this.#take(event.data);
    socket.onclose = ({ reason, code }) => this.#end(reason ? oneLine(reason) : `the connection was closed (${code})`);
  }

  /** Connect. Rejects with CapabilityError when nothing answers, or the signal gives it up. */
  static open(url: string, signal?: AbortSignal): Promise<SocketStream> {
    if (typeof WebSocket === "undefined") {
      const expected = "expected a browser, Deno, or Node 22 (20: --experimental-websocket)";
      throw new CapabilityError("usage", `no WebSocket here: ${expected}`);
    }
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      const giveUp = () => {
        reject(new CapabilityError("cancelled", "connecting was given up"));
        socket.close();
      };
      if (signal?.aborted) return giveUp();
      signal?.addEventListener("abort", giveUp, { once: true });
      socket.onerror = () => void whyNot(url).then(reject);
      socket.onopen = () => {
        signal?.removeEventListener("abort", giveUp);
        socket.onerror = null;
        resolve(new SocketStream(socket));
      };
    });
  }

  /** Send a text, before there are bytes. */
  say(text: string): void {
    if (this.#ended === null) this.#socket.send(text);
  }

  /** Return the next text, before there are bytes. */
  hear(): Promise<string> {
    return new Promise((resolve, reject) => {
      const text = this.#texts.shift();
      if (text !== undefined) resolve(text);
      else if (this.#ended !== null) reject(new Disconnected(this.#ended));
      else this.#expecting = { resolve, reject };
    });
  }

  start(receiver: ByteReceiver): void {
    this.#receiver = receiver;
    for (const bytes of this.#early.splice(0)) receiver.received(bytes);
    if (this.#ended !== null) receiver.ended(this.#ended);
  }

  write(bytes: Uint8Array): void {
    if (this.#ended !== null) return;
    if (this.#waiting.length === 0) this.#flushAfter(TURNS);
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes + this.#socket.bufferedAmount > WAITING_BYTES_MAX) {
      this.close(`the peer takes nothing: ${WAITING_BYTES_MAX} bytes wait for it`);
    }
  }

  close(reason: string): void {
    if (this.#ended !== null) return;
    this.#flush();
    this.#socket.close(NORMAL);
    this.#end(reason);
  }

  #flushAfter(turns: number): void {
    queueMicrotask(() => (turns > 0 ? this.#flushAfter(turns - 1) : this.#flush()));
  }

  #flush(): void {
    if (this.#ended !== null || this.#waitingBytes === 0) return;
    const waiting = this.#waiting;
    const bytes = waiting.length === 1 ? waiting[0] : joined(waiting, this.#waitingBytes);
    this.#waiting = [];
    this.#waitingBytes = 0;
    for (let at = 0; at < bytes.length; at += MESSAGE_BYTES_MAX) {
      this.#socket.send(bytes.subarray(at, at + MESSAGE_BYTES_MAX) as Uint8Array<ArrayBuffer>);
    }
    this.sentBytes += bytes.length;
  }

  #take(data: string | ArrayBuffer): void {
    if (this.#ended !== null) return;
    if (typeof data === "string") return this.#takeText(data);
    this.receivedBytes += data.byteLength;
    const bytes = new Uint8Array(data);
    if (this.#receiver !== null) this.#receiver.received(bytes);
    else if (this.receivedBytes > EARLY_BYTES_MAX) this.close("the gateway sends bytes before it was asked");
    else this.#early.push(bytes);
  }

  #takeText(text: string): void {
    if (this.#receiver !== null) return this.close("the gateway sent text where bytes were expected");
    if (text.length > TEXT_MAX || this.#texts.length >= TEXTS_MAX) {
      return this.close("the gateway sends too much at first");
    }
    if (this.#expecting === null) {
      this.#texts.push(text);
      return;
    }
    const { resolve } = this.#expecting;
    this.#expecting = null;
    resolve(text);
  }

  #end(reason: string): void {
    if (this.#ended !== null) return;
    this.#ended = reason;
    this.#waiting = [];
    this.#expecting?.reject(new Disconnected(reason));
    this.#expecting = null;
    this.#receiver?.ended(reason);
  }
}

/** Find out why there is no WebSocket: programs are not told, but the same address says so over HTTP. */
async function whyNot(url: string): Promise<CapabilityError> {
  let why = "no gateway answers there, or it refuses a WebSocket";
  try {
    const answer = await fetch(url.replace(/^ws/, "http"), { signal: AbortSignal.timeout(EXPLAIN_MS) });
    const { detail, code } = (await answer.json()) as { detail?: unknown; code?: unknown };
    if (answer.status !== UPGRADE_REQUIRED && typeof detail === "string" && typeof code === "string") {
      return new CapabilityError(code, oneLine(detail));
    }
  } catch (error) {
    why = reasonOf(error) ?? why;
  }
  return new CapabilityError("peer", `${url}: ${why}`);
}

/** Say why a request failed, where it is known: Deno and Node tell, each in its own way; browsers do not. */
export function reasonOf(error: unknown): string | null {
  const cause: unknown = error instanceof Error ? error.cause : undefined;
  if (!(cause instanceof Error)) return null;
  const { code } = cause as { code?: unknown };
  const said = `${typeof code === "string" ? code : ""} ${cause.message}`;
  if (/wrong.version.number|InvalidContentType/i.test(said)) return "it speaks no TLS: expected http:// there";
  if (/other side closed|connection closed before/i.test(said)) {
    return "it closes the connection: https:// may be expected there";
  }
  // Deno says what it did, and then the reason.
  const reason = oneLine(cause.message.replace(/^.*client error \(\w+\): /, ""));
  return /certificate|_CERT_|UNABLE_TO_/i.test(said) ? `its certificate is not trusted (see --ca): ${reason}` : reason;
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
