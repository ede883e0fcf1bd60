// Whether this tab works for the gateway: what its reader asked for, and what the vat says of it. Holds that as states; leaves when
// the page goes or is put to sleep, and joins again when it is back. Must not know how it is shown, nor what carries messages.
import type { PageMessage, State, StateMessage } from "../../worker/messages";

export interface Wish {
  slots: number;
  ticket: string;
}

export interface View {
  state: State;
  /** One line for people; empty when there is nothing to say. */
  detail: string;
  peer: string;
  gateway: string;
  /** When it joined, in milliseconds since the epoch; null when it has not. */
  joinedAtMs: number | null;
  /** Whether somebody wants it to work: it does, or tries to. */
  isWanted: boolean;
}

export interface Surroundings {
  /** To the vat. */
  tell(message: PageMessage): void;
  /** Ask the gateway for its namespace, until it answers; each time that it does not is told. Rejects where asking again is no help. */
  namespace(signal: AbortSignal, failed: (why: string) => unknown): Promise<string>;
  changed(view: View): void;
  nowMs(): number;
}

// How the gateway ends what it tells terminals that it lets in by ticket alone.
const SEE_OPTION = /: see --ticket-file$/;
const ASLEEP = "The browser put this tab to sleep. It joins again when it is back.";

export class Membership {
  readonly #url: string;
  readonly #around: Surroundings;
  #view: View = { state: "offline", detail: "", peer: "", gateway: "", joinedAtMs: null, isWanted: false };
  #wish: Wish | null = null;
  #asking: AbortController | null = null;
  /** Whether the vat was told to join, and has not left since: it is told of one thing at a time. */
  #isIn = false;
  /** Whether what it says is of something that is over. */
  #isEnding = false;
  #isAway = false;

  constructor(url: string, around: Surroundings) {
    this.#url = url;
    this.#around = around;
  }

  get view(): View {
    return this.#view;
  }

  /** Work from now on; asked again, with what is wished for now. */
  join(wish: Wish): void {
    this.#wish = wish;
    this.#isAway = false;
    this.#hangUp();
    this.#begin();
  }

  /** Leave, once running guests have ended or had their time; asked again, at once. */
  leave(): void {
    this.#wish = null;
    this.#asking?.abort();
    if (this.#isIn) {
      this.#around.tell({ type: "leave" });
      this.#set({ state: "leaving", isWanted: false });
    } else {
      this.#set({ state: "left", detail: "", joinedAtMs: null, isWanted: false });
    }
  }

  /** The page goes, or is put to sleep. */
  away(): void {
    if (this.#wish && !this.#isAway) {
      this.#isAway = true;
      this.#hangUp();
      this.#set({ state: this.#isIn ? "leaving" : "left", detail: ASLEEP });
    }
  }

  /** The page is back. */
  back(): void {
    if (this.#wish && this.#isAway) {
      this.#isAway = false;
      this.#begin();
    }
  }

  /** The vat says how it stands. */
  hear(said: StateMessage): void {
    const { state, peer, gateway } = said;
    const detail = (said.detail ?? "").replace(SEE_OPTION, ": give one below");
    const known = { peer: peer ?? this.#view.peer, gateway: gateway ?? this.#view.gateway };
    if (state === "left") {
      this.#left(known);
    } else if (this.#isEnding && this.#wish) {
      this.#set(known);
    } else {
      const joined = this.#view.joinedAtMs;
      const joinedAtMs = state === "joined" ? (joined ?? this.#around.nowMs()) : state === "leaving" ? joined : null;
      this.#set({ ...known, state, detail, joinedAtMs });
    }
  }

  /** The vat is gone, for a reason that somebody has to do something about. */
  broke(why: string): void {
    this.#asking?.abort();
    this.#isIn = false;
    this.#isEnding = false;
    this.#wish = null;
    this.#set({ state: "refused", detail: why, joinedAtMs: null, isWanted: false });
  }

  #left(known: Partial<View>): void {
    const wasTold = this.#isEnding || !this.#wish;
    this.#isIn = false;
    this.#isEnding = false;
    const over = { ...known, joinedAtMs: null };
    if (!wasTold) {
      // It gave up by itself, and has just said why.
      this.#wish = null;
      this.#set({ ...over, isWanted: false });
    } else if (!this.#wish) {
      this.#set({ ...over, state: "left", detail: "", isWanted: false });
    } else if (this.#isAway) {
      this.#set({ ...over, state: "left", detail: ASLEEP });
    } else {
      this.#set(over);
      this.#begin();
    }
  }

  /** Go on with joining; where the vat has to leave first, once it has. */
  #begin(): void {
    this.#set({ state: "connecting", detail: "", joinedAtMs: null, isWanted: true });
    if (!this.#isIn && this.#wish) {
      void this.#ask(this.#wish);
    }
  }

  async #ask(wish: Wish): Promise<void> {
    this.#asking?.abort();
    const asking = new AbortController();
    this.#asking = asking;
    const failed = (why: string) => asking.signal.aborted || this.#set({ state: "offline", detail: why });
    try {
      const namespace = await this.#around.namespace(asking.signal, failed);
      if (!asking.signal.aborted) {
        this.#isIn = true;
        const ticket = wish.ticket ? { ticket: wish.ticket } : {};
        this.#around.tell({ type: "join", url: this.#url, slots: wish.slots, namespace, ...ticket });
      }
    } catch (error) {
      if (!asking.signal.aborted) {
        this.broke(error instanceof Error ? error.message : String(error));
      }
    }
  }

  /** Be out at once, whatever runs. */
  #hangUp(): void {
    this.#asking?.abort();
    if (this.#isIn) {
      this.#isEnding = true;
      this.#around.tell({ type: "leave" });
      this.#around.tell({ type: "leave" });
    }
  }

  #set(change: Partial<View>): void {
    this.#view = { ...this.#view, ...change };
    this.#around.changed(this.#view);
  }
}
