// What a peer and a gateway sign before they talk over a WebSocket, so that each knows whose key the other has. Holds
// the messages, not the socket. The gateway's side: ww/rpc/proof.py; docs/http.md says it all.
import { CapabilityError } from "../rpc/errors";
import type { Identity } from "./identity";
import { framedFor, publicKeyOf } from "./peer_id";

/** What a peer's proof is signed for. */
export const PEER_DOMAIN = "ww peer over WebSocket 1";
/** What a gateway's welcome is signed for. */
export const GATEWAY_DOMAIN = "ww gateway over WebSocket 1";
const VERSION = 1;
const NONCE_BYTES = 32;
const PURPOSE = "work";

/** What the gateway says first. */
export interface Challenge {
  readonly gateway: string;
  readonly nonce: string;
}

/** What a peer answers it with. */
export interface Proof {
  readonly type: "proof";
  readonly key: string;
  readonly nonce: string;
  readonly purpose: string;
  readonly signature: string;
}

/** Bytes as base64url without padding. */
export function toText(bytes: Uint8Array): string {
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Read base64url. Throws when it is none. */
export function fromText(text: string): Uint8Array<ArrayBuffer> {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new RangeError("no base64url");
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (digit) => digit.charCodeAt(0));
}

/** Return what is signed of texts: each with its length before it, so that they cannot be cut otherwise. */
export function statement(...texts: string[]): Uint8Array {
  const parts = texts.map((text) => new TextEncoder().encode(text));
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    bytes.set(part, at + 4);
    at += 4 + part.length;
  }
  return bytes;
}

function unexpected(what: string): CapabilityError {
  return new CapabilityError("protocol_mismatch", `the gateway ${what}: it is none, or of another version of ww`);
}

function objectOf(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw unexpected("says something that is no JSON object");
}

/** Read what the gateway says first. expected: its peer id, where that is known. */
export function readChallenge(text: string, expected?: string): Challenge {
  const { type, version, gateway, nonce } = objectOf(text);
  if (type === "refused") throw refusalOf(text);
  if (type !== "challenge" || typeof gateway !== "string" || typeof nonce !== "string") {
    throw unexpected("gives no challenge");
  }
  if (version !== VERSION) {
    throw unexpected(`speaks version ${String(version).slice(0, 10)} of the proof, not ${VERSION}`);
  }
  try {
    publicKeyOf(gateway);
    if (fromText(nonce).length !== NONCE_BYTES) throw new RangeError();
  } catch {
    throw unexpected("gives a challenge that is malformed");
  }
  if (expected !== undefined && expected !== gateway) {
    throw new CapabilityError("peer_mismatch", `expected gateway ${expected}, but ${gateway} answered`);
  }
  return { gateway, nonce };
}

function refusalOf(text: string): CapabilityError {
  const { reason } = objectOf(text);
  return new CapabilityError("not_admitted", typeof reason === "string" ? reason : "the gateway refuses this peer");
}

/** Answer a challenge. */
export async function prove(identity: Identity, challenge: Challenge, origin: string): Promise<Proof> {
  const nonce = toText(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)));
  const said = statement(challenge.gateway, origin, PURPOSE, challenge.nonce, nonce);
  const signature = toText(await identity.sign(PEER_DOMAIN, said));
  return { type: "proof", key: toText(identity.publicKey), nonce, purpose: PURPOSE, signature };
}

/** Check what the gateway answers the proof with. Throws when it refuses, or does not have the key it is named by. */
export async function checkWelcome(text: string, challenge: Challenge, proof: Proof, origin: string): Promise<void> {
  const { type, signature } = objectOf(text);
  if (type === "refused") throw refusalOf(text);
  if (type !== "welcome" || typeof signature !== "string") throw unexpected("neither welcomes nor refuses");
  const said = statement(challenge.gateway, origin, proof.purpose, challenge.nonce, proof.nonce, proof.key);
  let isRight = false;
  try {
    isRight = await isSigned(challenge.gateway, GATEWAY_DOMAIN, said, fromText(signature));
  } catch {
    // Malformed, which is not right.
  }
  if (!isRight) {
    throw new CapabilityError("peer_mismatch", `who answered does not have the key of ${challenge.gateway}`);
  }
}

/** Return whether a peer signed a message in that domain. */
export async function isSigned(
  peerId: string,
  domain: string,
  message: Uint8Array,
  signature: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  const key = await crypto.subtle.importKey("raw", Uint8Array.from(publicKeyOf(peerId)), "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", key, signature, framedFor(domain, message));
}
