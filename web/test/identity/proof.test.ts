import { describe, expect, it } from "vitest";
import { identityOf } from "../../src/identity/key_pair";
import { peerIdOf, publicKeyOf } from "../../src/identity/peer_id";
import {
  GATEWAY_DOMAIN,
  PEER_DOMAIN,
  checkWelcome,
  fromText,
  isSigned,
  prove,
  readChallenge,
  statement,
  toText,
} from "../../src/identity/proof";

// Of ww/identity.py and ww/net/proof.py, with the private key 00 01 02 ... 1f.
const PEER = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";
const KEY = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
const STATEMENT = "02000000677708000000687474703a2f2f6804000000776f726b010000006e02000000c3b6";
const SIGNATURE = "I90lPmlVTBrCCN_K8qJ5lYedq5bBYTiAZDJ7jiBBM3vS29Z4wkg6_rja_IOlr23kbXx3cc6GfsvC9w0Y0fXzDg";

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const made = () => crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]) as Promise<CryptoKeyPair>;
const fresh = async () => identityOf(await made());

describe("peer ids", () => {
  it("are those of ww", () => {
    expect(hex(publicKeyOf(PEER))).toBe(KEY);
    expect(peerIdOf(publicKeyOf(PEER))).toBe(PEER);
    expect(peerIdOf(new Uint8Array(32))).toBe("12D3KooW9pNAk8aiBuGVQtWRdbkLmo5qVL3e2h5UxbN2Nz9ttwiw");
  });

  const wrong = ["", "12D3KooW", `${PEER}1`, PEER.replace("K", "0"), "1".repeat(100_000), "z".repeat(64)];
  it.each(wrong)("refuse %.20s", (text) => {
    expect(() => publicKeyOf(text)).toThrow(RangeError);
  });
});

describe("proofs", () => {
  it("are signed as ww signs", async () => {
    const said = statement("gw", "http://h", "work", "n", "ö");
    expect(hex(said)).toBe(STATEMENT);
    expect(await isSigned(PEER, PEER_DOMAIN, said, fromText(SIGNATURE))).toBe(true);
    expect(await isSigned(PEER, GATEWAY_DOMAIN, said, fromText(SIGNATURE))).toBe(false);
  });

  it("are welcomed by the gateway that was asked, and by no other", async () => {
    const [me, gateway, other] = [await fresh(), await fresh(), await fresh()];
    const nonce = toText(crypto.getRandomValues(new Uint8Array(32)));
    const challenge = readChallenge(JSON.stringify({ type: "challenge", version: 1, gateway: gateway.peerId, nonce }));
    const proof = await prove(me, challenge, "http://h");
    const said = statement(gateway.peerId, "http://h", "work", nonce, proof.nonce);
    expect(await isSigned(me.peerId, PEER_DOMAIN, said, fromText(proof.signature))).toBe(true);
    const welcome = async (who: typeof me, ...texts: string[]) =>
      JSON.stringify({ type: "welcome", signature: toText(await who.sign(GATEWAY_DOMAIN, statement(...texts))) });
    const texts = [gateway.peerId, "http://h", "work", nonce, proof.nonce, proof.key];
    await checkWelcome(await welcome(gateway, ...texts), challenge, proof, "http://h");
    const malformed = '{"type": "welcome", "signature": "!"}';
    const wrong = [await welcome(other, ...texts), await welcome(gateway, ...texts.slice(0, 5)), malformed];
    for (const text of wrong) {
      await expect(checkWelcome(text, challenge, proof, "http://h")).rejects.toMatchObject({ code: "peer_mismatch" });
    }
    const refused = checkWelcome('{"type": "refused", "reason": "why"}', challenge, proof, "http://h");
    await expect(refused).rejects.toMatchObject({ code: "not_admitted", message: "why" });
  });

  it.each([
    ["", "protocol_mismatch"],
    ["[1]", "protocol_mismatch"],
    ['{"type": "challenge", "version": 2, "gateway": "g", "nonce": "n"}', "protocol_mismatch"],
    ['{"type": "challenge", "version": 1, "gateway": "g", "nonce": "n"}', "protocol_mismatch"],
    [`{"type": "challenge", "version": 1, "gateway": "${PEER}", "nonce": "AAAA"}`, "protocol_mismatch"],
    [`{"type": "challenge", "version": 1, "gateway": "${PEER}", "nonce": "${"A".repeat(43)}"}`, "peer_mismatch"],
    ['{"type": "refused", "reason": "no"}', "not_admitted"],
  ])("answer no challenge such as %s", (text, code) => {
    expect(() => readChallenge(text, "12D3KooWanother")).toThrow(expect.objectContaining({ code }));
  });
});
