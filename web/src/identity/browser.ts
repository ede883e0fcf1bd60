// The key of a tab. Holds key pairs in IndexedDB, which no script can read out, and which tab has which: each takes the
// first that no other one holds, by a lock that goes with the tab, and makes one when all are taken. Works in a Web
// Worker. Knows no connection.
import type { Identity } from "./identity";
import { identityOf } from "./key_pair";

const DATABASE = "ww-identity";
const STORE = "keys";
const LOCK = "ww-identity";
const KEYS_MAX = 64;

/** Why a page cannot have a key, in one line for people. */
export class NoIdentity extends Error {}

/** Return this tab's key, which it holds until it is closed, or the tab is. */
export async function browserIdentity(): Promise<Identity> {
  if (!globalThis.isSecureContext || globalThis.crypto?.subtle === undefined || navigator.locks === undefined) {
    throw new NoIdentity(
      "this page has no access to keys: expected HTTPS (the gateway's --tls-cert), or its own machine as localhost",
    );
  }
  let database: IDBDatabase;
  try {
    database = await opened();
  } catch {
    return kept(); // private windows of some browsers: a key that lives as long as the tab
  }
  try {
    for (let place = 0; place < KEYS_MAX; place++) {
      const letGo = await held(`${LOCK}-${place}`);
      if (letGo === null) continue;
      try {
        return await identityOf(await pairAt(database, place), letGo);
      } catch (error) {
        letGo();
        throw error;
      }
    }
  } finally {
    database.close();
  }
  throw new NoIdentity(`${KEYS_MAX} tabs of this browser work for this gateway already, the limit`);
}

async function kept(): Promise<Identity> {
  return identityOf(await made());
}

function made(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]) as Promise<CryptoKeyPair>;
}

/** Take a lock for as long as this tab lives, or until the returned function is called; null when another has it. */
function held(name: string): Promise<(() => void) | null> {
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, { ifAvailable: true }, (lock) => {
        if (lock === null) return resolve(null);
        return new Promise<void>((letGo) => resolve(letGo));
      })
      .catch(reject);
  });
}

/** Return the key pair at a place, made when there is none. Its lock is held. */
async function pairAt(database: IDBDatabase, place: number): Promise<CryptoKeyPair> {
  const found = await done<CryptoKeyPair | undefined>(database.transaction(STORE).objectStore(STORE).get(place));
  if (found !== undefined) return found;
  const pair = await made();
  await done(database.transaction(STORE, "readwrite").objectStore(STORE).put(pair, place));
  return pair;
}

function opened(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return done(request);
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}
