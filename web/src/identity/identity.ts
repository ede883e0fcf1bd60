// Who a peer is: an Ed25519 key pair, and the peer id made from it. browser.ts and terminal.ts make them.

/** A key pair that can sign. Its private half never leaves where it is. */
export interface Identity {
  /** The public key, written as 12D3KooW... */
  readonly peerId: string;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Sign a message for one purpose, which its domain names; 64 bytes. As ww/identity.py does. */
  sign(domain: string, message: Uint8Array): Promise<Uint8Array>;
  /** Let go of the key, so that another may be this peer. Idempotent. */
  close(): void;
}
