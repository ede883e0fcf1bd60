// What a page and the Web Worker that is its vat say to each other.
//
// Holds plain values alone, as structured clones carry them. vat.ts answers; pages and terminals ask.

/** From the page to the vat. */
export type PageMessage =
  | {
      type: "join";
      /** ws(s)://HOST:PORT/peer */
      url: string;
      /** Runs at once. */
      slots: number;
      /** What `ww ticket create` printed, where the gateway asks for one. */
      ticket?: string;
      /** The gateway's peer id, where it is known: nobody else is joined then. */
      gateway?: string;
      /** The gateway's namespace, as /healthz says it; "ww" without. */
      namespace?: string;
    }
  /** Take nothing new, let running guests finish for a while, and hang up. Said again: at once. */
  | { type: "leave" };

/**
 * offline: not joined, and trying again in a while. refused: the gateway does not let it in, and somebody has to do
 * something about that; it tries again all the same, seldom. left: as it was told to; `join` begins anew.
 */
export type State = "offline" | "connecting" | "joined" | "leaving" | "refused" | "left";

/** What one slot does. */
export interface SlotLoad {
  busy: boolean;
  /** Digest (hex) of the module that runs, or ran last. */
  module?: string;
  /** How the task's runs go by: entry, or the kind of guest. The gateway does not tell workers ids of tasks. */
  task?: string;
  /** When it became busy, in milliseconds since the epoch. */
  since_ms?: number;
}

export interface StateMessage {
  type: "state";
  state: State;
  /** Peer id of this worker. */
  peer?: string;
  /** Peer id of the gateway. */
  gateway?: string;
  /** One line for people: why. */
  detail?: string;
}

/** At most four times a second. */
export interface LoadMessage {
  type: "load";
  slots: SlotLoad[];
  /** Runs since the vat began, and of these those that did not end well. */
  ended: number;
  failed: number;
  /** Runs, lately. */
  per_second: number;
  sent_bytes: number;
  received_bytes: number;
  modules_cached: number;
  memory_bytes: number;
}

/** From the vat to the page. */
export type VatMessage = StateMessage | LoadMessage;
