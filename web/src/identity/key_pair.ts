// An Identity over a key pair of WebCrypto's, wherever that came from.
import type { Identity } from "./identity";
import { framedFor, peerIdOf } from "./peer_id";

/** Make an Identity of a key pair. onClose lets go of where it came from. */
export async function identityOf(pair: CryptoKeyPair, onClose: () => void = () => {}): Promise<Identity> {
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  let isOpen = true;
  return {
    peerId: peerIdOf(publicKey),
    publicKey,
    async sign(domain, message) {
      return new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, framedFor(domain, message)));
    },
    close() {
      if (isOpen) onClose();
      isOpen = false;
    },
  };
}
