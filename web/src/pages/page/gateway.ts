// Requests to the gateway that served the page, with a token where it asks for one. Holds the token for the tab's session and
// asks for it once, however many requests wait for it. Must not know what is requested.
import { problemFrom, problemOf } from "./problem";

export type AskToken = (wrong: boolean) => Promise<string | null>;

const KEPT_AS = "ww token";

export class Gateway {
  #token: string;
  #asking: Promise<string | null> | null = null;
  readonly #ask: AskToken;

  constructor(ask: AskToken) {
    this.#ask = ask;
    this.#token = kept();
  }

  get hasToken(): boolean {
    return this.#token !== "";
  }

  /** Request a path. Every status but success is thrown as a Problem; 401 asks for a token first, and tries again. */
  async request(path: string, init: RequestInit = {}): Promise<Response> {
    for (;;) {
      const used = this.#token;
      const headers = new Headers(init.headers);
      if (used) {
        headers.set("Authorization", `Bearer ${used}`);
      }
      let response: Response;
      try {
        response = await fetch(path, { ...init, headers, cache: "no-store" });
      } catch (error) {
        if (init.signal?.aborted) {
          throw error;
        }
        throw problemFrom(error);
      }
      if (response.ok) {
        return response;
      }
      const problem = await problemOf(response);
      if (response.status !== 401 || !(await this.#renew(used))) {
        throw problem;
      }
    }
  }

  async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    return (await (await this.request(path, init)).json()) as T;
  }

  /** Get a token other than that one. False when there is none. */
  async #renew(used: string): Promise<boolean> {
    if (this.#token !== used) {
      return true; // another request got one meanwhile
    }
    this.#asking ??= this.#ask(used !== "").finally(() => {
      this.#asking = null;
    });
    const token = await this.#asking;
    if (!token) {
      return false;
    }
    this.#token = token;
    keep(token);
    return true;
  }
}

function kept(): string {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? "";
  } catch {
    return ""; // storage may be forbidden
  }
}

function keep(token: string): void {
  try {
    sessionStorage.setItem(KEPT_AS, token);
  } catch {
    // Then it holds until the page is left.
  }
}
