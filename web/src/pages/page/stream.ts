// Follows a stream of server-sent events by fetch, since EventSource sends no Authorization. Comes back by itself, with backoff
// and the last event's id; says in which state it is. Lets go of it while nobody sees the page: over HTTP/1.1 a browser has six
// connections to a gateway, and when tabs in the background hold them all, nothing more of it loads. Must not know what the
// events mean.
import type { Gateway } from "./gateway";
import { Problem, problemFrom } from "./problem";
import { EventParser } from "./sse";

export type StreamState = "connecting" | "live" | "reconnecting" | "ended" | "refused";

export interface Listener {
  /** An event's data, which is JSON. */
  event(type: string, data: unknown): void;
  state(state: StreamState, detail: string): void;
}

const FIRST_DELAY_MS = 500;
const DELAY_MS_MAX = 15_000;
// The gateway sends a comment every 15 s: after two of those and a bit, nobody is there any more.
const SILENCE_MS_MAX = 40_000;
// A stream that breaks off sooner than that is one more failure in a row.
const SOUND_AFTER_MS = 5_000;
// Who looks at another tab for a moment finds this one as it was.
const UNSEEN_MS_MAX = 1_000;

/** How long to wait before the n-th attempt in a row, from 1; random is from 0 to 1. */
export function backoff(attempt: number, random: number, retryAfterSeconds = 0): number {
  const most = Math.min(DELAY_MS_MAX, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return Math.max(most * (0.5 + random / 2), retryAfterSeconds * 1000);
}

export class EventStream {
  readonly #gateway: Gateway;
  readonly #path: string;
  readonly #listener: Listener;
  readonly #stop = new AbortController();
  #isComplete = false;
  #lastId = "";
  #attempt = 0;

  constructor(gateway: Gateway, path: string, listener: Listener) {
    this.#gateway = gateway;
    this.#path = path;
    this.#listener = listener;
    void this.#follow();
  }

  /** Say that the stream's end, when it comes, is the end. */
  complete(): void {
    this.#isComplete = true;
  }

  close(): void {
    this.#stop.abort();
  }

  async #follow(): Promise<void> {
    this.#listener.state("connecting", "");
    for (; !this.#stop.signal.aborted; await this.#seen()) {
      const began = performance.now();
      const problem = await this.#read().catch(problemFrom);
      this.#attempt = performance.now() - began > SOUND_AFTER_MS ? 1 : this.#attempt + 1;
      if (this.#stop.signal.aborted) {
        return;
      }
      if (this.#isComplete) {
        this.#listener.state("ended", "");
        return;
      }
      if (problem && !problem.isPassing) {
        this.#listener.state("refused", problem.detail);
        return;
      }
      if (document.hidden) {
        this.#attempt = 0;
        continue;
      }
      this.#listener.state("reconnecting", problem?.detail ?? "the stream ended");
      await this.#pause(backoff(this.#attempt, Math.random(), problem?.retryAfter));
    }
  }

  async #read(): Promise<Problem | null> {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
    const unseen = new Unseen();
    const signal = AbortSignal.any([this.#stop.signal, silence.signal, unseen.signal]);
    try {
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (this.#lastId) {
        headers["Last-Event-ID"] = this.#lastId;
      }
      const response = await this.#gateway.request(this.#path, { headers, signal });
      if (response.status === 204 || !response.body) {
        this.#isComplete = true;
        return null;
      }
      this.#listener.state("live", "");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) {
          return null;
        }
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
        for (const event of parser.feed(value)) {
          this.#lastId = event.id;
          this.#listener.event(event.type, JSON.parse(event.data));
        }
      }
    } catch (error) {
      if (silence.signal.aborted) {
        return new Problem("nothing came for a while");
      }
      throw error;
    } finally {
      clearTimeout(timer);
      unseen.close();
    }
  }

  /** Wait until somebody sees the page. */
  async #seen(): Promise<void> {
    while (document.hidden && !this.#stop.signal.aborted) {
      await new Promise<void>((resolve) => {
        const over = new AbortController();
        const done = () => {
          over.abort();
          resolve();
        };
        document.addEventListener("visibilitychange", done, { signal: over.signal });
        this.#stop.signal.addEventListener("abort", done, { signal: over.signal });
      });
    }
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        window.removeEventListener("online", done);
        this.#stop.signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      window.addEventListener("online", done);
      this.#stop.signal.addEventListener("abort", done);
    });
  }
}

/** Aborts once nobody has seen the page for a while. */
class Unseen {
  readonly #over = new AbortController();
  readonly #closed = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#look(), { signal: this.#closed.signal });
    this.#look();
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#closed.abort();
  }

  #look(): void {
    clearTimeout(this.#timer);
    if (document.hidden) {
      this.#timer = setTimeout(() => this.#over.abort(), UNSEEN_MS_MAX);
    }
  }
}
