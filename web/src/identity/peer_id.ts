// How a public key is written, 12D3KooW..., and read again: libp2p's peer ids, as ww/identity.py does. And what a
// signature is made over. Source: libp2p specification, peer-ids/peer-ids.md.

const DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
// Multihash (identity, 36 bytes) of PublicKey{type: Ed25519, data: 32 bytes}.
const PREFIX = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
const KEY_BYTES = 32;
const TEXT_MAX = 64;

function toBase58(bytes: Uint8Array): string {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let digits = "";
  for (; number > 0n; number /= 58n) digits = DIGITS[Number(number % 58n)] + digits;
  const zeros = bytes.findIndex((byte) => byte !== 0);
  return "1".repeat(zeros < 0 ? bytes.length : zeros) + digits;
}

function fromBase58(text: string): Uint8Array {
  let number = 0n;
  for (const digit of text) {
    const value = DIGITS.indexOf(digit);
    if (value < 0) throw new RangeError(`${JSON.stringify(digit)} is no base58 digit`);
    number = number * 58n + BigInt(value);
  }
  const bytes: number[] = [];
  for (; number > 0n; number >>= 8n) bytes.unshift(Number(number & 255n));
  const zeros = text.length - text.replace(/^1+/, "").length;
  return Uint8Array.from([...new Array<number>(zeros).fill(0), ...bytes]);
}

/** Return the name of the peer that has this public key. */
export function peerIdOf(publicKey: Uint8Array): string {
  if (publicKey.length !== KEY_BYTES) {
    throw new RangeError(`an Ed25519 public key has 32 bytes, not ${publicKey.length}`);
  }
  return toBase58(Uint8Array.from([...PREFIX, ...publicKey]));
}

/** Return the public key of a peer. Throws RangeError when the text is no peer id. */
export function publicKeyOf(peerId: string): Uint8Array {
  // The bound keeps hostile text from costing quadratic time.
  const bytes = peerId.length <= TEXT_MAX ? fromBase58(peerId) : new Uint8Array();
  if (bytes.length !== PREFIX.length + KEY_BYTES || PREFIX.some((byte, at) => bytes[at] !== byte)) {
    const shown = JSON.stringify(peerId.slice(0, 80));
    throw new RangeError(`${shown} is no peer id: expected 12D3KooW and 44 more base58 digits`);
  }
  return bytes.slice(PREFIX.length);
}

/** Return what is signed when a message is signed for the purpose that its domain names. As ww/identity.py does. */
export function framedFor(domain: string, message: Uint8Array): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(domain);
  // The length keeps one domain from being a prefix of another.
  return Uint8Array.from([...new TextEncoder().encode("ww-sig"), name.length, ...name, ...message]);
}
