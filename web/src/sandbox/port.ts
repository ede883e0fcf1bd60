// A thread that runs guests, as its supervisor sees it: a Web Worker in browsers and Deno, worker_threads in Node.
//
// Holds the interface alone, both ends of it. Must not know what is said: message.ts does.

/** The supervisor's end. */
export interface SlotPort {
  post(message: unknown, transfer?: Transferable[]): void;
  /** Called once, before anything is posted. */
  onMessage(hear: (message: unknown) => void): void;
  /** Called once; hears that the thread ended by itself, and why, in one line. */
  onError(hear: (reason: string) => void): void;
  /** Ends the thread, whatever it does. Nothing of it is heard any more. */
  terminate(): void;
}

/** Starts a thread that runs executor.ts's `serve`. */
export type SpawnSlot = () => SlotPort;

/** The thread's end. */
export interface ExecutorPort {
  post(message: unknown, transfer?: Transferable[]): void;
  onMessage(hear: (message: unknown) => void): void;
}
