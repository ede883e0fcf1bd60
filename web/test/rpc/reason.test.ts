// Why there is no connection, as Deno and Node say it, in words for people.
import { expect, test } from "vitest";

import { reasonOf } from "../../src/rpc/websocket";

function failed(message: string, code?: string): Error {
  return new TypeError("fetch failed", { cause: Object.assign(new Error(message), { code }) });
}

const DENO = "error sending request for url (https://h:1/peer): client error (Connect): ";

test.each([
  [failed("self-signed certificate", "DEPTH_ZERO_SELF_SIGNED_CERT"), "not trusted (see --ca): self-signed certificate"],
  [failed("unable to verify the first leaf", "UNABLE_TO_VERIFY_LEAF_SIGNATURE"), "not trusted (see --ca)"],
  [failed(`${DENO}invalid peer certificate: UnknownIssuer`), "not trusted (see --ca): invalid peer certificate: Unk"],
  [failed("80:error:0A00010B:SSL routines::wrong version number:../deps/x.c:1:", "ERR_SSL_X"), "expected http://"],
  [failed(`${DENO}received corrupt message of type InvalidContentType`), "expected http://"],
  [failed("other side closed", "UND_ERR_SOCKET"), "https:// may be expected"],
  [failed("connect ECONNREFUSED 127.0.0.1:9", "ECONNREFUSED"), "connect ECONNREFUSED 127.0.0.1:9"],
])("%s", (error, says) => {
  expect(reasonOf(error)).toContain(says);
  expect(reasonOf(error)).not.toMatch(/[\n]|\.\.\/|client error/);
});

test("a browser says nothing", () => {
  expect(reasonOf(new TypeError("Failed to fetch"))).toBeNull();
});
