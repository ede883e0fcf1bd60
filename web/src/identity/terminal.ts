// The key of a worker in a terminal, Deno or Node: in a file, as ww writes it (ww/identity.py), or fresh. Two processes
// under one file would answer for each other, so it is locked: by Deno as by Python, while Node, which cannot, writes
// who has it into a file beside it.
import { closeSync, constants, fstatSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { basename } from "node:path";
import process from "node:process";
import type { Identity } from "./identity";
import { identityOf } from "./key_pair";

const OTHERS = 0o077;
const KEY_BYTES_MAX = 4096;

/** A key file cannot be used; the message says why, in one line. */
export class BadKeyFile extends Error {}

/**
 * Return the identity of the key in a file, which is made when it is not there; without a file, a fresh one. isHeld
 * says that the file is locked for this process already.
 */
export async function terminalIdentity(keyFile?: string, isHeld = false): Promise<Identity> {
  if (keyFile === undefined) {
    return identityOf((await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair);
  }
  const letGo = isHeld ? () => {} : held(keyFile);
  try {
    return await identityOf(await pairIn(keyFile), letGo);
  } catch (error) {
    letGo();
    throw error;
  }
}

function said(keyFile: string, what: string): BadKeyFile {
  return new BadKeyFile(`key file ${basename(keyFile)}: ${what}`);
}

function reasonOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "it cannot be used";
}

const IN_USE = "in use by another process: stop it, or name another key with --key";

interface LockingFile {
  tryLockSync?(exclusive: boolean): boolean;
  close(): void;
}

interface DenoFiles {
  openSync(path: string, options: Record<string, unknown>): LockingFile;
}

/** Have a key file for this process alone, until the returned function is called. */
function held(keyFile: string): () => void {
  const { Deno } = globalThis as { Deno?: DenoFiles };
  return Deno === undefined ? heldByName(keyFile) : heldByLock(Deno, keyFile);
}

function heldByLock(deno: DenoFiles, keyFile: string): () => void {
  let file: LockingFile;
  try {
    file = deno.openSync(keyFile, { read: true, write: true, create: true, mode: 0o600 });
  } catch (error) {
    throw said(keyFile, reasonOf(error));
  }
  if (file.tryLockSync?.(true) === false) {
    file.close();
    throw said(keyFile, IN_USE);
  }
  return () => file.close();
}

function heldByName(keyFile: string): () => void {
  const lock = `${keyFile}.lock`;
  for (let tries = 0; tries < 2; tries++) {
    try {
      const file = openSync(lock, "wx", 0o600);
      writeSync(file, `${process.pid}\n`);
      closeSync(file);
      const letGo = () => rmSync(lock, { force: true });
      process.once("exit", letGo);
      return () => {
        process.removeListener("exit", letGo);
        letGo();
      };
    } catch (error) {
      if (reasonOf(error) !== "EEXIST") throw said(keyFile, reasonOf(error));
      if (isAlive(lock)) throw said(keyFile, IN_USE);
      rmSync(lock, { force: true });
    }
  }
  throw said(keyFile, IN_USE);
}

function isAlive(lock: string): boolean {
  try {
    const pid = Number.parseInt(readFileSync(lock, "utf8"), 10);
    if (!(pid > 0)) return false;
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return reasonOf(error) !== "ESRCH" && reasonOf(error) !== "ENOENT";
  }
}

async function pairIn(keyFile: string): Promise<CryptoKeyPair> {
  let file: number;
  try {
    file = openSync(keyFile, constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0), 0o600);
  } catch (error) {
    throw said(keyFile, reasonOf(error));
  }
  try {
    if (process.platform !== "win32" && fstatSync(file).mode & OTHERS) {
      throw said(keyFile, "can be read by others: expected mode 0600");
    }
    const text = fstatSync(file).size > KEY_BYTES_MAX ? "?" : readFileSync(file, "utf8");
    if (text !== "") return await pairOf(text);
    const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
    writeSync(file, pemOf(await crypto.subtle.exportKey("pkcs8", pair.privateKey)), 0);
    return pair;
  } catch (error) {
    if (error instanceof BadKeyFile) throw error;
    throw said(keyFile, "holds no Ed25519 key: expected PKCS#8 PEM as ww writes it");
  } finally {
    closeSync(file);
  }
}

/** Read a private key. Its public half is told by a JSON Web Key of it. */
async function pairOf(pem: string): Promise<CryptoKeyPair> {
  const body = /^-----BEGIN PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----\s*$/.exec(pem)?.[1];
  if (body === undefined) throw new RangeError();
  const bytes = Uint8Array.from(atob(body.replace(/\s/g, "")), (digit) => digit.charCodeAt(0));
  const privateKey = await crypto.subtle.importKey("pkcs8", bytes, "Ed25519", true, ["sign"]);
  const { kty, crv, x } = await crypto.subtle.exportKey("jwk", privateKey);
  const publicKey = await crypto.subtle.importKey("jwk", { kty, crv, x }, "Ed25519", true, ["verify"]);
  return { privateKey, publicKey };
}

function pemOf(bytes: ArrayBuffer): string {
  const text = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return `-----BEGIN PRIVATE KEY-----\n${text}\n-----END PRIVATE KEY-----\n`;
}
