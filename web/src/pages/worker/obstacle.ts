// Why this browser, or the way that the page was reached, lets no tab work. Knows no element.

interface Has {
  isSecureContext?: boolean;
  crypto?: { subtle?: unknown };
  WebAssembly?: unknown;
  Worker?: unknown;
}

/** One line for people; empty when nothing is in the way. */
export function obstacleOf(has: Has): string {
  if (!has.isSecureContext || has.crypto?.subtle === undefined) {
    return (
      "This page was reached in a way that browsers give no keys to (crypto.subtle is missing), and without a key no gateway knows who " +
      "works for it. Expected: HTTPS (ww gateway --tls-cert FILE --tls-key FILE), or the gateway's own machine as localhost."
    );
  }
  if (has.WebAssembly === undefined || has.Worker === undefined) {
    return "This browser runs no WebAssembly, or no Web Workers; some do not in a locked or private mode. Expected: a browser that runs both.";
  }
  return "";
}
