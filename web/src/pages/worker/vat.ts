// The tab's vat as its page has it: the Web Worker, started when it is first needed, and the gateway's word on who it is. Must not
// know what is shown.
import type { LoadMessage, PageMessage, StateMessage, VatMessage } from "../../worker/messages";
import { problemFrom, problemOf } from "../page/problem";
import { backoff } from "../page/stream";

export interface Heard {
  state(message: StateMessage): void;
  load(message: LoadMessage): void;
  broke(why: string): void;
}

export interface Health {
  peer: string;
  namespace: string;
}

export class Vat {
  readonly #heard: Heard;
  #worker: Worker | null = null;

  constructor(heard: Heard) {
    this.#heard = heard;
  }

  tell(message: PageMessage): void {
    this.#worker ??= this.#start();
    this.#worker.postMessage(message);
  }

  #start(): Worker {
    const worker = new Worker(new URL("../../worker/vat.ts", import.meta.url), { type: "module" });
    worker.onmessage = (event: MessageEvent<VatMessage>) => {
      if (event.data.type === "state") {
        this.#heard.state(event.data);
      } else {
        this.#heard.load(event.data);
      }
    };
    worker.onerror = (event) => {
      worker.terminate();
      this.#worker = null;
      this.#heard.broke(`The worker of this tab ended: ${event.message || "its program was not loaded"}`);
    };
    return worker;
  }
}

/** Ask the gateway who it is, which needs no token. */
export async function health(signal?: AbortSignal): Promise<Health> {
  const response = await fetch("./healthz", { signal, cache: "no-store" });
  if (!response.ok) {
    throw await problemOf(response);
  }
  return (await response.json()) as Health;
}

/** The same, again and again until it answers. Throws what asking again is no help against, and when it is aborted. */
export async function healthInTheEnd(signal: AbortSignal, failed: (why: string) => unknown): Promise<Health> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await health(signal);
    } catch (error) {
      const problem = problemFrom(error);
      if (signal.aborted || !problem.isPassing) {
        throw problem;
      }
      failed(problem.detail);
      await pause(backoff(attempt, Math.random(), problem.retryAfter), signal);
    }
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
  });
}
