// What went wrong with a request, in one line that may be shown: an RFC 9457 problem of the gateway, or no answer at all.

export class Problem extends Error {
  constructor(
    readonly detail: string,
    readonly status = 0,
    readonly field = "",
    /** Seconds after which the gateway wants to be asked again; 0 when it does not say. */
    readonly retryAfter = 0,
  ) {
    super(detail);
  }

  /** Whether asking again may help. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export async function problemOf(response: Response): Promise<Problem> {
  let body: { detail?: unknown; field?: unknown; title?: unknown } = {};
  try {
    body = (await response.json()) as typeof body;
  } catch {
    // What stands before a gateway, a proxy say, answers in its own words.
  }
  const detail = typeof body.detail === "string" ? body.detail : `${response.status} ${response.statusText}`.trim();
  const after = Number(response.headers.get("retry-after") ?? 0);
  return new Problem(detail, response.status, typeof body.field === "string" ? body.field : "", after > 0 ? after : 0);
}

export function problemFrom(error: unknown): Problem {
  if (error instanceof Problem) {
    return error;
  }
  return new Problem(error instanceof TypeError ? "the gateway does not answer" : String(error instanceof Error ? error.message : error));
}
