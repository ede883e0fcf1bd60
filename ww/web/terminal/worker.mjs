import { B as rotr, D as Failure, E as aboutOf, I as clean, L as createHasher, M as aexists, O as lineOf, P as aoutput, R as createView, U as setU64FromNum, _ as writeOutcome, a as newBuffer, b as newResult, f as rewritten, g as spansOf, h as readInput, j as abytes, m as concatenated, n as Control, p as LARGE_BYTES, t as __vitePreload, v as REASONS, x as ModuleInfo, y as checkInvocation, z as oidNist } from "./preload-helper.mjs";
import { closeSync, constants, fstatSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import process from "node:process";
import { basename } from "node:path";
import { availableParallelism, hostname, totalmem } from "node:os";
// src/identity/peer_id.ts
var DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
var PREFIX = [
	0,
	36,
	8,
	1,
	18,
	32
];
var KEY_BYTES = 32;
var TEXT_MAX$1 = 64;
function toBase58(bytes) {
	let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
	let digits = "";
	for (; number > 0n; number /= 58n) digits = DIGITS[Number(number % 58n)] + digits;
	const zeros = bytes.findIndex((byte) => byte !== 0);
	return "1".repeat(zeros < 0 ? bytes.length : zeros) + digits;
}
function fromBase58(text) {
	let number = 0n;
	for (const digit of text) {
		const value = DIGITS.indexOf(digit);
		if (value < 0) throw new RangeError(`${JSON.stringify(digit)} is no base58 digit`);
		number = number * 58n + BigInt(value);
	}
	const bytes = [];
	for (; number > 0n; number >>= 8n) bytes.unshift(Number(number & 255n));
	const zeros = text.length - text.replace(/^1+/, "").length;
	return Uint8Array.from([...new Array(zeros).fill(0), ...bytes]);
}
/** Return the name of the peer that has this public key. */
function peerIdOf(publicKey) {
	if (publicKey.length !== KEY_BYTES) throw new RangeError(`an Ed25519 public key has 32 bytes, not ${publicKey.length}`);
	return toBase58(Uint8Array.from([...PREFIX, ...publicKey]));
}
/** Return the public key of a peer. Throws RangeError when the text is no peer id. */
function publicKeyOf(peerId) {
	const bytes = peerId.length <= TEXT_MAX$1 ? fromBase58(peerId) : /* @__PURE__ */ new Uint8Array();
	if (bytes.length !== PREFIX.length + KEY_BYTES || PREFIX.some((byte, at) => bytes[at] !== byte)) {
		const shown = JSON.stringify(peerId.slice(0, 80));
		throw new RangeError(`${shown} is no peer id: expected 12D3KooW and 44 more base58 digits`);
	}
	return bytes.slice(PREFIX.length);
}
/** Return what is signed when a message is signed for the purpose that its domain names. As ww/identity.py does. */
function framedFor(domain, message) {
	const name = new TextEncoder().encode(domain);
	return Uint8Array.from([
		...new TextEncoder().encode("ww-sig"),
		name.length,
		...name,
		...message
	]);
}
// src/identity/key_pair.ts
/** Make an Identity of a key pair. onClose lets go of where it came from. */
async function identityOf(pair, onClose = () => {}) {
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
		}
	};
}
// src/identity/terminal.ts
var OTHERS = 63;
var KEY_BYTES_MAX = 4096;
/** A key file cannot be used; the message says why, in one line. */
var BadKeyFile = class extends Error {};
/**
* Return the identity of the key in a file, which is made when it is not there; without a file, a fresh one. isHeld
* says that the file is locked for this process already.
*/
async function terminalIdentity(keyFile, isHeld = false) {
	if (keyFile === void 0) return identityOf(await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]));
	const letGo = isHeld ? () => {} : held$1(keyFile);
	try {
		return await identityOf(await pairIn(keyFile), letGo);
	} catch (error) {
		letGo();
		throw error;
	}
}
function said$1(keyFile, what) {
	return new BadKeyFile(`key file ${basename(keyFile)}: ${what}`);
}
function reasonOf$1(error) {
	return error.code ?? "it cannot be used";
}
var IN_USE = "in use by another process: stop it, or name another key with --key";
/** Have a key file for this process alone, until the returned function is called. */
function held$1(keyFile) {
	const { Deno } = globalThis;
	return Deno === void 0 ? heldByName(keyFile) : heldByLock(Deno, keyFile);
}
function heldByLock(deno, keyFile) {
	let file;
	try {
		file = deno.openSync(keyFile, {
			read: true,
			write: true,
			create: true,
			mode: 384
		});
	} catch (error) {
		throw said$1(keyFile, reasonOf$1(error));
	}
	if (file.tryLockSync?.(true) === false) {
		file.close();
		throw said$1(keyFile, IN_USE);
	}
	return () => file.close();
}
function heldByName(keyFile) {
	const lock = `${keyFile}.lock`;
	for (let tries = 0; tries < 2; tries++) try {
		const file = openSync(lock, "wx", 384);
		writeSync(file, `${process.pid}\n`);
		closeSync(file);
		const letGo = () => rmSync(lock, { force: true });
		process.once("exit", letGo);
		return () => {
			process.removeListener("exit", letGo);
			letGo();
		};
	} catch (error) {
		if (reasonOf$1(error) !== "EEXIST") throw said$1(keyFile, reasonOf$1(error));
		if (isAlive(lock)) throw said$1(keyFile, IN_USE);
		rmSync(lock, { force: true });
	}
	throw said$1(keyFile, IN_USE);
}
function isAlive(lock) {
	try {
		const pid = Number.parseInt(readFileSync(lock, "utf8"), 10);
		if (!(pid > 0)) return false;
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return reasonOf$1(error) !== "ESRCH" && reasonOf$1(error) !== "ENOENT";
	}
}
async function pairIn(keyFile) {
	let file;
	try {
		file = openSync(keyFile, constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0), 384);
	} catch (error) {
		throw said$1(keyFile, reasonOf$1(error));
	}
	try {
		if (process.platform !== "win32" && fstatSync(file).mode & OTHERS) throw said$1(keyFile, "can be read by others: expected mode 0600");
		const text = fstatSync(file).size > KEY_BYTES_MAX ? "?" : readFileSync(file, "utf8");
		if (text !== "") return await pairOf(text);
		const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
		writeSync(file, pemOf(await crypto.subtle.exportKey("pkcs8", pair.privateKey)), 0);
		return pair;
	} catch (error) {
		if (error instanceof BadKeyFile) throw error;
		throw said$1(keyFile, "holds no Ed25519 key: expected PKCS#8 PEM as ww writes it");
	} finally {
		closeSync(file);
	}
}
/** Read a private key. Its public half is told by a JSON Web Key of it. */
async function pairOf(pem) {
	const body = /^-----BEGIN PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----\s*$/.exec(pem)?.[1];
	if (body === void 0) throw new RangeError();
	const bytes = Uint8Array.from(atob(body.replace(/\s/g, "")), (digit) => digit.charCodeAt(0));
	const privateKey = await crypto.subtle.importKey("pkcs8", bytes, "Ed25519", true, ["sign"]);
	const { kty, crv, x } = await crypto.subtle.exportKey("jwk", privateKey);
	return {
		privateKey,
		publicKey: await crypto.subtle.importKey("jwk", {
			kty,
			crv,
			x
		}, "Ed25519", true, ["verify"])
	};
}
function pemOf(bytes) {
	return `-----BEGIN PRIVATE KEY-----\n${btoa(String.fromCharCode(...new Uint8Array(bytes)))}\n-----END PRIVATE KEY-----\n`;
}
// src/sandbox/limits.ts
var DEFAULTS = {
	durationDefaultS: 60,
	durationMaxS: 3600,
	memoryBytesMax: 1 << 30,
	outputBytesDefault: 65536,
	outputBytesMax: 32 << 20,
	inputBytesMax: 64 << 20,
	moduleBytesMax: 64 << 20,
	compileMaxS: 60,
	modulesMax: 16,
	modulesBytesMax: 128 << 20,
	heldBytesMax: 64 << 20,
	graceS: .05
};
/** Resolves what a task asks for. */
function limitsOf(asked, config) {
	const memoryBytes = held(asked.memoryBytes, config.memoryBytesMax, config.memoryBytesMax);
	return {
		durationS: held(asked.durationSeconds, config.durationDefaultS, config.durationMaxS),
		memoryBytes,
		outputBytes: held(asked.outputBytes, config.outputBytesDefault, config.outputBytesMax)
	};
}
function held(asked, otherwise, most) {
	return Math.min(asked > 0 ? asked : otherwise, most);
}
// node_modules/@noble/hashes/_md.js
/**
* Internal Merkle-Damgard hash utils.
* @module
*/
/**
* Shared 32-bit conditional boolean primitive reused by SHA-256, SHA-1, and MD5 `F`.
* Returns bits from `b` when `a` is set, otherwise from `c`.
* The XOR form is equivalent to MD5's `F(X,Y,Z) = XY v not(X)Z` because the masked terms never
* set the same bit.
* @param a - selector word
* @param b - word chosen when selector bit is set
* @param c - word chosen when selector bit is clear
* @returns Mixed 32-bit word.
* @example
* Combine three words with the shared 32-bit choice primitive.
* ```ts
* Chi(0xffffffff, 0x12345678, 0x87654321);
* ```
*/
function Chi(a, b, c) {
	return a & b ^ ~a & c;
}
/**
* Shared 32-bit majority primitive reused by SHA-256 and SHA-1.
* Returns bits shared by at least two inputs.
* @param a - first input word
* @param b - second input word
* @param c - third input word
* @returns Mixed 32-bit word.
* @example
* Combine three words with the shared 32-bit majority primitive.
* ```ts
* Maj(0xffffffff, 0x12345678, 0x87654321);
* ```
*/
function Maj(a, b, c) {
	return a & b ^ a & c ^ b & c;
}
/**
* Merkle-Damgard hash construction base class.
* Could be used to create MD5, RIPEMD, SHA1, SHA2.
* Accepts only byte-aligned `Uint8Array` input, even when the underlying spec describes bit
* strings with partial-byte tails.
* @param blockLen - internal block size in bytes
* @param outputLen - digest size in bytes
* @param padOffset - trailing length field size in bytes
* @param isLE - whether length and state words are encoded in little-endian
* @example
* Use a concrete subclass to get the shared Merkle-Damgard update/digest flow.
* ```ts
* import { _SHA1 } from '@noble/hashes/legacy.js';
* const hash = new _SHA1();
* hash.update(new Uint8Array([97, 98, 99]));
* hash.digest();
* ```
*/
var HashMD = class {
	blockLen;
	outputLen;
	canXOF = false;
	padOffset;
	isLE;
	buffer;
	view;
	finished = false;
	length = 0;
	pos = 0;
	destroyed = false;
	constructor(blockLen, outputLen, padOffset, isLE) {
		this.blockLen = blockLen;
		this.outputLen = outputLen;
		this.padOffset = padOffset;
		this.isLE = isLE;
		this.buffer = new Uint8Array(blockLen);
		this.view = createView(this.buffer);
	}
	update(data) {
		aexists(this);
		abytes(data);
		const { view, buffer, blockLen } = this;
		const len = data.length;
		let processed = false;
		for (let pos = 0; pos < len;) {
			const take = Math.min(blockLen - this.pos, len - pos);
			if (take === blockLen) {
				const dataView = createView(data);
				for (; blockLen <= len - pos; pos += blockLen) this.process(dataView, pos);
				processed = true;
				continue;
			}
			buffer.set(pos === 0 && take === len ? data : data.subarray(pos, pos + take), this.pos);
			this.pos += take;
			pos += take;
			if (this.pos === blockLen) {
				this.process(view, 0);
				this.pos = 0;
				processed = true;
			}
		}
		this.length += data.length;
		if (processed) this.roundClean();
		return this;
	}
	digestInto(out) {
		aexists(this);
		aoutput(out, this);
		this.finished = true;
		const { buffer, view, blockLen, isLE } = this;
		let { pos } = this;
		buffer[pos++] = 128;
		buffer.fill(0, pos);
		if (this.padOffset > blockLen - pos) {
			this.process(view, 0);
			buffer.fill(0);
		}
		setU64FromNum(view, blockLen - 8, this.length * 8, isLE);
		this.process(view, 0);
		this.roundClean();
		const oview = out === buffer ? view : createView(out);
		const len = this.outputLen;
		const outLen = len / 4;
		const state = this.get();
		if (len % 4 || outLen > state.length) throw new Error("invalid outputLen");
		for (let i = 0; i < outLen; i++) oview.setUint32(4 * i, state[i], isLE);
	}
	digest() {
		const { buffer, outputLen } = this;
		this.digestInto(buffer);
		const res = buffer.slice(0, outputLen);
		this.destroy();
		return res;
	}
	_cloneIntoMeta(to) {
		const { buffer, length, finished, destroyed, pos } = this;
		to.destroyed = destroyed;
		to.finished = finished;
		to.length = length;
		to.pos = pos;
		if (pos) to.buffer.set(buffer);
		return to;
	}
	clone() {
		return this._cloneInto();
	}
};
/**
* Initial SHA-2 state: fractional parts of square roots of first 16 primes 2..53.
* Check out `test/misc/sha2-gen-iv.js` for recomputation guide.
*/
/** Initial SHA256 state from RFC 6234 §6.1: the first 32 bits of the fractional parts of the
* square roots of the first eight prime numbers. Exported as a shared table; callers must treat
* it as read-only because constructors copy words from it by index. */
var SHA256_IV = /* @__PURE__ */ Uint32Array.from([
	1779033703,
	3144134277,
	1013904242,
	2773480762,
	1359893119,
	2600822924,
	528734635,
	1541459225
]);
// node_modules/@noble/hashes/sha2.js
/**
* SHA2 hash function. A.k.a. sha256, sha384, sha512, sha512_224, sha512_256.
* SHA256 is the fastest hash implementable in JS, even faster than Blake3.
* Check out {@link https://www.rfc-editor.org/rfc/rfc4634 | RFC 4634} and
* {@link https://nvlpubs.nist.gov/nistpubs/FIPS/NIST.FIPS.180-4.pdf | FIPS 180-4}.
* @module
*/
/**
* SHA-224 / SHA-256 round constants from RFC 6234 §5.1: the first 32 bits
* of the cube roots of the first 64 primes (2..311).
*/
var SHA256_K = /* @__PURE__ */ Uint32Array.from([
	1116352408,
	1899447441,
	3049323471,
	3921009573,
	961987163,
	1508970993,
	2453635748,
	2870763221,
	3624381080,
	310598401,
	607225278,
	1426881987,
	1925078388,
	2162078206,
	2614888103,
	3248222580,
	3835390401,
	4022224774,
	264347078,
	604807628,
	770255983,
	1249150122,
	1555081692,
	1996064986,
	2554220882,
	2821834349,
	2952996808,
	3210313671,
	3336571891,
	3584528711,
	113926993,
	338241895,
	666307205,
	773529912,
	1294757372,
	1396182291,
	1695183700,
	1986661051,
	2177026350,
	2456956037,
	2730485921,
	2820302411,
	3259730800,
	3345764771,
	3516065817,
	3600352804,
	4094571909,
	275423344,
	430227734,
	506948616,
	659060556,
	883997877,
	958139571,
	1322822218,
	1537002063,
	1747873779,
	1955562222,
	2024104815,
	2227730452,
	2361852424,
	2428436474,
	2756734187,
	3204031479,
	3329325298
]);
/** Reusable SHA-224 / SHA-256 message schedule buffer `W_t` from RFC 6234 §6.2 step 1. */
var SHA256_W = /* @__PURE__ */ new Uint32Array(64);
/** Internal SHA-224 / SHA-256 compression engine from RFC 6234 §6.2. */
var SHA2_32B = class extends HashMD {
	A = 0;
	B = 0;
	C = 0;
	D = 0;
	E = 0;
	F = 0;
	G = 0;
	H = 0;
	constructor(outputLen, IV) {
		super(64, outputLen, 8, false);
		this.A = IV[0] | 0;
		this.B = IV[1] | 0;
		this.C = IV[2] | 0;
		this.D = IV[3] | 0;
		this.E = IV[4] | 0;
		this.F = IV[5] | 0;
		this.G = IV[6] | 0;
		this.H = IV[7] | 0;
	}
	get() {
		const { A, B, C, D, E, F, G, H } = this;
		return [
			A,
			B,
			C,
			D,
			E,
			F,
			G,
			H
		];
	}
	set(A, B, C, D, E, F, G, H) {
		this.A = A | 0;
		this.B = B | 0;
		this.C = C | 0;
		this.D = D | 0;
		this.E = E | 0;
		this.F = F | 0;
		this.G = G | 0;
		this.H = H | 0;
	}
	_cloneInto(to) {
		(to ||= new this.constructor()).set(...this.get());
		return this._cloneIntoMeta(to);
	}
	process(view, offset) {
		for (let i = 0; i < 16; i++, offset += 4) SHA256_W[i] = view.getUint32(offset, false);
		for (let i = 16; i < 64; i++) {
			const W15 = SHA256_W[i - 15];
			const W2 = SHA256_W[i - 2];
			const s0 = rotr(W15, 7) ^ rotr(W15, 18) ^ W15 >>> 3;
			const s1 = rotr(W2, 17) ^ rotr(W2, 19) ^ W2 >>> 10;
			SHA256_W[i] = s1 + SHA256_W[i - 7] + s0 + SHA256_W[i - 16] | 0;
		}
		let { A, B, C, D, E, F, G, H } = this;
		for (let i = 0; i < 64; i++) {
			const sigma1 = rotr(E, 6) ^ rotr(E, 11) ^ rotr(E, 25);
			const T1 = H + sigma1 + Chi(E, F, G) + SHA256_K[i] + SHA256_W[i] | 0;
			const T2 = (rotr(A, 2) ^ rotr(A, 13) ^ rotr(A, 22)) + Maj(A, B, C) | 0;
			H = G;
			G = F;
			F = E;
			E = D + T1 | 0;
			D = C;
			C = B;
			B = A;
			A = T1 + T2 | 0;
		}
		A = A + this.A | 0;
		B = B + this.B | 0;
		C = C + this.C | 0;
		D = D + this.D | 0;
		E = E + this.E | 0;
		F = F + this.F | 0;
		G = G + this.G | 0;
		H = H + this.H | 0;
		this.set(A, B, C, D, E, F, G, H);
	}
	roundClean() {
		clean(SHA256_W);
	}
	destroy() {
		this.destroyed = true;
		this.set(0, 0, 0, 0, 0, 0, 0, 0);
		clean(this.buffer);
	}
};
/** Internal SHA-256 hash class grounded in RFC 6234 §6.2. */
var _SHA256 = class extends SHA2_32B {
	constructor() {
		super(32, SHA256_IV);
	}
};
/**
* SHA2-256 hash function from RFC 4634. In JS it's the fastest: even faster than Blake3. Some info:
*
* - Trying 2^128 hashes would get 50% chance of collision, using birthday attack.
* - BTC network is doing 2^70 hashes/sec (2^95 hashes/year) as per 2025.
* - Each sha256 hash is executing 2^18 bit operations.
* - Good 2024 ASICs can do 200Th/sec with 3500 watts of power, corresponding to 2^36 hashes/joule.
* @param msg - message bytes to hash
* @param opts - Reserved hash options.
* @returns Digest bytes.
* @example
* Hash a message with SHA2-256.
* ```ts
* sha256(new Uint8Array([97, 98, 99]));
* ```
*/
var sha256 = /* @__PURE__ */ createHasher(() => new _SHA256(), /* @__PURE__ */ oidNist(1));
// src/sandbox/modules.ts
/** Modules that are made ready at a time: each holds its bytes, and what is made of them. The others wait. */
var MAKING_MAX = 4;
function hex(data) {
	return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
var Modules = class {
	#store;
	#config;
	#kept = /* @__PURE__ */ new Map();
	#making = /* @__PURE__ */ new Map();
	#waiting = [];
	#places = MAKING_MAX;
	#bytes = 0;
	constructor(store, config) {
		this.#store = store;
		this.#config = config;
	}
	/** How many are kept compiled, and of how many bytes they were made. */
	get kept() {
		return {
			modules: this.#kept.size,
			bytes: this.#bytes
		};
	}
	/**
	* Has a module ready, reading its bytes when they are not here; once, however many ask at the same time. Throws
	* bad_module when it does not compile or is not what digest names, usage when it is too large here.
	*/
	async prepare(digest, fetch, metered) {
		if (digest.length !== 32) throw new Failure("usage", `digest: ${digest.length} bytes, a sha256 has 32`);
		const name = hex(digest);
		const key = `${name} ${metered}`;
		const known = this.#kept.get(key);
		if (known) {
			this.#kept.delete(key);
			this.#kept.set(key, known);
			return {
				...known,
				compileS: 0
			};
		}
		const shared = this.#making.get(key);
		if (shared) try {
			return await shared;
		} catch (error) {
			if (error instanceof Failure) throw error;
			return this.prepare(digest, fetch, metered);
		}
		const making = this.#inTurn(() => this.#make(name, fetch, metered));
		this.#making.set(key, making);
		try {
			return await making;
		} finally {
			this.#making.delete(key);
		}
	}
	async #inTurn(work) {
		if (this.#places) this.#places--;
		else await new Promise((resolve) => this.#waiting.push(resolve));
		try {
			return await work();
		} finally {
			const next = this.#waiting.shift();
			this.#places += next ? 0 : 1;
			next?.();
		}
	}
	async #make(name, fetch, metered) {
		const data = await this.#bytesOf(name, fetch);
		const startMs = performance.now();
		const info = new ModuleInfo(data);
		const about = aboutOf(info);
		const code = await rewritten(info, metered);
		const module = await this.#compile(code);
		const compileS = (performance.now() - startMs) / 1e3;
		const prepared = {
			name,
			metered,
			module,
			about,
			bytes: code.length,
			compileS
		};
		this.#keep(`${name} ${metered}`, prepared);
		return prepared;
	}
	async #bytesOf(name, fetch) {
		const kept = await this.#store.get(name);
		if (kept) {
			if (hex(await digestOf(kept)) === name) return kept;
			await this.#store.drop(name);
		}
		const data = await this.#fetched(fetch);
		if (hex(await digestOf(data)) !== name) throw new Failure("bad_module", "the module's bytes are not those that its sha256 names");
		await this.#store.put(name, data);
		return data;
	}
	async #fetched(fetch) {
		const most = this.#config.moduleBytesMax;
		const pieces = [];
		let size = 0;
		for await (const piece of fetch()) {
			size += piece.length;
			if (size > most) throw new Failure("usage", `the module: it has more than ${most} bytes, which this worker takes at most`);
			pieces.push(piece);
		}
		return concatenated(pieces);
	}
	/** The engine compiles beside this thread, and cannot be stopped; nobody waits for ever. */
	async #compile(data) {
		const { compileMaxS } = this.#config;
		let timer;
		const tooLong = new Promise((_, reject) => {
			const error = new Failure("bad_module", `compiling took longer than ${compileMaxS} s`);
			timer = setTimeout(() => reject(error), 1e3 * compileMaxS);
		});
		try {
			return await Promise.race([WebAssembly.compile(data), tooLong]);
		} catch (error) {
			throw error instanceof Failure ? error : new Failure("bad_module", `wasm: ${saidBy(error)}`);
		} finally {
			clearTimeout(timer);
		}
	}
	#keep(key, prepared) {
		this.#kept.set(key, prepared);
		this.#bytes += prepared.bytes;
		const { modulesMax, modulesBytesMax } = this.#config;
		for (const [oldest, { bytes }] of this.#kept) {
			if (this.#kept.size === 1 || this.#kept.size <= modulesMax && this.#bytes <= modulesBytesMax) break;
			this.#kept.delete(oldest);
			this.#bytes -= bytes;
		}
	}
};
function saidBy(error) {
	return lineOf(error).replace(/^WebAssembly\.\w+\(\):\s*/, "");
}
async function digestOf(data) {
	const subtle = globalThis.crypto?.subtle;
	return subtle ? new Uint8Array(await subtle.digest("SHA-256", data)) : sha256(data);
}
// src/sandbox/group.ts
/** How a run ends that did nothing wrong: gateways take back what waits long, and have it run elsewhere. */
var REASON_OK = REASONS.indexOf("ok");
var REASON_CANCELLED = REASONS.indexOf("cancelled");
/** Runs that one slot may have: those under way, those that wait, and those whose outcomes were not asked for. */
var RUNS_MAX = 2048;
/** Of one answer, but for what goes by reference. */
var ANSWER_BYTES_MAX = 4 << 20;
/** Something that happens again and again. */
var Signal = class {
	#waiting = [];
	/** Waits until it happens next, and no longer than that. */
	wait(timeoutMs) {
		return new Promise((resolve) => {
			let timer;
			const wake = () => {
				clearTimeout(timer);
				resolve();
			};
			this.#waiting.push(wake);
			if (timeoutMs !== void 0) timer = setTimeout(() => {
				this.#waiting = this.#waiting.filter((other) => other !== wake);
				resolve();
			}, timeoutMs);
		});
	}
	happen() {
		const waiting = this.#waiting;
		this.#waiting = [];
		waiting.forEach((wake) => wake());
	}
};
/** What the groups of one slot hold, and how much they may. */
var Room = class {
	bytesMax;
	/** Ends when the inputs of the group that came last are fetched: in the order in which groups run. */
	fetching = Promise.resolve();
	freed = new Signal();
	runs = 0;
	inputBytes = 0;
	fetchedBytes = 0;
	outcomeBytes = 0;
	constructor(config) {
		this.bytesMax = config.heldBytesMax;
	}
	enter(runs, inputBytes) {
		if (this.runs + runs > RUNS_MAX) {
			const said = `${this.runs} are and ${runs} are to come`;
			throw new Failure("overloaded", `${RUNS_MAX} runs may be on a slot, ${said}`);
		}
		if (this.inputBytes > this.bytesMax) throw new Failure("overloaded", `${this.bytesMax} bytes of input may be on a slot, ${this.inputBytes} are`);
		this.runs += runs;
		this.inputBytes += inputBytes;
	}
};
var WAITS = 0;
var CANCELLED = 1;
var ENDED = 2;
var RunningGroup = class {
	program;
	task;
	limits;
	cameMs = performance.now();
	/** Since when runs that are under way are to stop, by place. */
	stopping = /* @__PURE__ */ new Map();
	/** The thread's, while it has some. */
	underWay = null;
	compileS;
	#room;
	#inputBytesMax;
	#data;
	#spans;
	#missing;
	#large;
	#fetched = /* @__PURE__ */ new Map();
	#states;
	#changed = new Signal();
	#over = new Signal();
	#fetchedOne = new Signal();
	#left;
	#untold;
	#ended = [];
	#failure = null;
	#inputFailure = null;
	#isOver = false;
	#isClosed = false;
	/** Takes runs in. Throws usage when they are none that a guest could be given, overloaded when too many are here. */
	constructor(start, limits, room, config) {
		this.program = start.program;
		this.task = start.task;
		this.limits = limits;
		this.compileS = start.compileS ?? 0;
		this.#room = room;
		this.#inputBytesMax = config.inputBytesMax;
		this.#data = start.inputs;
		this.#spans = spansOf(start.inputs, 256);
		this.#missing = this.#spans.flatMap(([from, to], place) => from === to ? [place] : []);
		this.#large = start.large ?? [];
		if (this.#large.length !== this.#missing.length) {
			const said = `${this.#large.length} are given, records refer to ${this.#missing.length}`;
			throw new Failure("usage", `large: ${said}`);
		}
		this.#states = new Uint8Array(this.#spans.length);
		this.#left = this.#untold = this.#spans.length;
		this.#checkSizes();
		room.enter(this.#spans.length, this.#data.length);
		if (this.#large.length) room.fetching = room.fetching.then(() => this.#fetchAll());
	}
	get isDone() {
		return this.#left === 0;
	}
	hasEnded(place) {
		return this.#states[place] === ENDED;
	}
	/** Waits until there is room for outcomes: those who asked for runs have to ask for outcomes. */
	async waitForRoom() {
		while (this.isFull && !this.isDone) await this.#room.freed.wait();
	}
	get isFull() {
		return this.#room.outcomeBytes > this.#room.bytesMax;
	}
	/** Waits until a run can begin; returns those that can, in order, none when all have ended. */
	async toRun() {
		for (;;) {
			const places = [];
			for (let place = 0; place < this.#spans.length; place++) if (this.#states[place] === WAITS) {
				if (this.#isMissing(place)) break;
				places.push(place);
			}
			if (places.length || this.isDone) return places;
			if (this.#inputFailure) throw this.#inputFailure;
			await this.#fetchedOne.wait();
		}
	}
	#isMissing(place) {
		const [from, to] = this.#spans[place];
		return from === to && !this.#fetched.has(place);
	}
	/** Returns the records of runs, one after the other, without their lengths, and where each is. */
	recordsOf(places) {
		const parts = places.map((place) => this.#fetched.get(place) ?? this.#data.subarray(...this.#spans[place]));
		const spans = new Uint32Array(2 * places.length);
		let at = 0;
		parts.forEach((part, index) => {
			spans[2 * index] = at;
			at += part.length;
			spans[2 * index + 1] = at;
		});
		return {
			records: concatenated(parts),
			spans
		};
	}
	/**
	* Takes outcome records in, of runs that have none yet; returns how many ended by themselves, and how many of them not well. What
	* was cancelled is neither: a gateway takes back what it finds a quicker slot for.
	*/
	add(data) {
		const counted = {
			ended: 0,
			failed: 0
		};
		const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
		for (let at = 0; at < data.length;) {
			const size = 4 + view.getUint32(at, true);
			const place = view.getUint32(at + 4, true);
			if (this.#end(place, size === data.length ? data : data.subarray(at, at + size))) {
				const reason = view.getUint8(at + 8);
				counted.ended += reason === REASON_CANCELLED ? 0 : 1;
				counted.failed += reason === REASON_CANCELLED || reason === REASON_OK ? 0 : 1;
			}
			at += size;
		}
		return counted;
	}
	/** Says how a run ended that cannot say it itself. */
	give(place, result, queueS = 0) {
		this.#end(place, writeOutcome(place, result, {
			memoryLimitBytes: this.limits.memoryBytes,
			queueS,
			compileS: 0
		}));
	}
	#end(place, record) {
		if (this.#states[place] === void 0 || this.#states[place] === ENDED) return false;
		this.#states[place] = ENDED;
		this.stopping.delete(place);
		this.#left--;
		this.#drop(place);
		if (!this.#isClosed) {
			this.#room.outcomeBytes += record.length;
			this.#ended.push(record);
		}
		if (this.#left) this.#changed.happen();
		return true;
	}
	#drop(place) {
		const fetched = this.#fetched.get(place);
		if (fetched) {
			this.#fetched.delete(place);
			this.#room.fetchedBytes -= fetched.length;
			this.#room.freed.happen();
		}
	}
	/** Notes that no more will be run: all have ended, or of a failure. */
	finish(failure = null) {
		if (this.#isOver) return;
		this.#isOver = true;
		this.#failure = failure;
		this.#room.inputBytes -= this.#data.length;
		[...this.#fetched.keys()].forEach((place) => this.#drop(place));
		this.#fetchedOne.happen();
		this.#changed.happen();
		this.#over.happen();
	}
	/** Sees that no run is given more than it may. */
	#checkSizes() {
		const common = sizeOf$1(this.task);
		if (this.#data.length + common <= this.#inputBytesMax) return;
		this.#spans.forEach(([from, to]) => {
			if (from !== to && to - from + common > this.#inputBytesMax) this.#checkSize(this.#data, from, to);
		});
	}
	#checkSize(data, from = 0, to = data.length) {
		const total = sizeOf$1({
			...this.task,
			...readInput(data, from, to)
		});
		if (total > this.#inputBytesMax) {
			const said = `${this.#inputBytesMax} bytes of stdin, args and env here, ${total} are given`;
			throw new Failure("usage", `one run gets at most ${said}`);
		}
	}
	async #fetchAll() {
		try {
			for (const [index, place] of this.#missing.entries()) {
				if (this.#isOver) return;
				if (!this.hasEnded(place)) await this.#fetch(place, this.#large[index]);
			}
		} catch (error) {
			this.#inputFailure = error instanceof Failure ? error : new Failure("closed", "an input cannot be read any more");
			this.#fetchedOne.happen();
		}
	}
	async #fetch(place, large) {
		const size = await large.size();
		const most = this.#inputBytesMax + LARGE_BYTES;
		if (size > most) throw new Failure("usage", `large: a record of ${size} bytes, at most ${most} are taken`);
		while (this.#room.fetchedBytes > this.#room.bytesMax && !this.#isOver) await this.#room.freed.wait();
		const pieces = [];
		let left = size;
		for await (const piece of large.bytes()) {
			left -= piece.length;
			if (left < 0) throw new Failure("usage", `large: a record of more than the ${size} bytes that it says`);
			pieces.push(piece);
		}
		const record = concatenated(pieces);
		this.#checkSize(record);
		if (!this.#isOver && !this.hasEnded(place)) {
			this.#fetched.set(place, record);
			this.#room.fetchedBytes += record.length;
			this.#fetchedOne.happen();
		}
	}
	/** Whether every run has an outcome, or a failure is what is left to be told. */
	get isFinished() {
		return this.#isOver;
	}
	/** Waits until there is something to take, or all is over. */
	async wait() {
		if (!this.#ended.length && !this.#isOver) await this.#changed.wait();
	}
	/** Waits until all is over, and no longer than that. */
	async over(timeoutMs) {
		if (!this.#isOver) await this.#over.wait(timeoutMs);
	}
	/** Returns what ended since this was called last. Throws what ended the group. */
	take() {
		const small = [];
		const large = [];
		let taken = 0;
		for (let size = 0; taken < this.#ended.length && size <= ANSWER_BYTES_MAX; taken++) {
			const record = this.#ended[taken];
			size += record.length;
			(record.length > 1048576 ? large : small).push(record);
		}
		this.#ended.splice(0, taken);
		this.#untold -= taken;
		this.#leave(taken, [...small, ...large]);
		if (this.#failure && !taken) throw this.#failure;
		const ended = !this.#untold || this.#isOver && !this.#failure && !this.#ended.length;
		return {
			outcomes: concatenated(small),
			large,
			ended
		};
	}
	#leave(runs, records) {
		this.#room.runs -= runs;
		this.#room.outcomeBytes -= records.reduce((sum, record) => sum + record.length, 0);
		this.#room.freed.happen();
	}
	/** Stops the runs at those places, or all. Those that have ended are left as they are. */
	cancel(places = []) {
		const marked = [];
		for (const place of places.length ? places : this.#states.keys()) {
			if (this.#states[place] !== WAITS) continue;
			if (this.underWay?.has(place)) {
				this.#states[place] = CANCELLED;
				this.stopping.set(place, performance.now());
				marked.push(place);
			} else this.give(place, newResult("cancelled"));
		}
		this.underWay?.stop(marked);
		this.#fetchedOne.happen();
	}
	/** Gives the runs their outcome that were to stop and are under way no more. */
	withdraw() {
		for (const place of [...this.stopping.keys()]) this.give(place, newResult("cancelled"));
	}
	/** Stops all and forgets it: nobody will ask any more. */
	close() {
		if (this.#isClosed) return;
		this.#isClosed = true;
		this.cancel();
		this.#leave(this.#untold, this.#ended);
		this.#ended = [];
		this.#untold = 0;
	}
};
var ENCODER = new TextEncoder();
function sizeOf$1({ args, env, stdin }) {
	return [...args, ...env.flat()].reduce((sum, text) => sum + ENCODER.encode(text).length, 0) + stdin.length;
}
// src/sandbox/thread.ts
/** Modules that it keeps. */
var MODULES_MAX = 8;
var Thread = class {
	/** Ends when it hears; rejected when it dies before. */
	ready;
	control;
	#port;
	#keys = /* @__PURE__ */ new Map();
	#nextKey = 1;
	#task = null;
	#limits = "";
	#isOver = false;
	#behindMs = 0;
	#outputs = null;
	#outputBytes = 0;
	constructor(spawn, listener) {
		this.control = typeof SharedArrayBuffer === "undefined" ? null : Control.fresh();
		this.#port = spawn();
		this.ready = new Promise((resolve, reject) => {
			this.#port.onMessage((message) => this.#hear(message, listener, resolve));
			this.#port.onError((reason) => {
				if (!this.#isOver) {
					this.#isOver = true;
					reject(new Error(reason));
					listener.died(reason);
				}
			});
		});
		this.ready.catch(() => void 0);
		this.#say({
			type: "begin",
			control: this.control?.buffer ?? null
		});
	}
	#say(message, transfer = []) {
		this.#port.post(message, transfer);
	}
	#hear(message, listener, resolve) {
		if (this.#isOver) return;
		switch (message.type) {
			case "ready":
				this.#behindMs = performance.now() - message.nowMs;
				resolve();
				break;
			case "logged":
				listener.logged();
				break;
			case "outcome":
				listener.outcome(message.record);
				break;
			case "refused":
				listener.refused(message.message);
				break;
			case "done": listener.done();
		}
	}
	get isOver() {
		return this.#isOver;
	}
	/** Has runs go, one after the other. */
	run(program, task, limits, batch, waits) {
		const module = this.#keyOf(program);
		this.#setTask(task, limits);
		const places = Uint16Array.from(batch.places);
		const { records, spans } = batch;
		this.#say({
			type: "batch",
			module,
			places,
			spans,
			records,
			...waits
		}, [records.buffer]);
	}
	#keyOf(program) {
		const known = this.#keys.get(program.module);
		const key = known ?? this.#nextKey++;
		this.#keys.delete(program.module);
		this.#keys.set(program.module, key);
		if (known === void 0) {
			this.#say({
				type: "module",
				key,
				module: program.module,
				about: program.about
			});
			const [oldest] = this.#keys;
			if (this.#keys.size > MODULES_MAX && oldest) {
				this.#keys.delete(oldest[0]);
				this.#say({
					type: "forget",
					key: oldest[1]
				});
			}
		}
		return key;
	}
	#setTask(task, limits) {
		const said = JSON.stringify(limits);
		if (task === this.#task && said === this.#limits) return;
		this.#task = task;
		this.#limits = said;
		const { outputBytes } = limits;
		if (this.control && outputBytes > this.#outputBytes && outputBytes <= 1048576) {
			const buffer = newBuffer(2 * outputBytes);
			this.#outputBytes = outputBytes;
			this.#outputs = this.control.outputs(buffer);
			this.#say({
				type: "outputs",
				buffer
			});
		}
		this.#say({
			type: "task",
			task,
			limits
		});
	}
	/** Which run is under way, and since when by this clock; null where that is not known. */
	get running() {
		const running = this.control?.running;
		return running ? {
			place: running.place,
			startedMs: running.startedMs + this.#behindMs
		} : null;
	}
	/** Returns what the run under way has written, where that is known. */
	outputs(limits) {
		return limits.outputBytes <= this.#outputBytes ? this.#outputs : null;
	}
	/** Ends it, whatever it does. */
	end() {
		this.#isOver = true;
		this.#port.terminate();
	}
};
// src/sandbox/slot.ts
/** How often it is looked at what a thread does. */
var LOOK_EVERY_MS = 10;
/** How often in turn a thread may die before a run began, or not start. */
var DEATHS_MAX = 3;
var Slot = class {
	ended = 0;
	failed = 0;
	#spawn;
	#config;
	#room;
	#waiting = [];
	#checked = /* @__PURE__ */ new WeakSet();
	#thread = null;
	#batch = null;
	#current = null;
	#sinceMs = 0;
	#deaths = 0;
	#looking;
	#isClosed = false;
	constructor(spawn, config) {
		this.#spawn = spawn;
		this.#config = config;
		this.#room = new Room(config);
		this.#threadNow();
	}
	get figures() {
		const group = this.#current;
		if (!group) return { busy: false };
		return {
			busy: true,
			module: group.program.name,
			sinceMs: performance.now() - this.#sinceMs
		};
	}
	get heldBytes() {
		return this.#room.inputBytes + this.#room.fetchedBytes + this.#room.outcomeBytes;
	}
	/**
	* Begins runs, which go when those before them have ended. Throws usage when they are none that a guest of this
	* sandbox could be given, overloaded when too many are here.
	*/
	start(start) {
		if (this.#isClosed) throw new Failure("closed", "this slot is closed");
		const { task, program } = start;
		if (!this.#checked.has(task)) {
			checkInvocation(task);
			this.#checked.add(task);
		}
		if (task.deterministic && !program.metered) throw new Failure("usage", "deterministic: the module was not loaded as metered");
		if (program.about.isReactor && !task.entry) throw new Failure("usage", "the module is a reactor, which this worker does not run");
		const group = new RunningGroup(start, limitsOf(task.limits, this.#config), this.#room, this.#config);
		this.#waiting.push(group);
		if (!this.#current) this.#serve();
		return group;
	}
	/** Ends its thread, and all that is on it. */
	close() {
		this.#isClosed = true;
		for (const group of [...this.#current ? [this.#current] : [], ...this.#waiting]) group.cancel();
		this.#thread?.end();
		this.#thread = null;
		this.#endBatch();
	}
	async #serve() {
		for (let group = this.#waiting.shift(); group; group = this.#waiting.shift()) {
			this.#current = group;
			this.#sinceMs = performance.now();
			try {
				await this.#run(group);
				group.finish();
			} catch (error) {
				group.finish(error instanceof Failure ? error : new Failure("closed", "a run could not be begun"));
			}
		}
		this.#current = null;
	}
	async #run(group) {
		while (!group.isDone) {
			await group.waitForRoom();
			const places = await group.toRun();
			if (places.length) await this.#runBatch(group, places);
		}
	}
	async #runBatch(group, places) {
		const thread = this.#threadNow();
		try {
			await thread.ready;
		} catch (error) {
			this.#countDeath(`a thread for guests does not start: ${error.message}`);
			return;
		}
		const wanted = places.filter((place) => !group.hasEnded(place)).slice(0, thread.control ? 256 : 1);
		if (!wanted.length || this.#isClosed) return;
		thread.control?.unmarkAll();
		const waits = {
			waitedS: (performance.now() - group.cameMs) / 1e3,
			compileS: group.compileS
		};
		const ended = new Promise((resolve, reject) => {
			this.#batch = {
				group,
				thread,
				places: new Set(wanted),
				beganMs: performance.now(),
				resolve,
				reject
			};
		});
		group.underWay = {
			has: (place) => this.#batch?.places.has(place) ?? false,
			stop: (stopped) => stopped.forEach((place) => thread.control?.mark(place))
		};
		this.#looking = setInterval(() => this.#look(), LOOK_EVERY_MS);
		try {
			const records = group.recordsOf(wanted);
			thread.run(group.program, group.task, group.limits, {
				places: wanted,
				...records
			}, waits);
			await ended;
		} finally {
			clearInterval(this.#looking);
			this.#batch = null;
			group.underWay = null;
			group.withdraw();
		}
	}
	#threadNow() {
		this.#thread ??= new Thread(this.#spawn, {
			logged: () => this.#drain(),
			outcome: (record) => this.#add(record),
			refused: (message) => this.#batch?.reject(new Failure("usage", message)),
			done: () => {
				this.#drain();
				this.#deaths = 0;
				this.#endBatch();
			},
			died: (reason) => this.#died(reason)
		});
		return this.#thread;
	}
	#endBatch() {
		this.#batch?.resolve();
	}
	#drain() {
		const data = this.#batch?.thread.control?.drain();
		if (data?.length) this.#add(data);
	}
	#add(records) {
		const batch = this.#batch;
		if (batch) {
			const { ended, failed } = batch.group.add(records);
			this.ended += ended;
			this.failed += failed;
			batch.group.compileS = 0;
		}
	}
	/** Sees to what takes too long. */
	#look() {
		this.#drain();
		const batch = this.#batch;
		if (!batch) return;
		const { group, thread } = batch;
		if (thread.control) thread.control.isPaused = group.isFull;
		const running = this.#running(batch);
		if (!running || group.hasEnded(running.place)) return;
		const nowMs = performance.now();
		const wallS = (nowMs - running.startedMs) / 1e3;
		const stoppedMs = group.stopping.get(running.place);
		if (stoppedMs !== void 0 && nowMs - stoppedMs > 1e3 * this.#config.graceS) this.#stop(batch, running.place, "cancelled", "", wallS);
		else if (wallS > group.limits.durationS) {
			const detail = `ran for ${wallS.toFixed(3)} s, it may for ${group.limits.durationS} s`;
			this.#stop(batch, running.place, "deadline", detail, wallS);
		}
	}
	#running(batch) {
		if (batch.thread.control) return batch.thread.running;
		const [place] = batch.places;
		return place === void 0 ? null : {
			place,
			startedMs: batch.beganMs
		};
	}
	/** Ends the thread for the run that is under way, unless that has ended by now. */
	#stop(batch, place, reason, detail, wallS) {
		batch.thread.end();
		this.#thread = null;
		this.#giveLast(batch, place, reason, detail, wallS);
		if (!this.#isClosed) this.#threadNow();
		this.#endBatch();
	}
	#giveLast(batch, place, reason, detail, wallS) {
		this.#drain();
		const { group, thread } = batch;
		if (group.hasEnded(place)) return;
		const isCancelled = reason === "cancelled";
		const result = newResult(reason, detail);
		if (!isCancelled) {
			result.wallS = result.cpuS = wallS;
			writtenBy(thread, group.limits, group.program.about.needsWasi, result);
		}
		const queueS = isCancelled ? 0 : Math.max(0, (performance.now() - group.cameMs) / 1e3 - wallS);
		group.give(place, result, queueS);
		this.ended += isCancelled ? 0 : 1;
		this.failed += isCancelled ? 0 : 1;
	}
	#died(reason) {
		const batch = this.#batch;
		this.#thread = null;
		if (!batch) return;
		const running = this.#running(batch);
		if (running && !batch.group.hasEnded(running.place)) {
			const wallS = (performance.now() - running.startedMs) / 1e3;
			this.#giveLast(batch, running.place, "crash", `the thread that ran it ended: ${reason}`.slice(0, 300), wallS);
			this.#endBatch();
			return;
		}
		this.#drain();
		try {
			this.#countDeath(`the thread for guests ended: ${reason}`);
			this.#endBatch();
		} catch (error) {
			batch.reject(error);
		}
	}
	#countDeath(said) {
		this.#thread = null;
		if (++this.#deaths >= DEATHS_MAX) {
			this.#deaths = 0;
			throw new Failure("overloaded", said.slice(0, 300));
		}
	}
};
/** Fills in what a run had written when it was ended from outside. */
function writtenBy(thread, limits, needsWasi, result) {
	const outputs = needsWasi ? thread.outputs(limits) : null;
	if (outputs) {
		result.stdout = outputs.stdout.taken();
		result.stderr = outputs.stderr.taken();
		result.stdoutCut = outputs.stdout.isCut;
		result.stderrCut = outputs.stderr.isCut;
	}
}
// src/sandbox/sandbox.ts
var Sandbox = class {
	#spawn;
	#config;
	#modules;
	#slots = [];
	constructor(spawn, store, config = {}) {
		this.#spawn = spawn;
		this.#config = {
			...DEFAULTS,
			...config
		};
		this.#modules = new Modules(store, this.#config);
	}
	/** Has a module ready to run; see Modules. */
	prepare(digest, fetch, metered) {
		return this.#modules.prepare(digest, fetch, metered);
	}
	/** Starts a slot, with a thread of its own. */
	newSlot() {
		const slot = new Slot(this.#spawn, this.#config);
		this.#slots.push(slot);
		return slot;
	}
	loads() {
		return this.#slots.map((slot) => slot.figures);
	}
	figures() {
		const total = (of) => this.#slots.reduce((sum, slot) => sum + of(slot), 0);
		const { modules, bytes } = this.#modules.kept;
		return {
			ended: total((slot) => slot.ended),
			failed: total((slot) => slot.failed),
			modulesCached: modules,
			memoryBytes: bytes + total((slot) => slot.heldBytes)
		};
	}
	/** Ends all threads. */
	close() {
		this.#slots.forEach((slot) => slot.close());
	}
};
// src/sandbox/store.ts
/** In memory, as long as the process lives. */
var MemoryStore = class {
	#bytesMax;
	#kept = /* @__PURE__ */ new Map();
	#bytes = 0;
	constructor(bytesMax = 128 << 20) {
		this.#bytesMax = bytesMax;
	}
	async get(name) {
		const data = this.#kept.get(name);
		if (!data) return null;
		this.#kept.delete(name);
		this.#kept.set(name, data);
		return data;
	}
	async put(name, data) {
		await this.drop(name);
		this.#kept.set(name, data);
		this.#bytes += data.length;
		for (const oldest of this.#kept.keys()) {
			if (this.#bytes <= this.#bytesMax) break;
			await this.drop(oldest);
		}
	}
	async drop(name) {
		this.#bytes -= this.#kept.get(name)?.length ?? 0;
		this.#kept.delete(name);
	}
};
// node_modules/capnp-es/dist/shared/capnp-es.D8zdZmih.mjs
var ListElementSize = /* @__PURE__ */ ((ListElementSize2) => {
	ListElementSize2[ListElementSize2["VOID"] = 0] = "VOID";
	ListElementSize2[ListElementSize2["BIT"] = 1] = "BIT";
	ListElementSize2[ListElementSize2["BYTE"] = 2] = "BYTE";
	ListElementSize2[ListElementSize2["BYTE_2"] = 3] = "BYTE_2";
	ListElementSize2[ListElementSize2["BYTE_4"] = 4] = "BYTE_4";
	ListElementSize2[ListElementSize2["BYTE_8"] = 5] = "BYTE_8";
	ListElementSize2[ListElementSize2["POINTER"] = 6] = "POINTER";
	ListElementSize2[ListElementSize2["COMPOSITE"] = 7] = "COMPOSITE";
	return ListElementSize2;
})(ListElementSize || {});
var tmpWord = /* @__PURE__ */ new DataView(/* @__PURE__ */ new ArrayBuffer(8));
new Uint16Array(tmpWord.buffer)[0] = 258;
var DEFAULT_BUFFER_SIZE = 4096;
var DEFAULT_TRAVERSE_LIMIT = 64 << 20;
var LIST_SIZE_MASK = 7;
var MAX_BUFFER_DUMP_BYTES = 8192;
var MAX_INT32 = 2147483647;
var MAX_UINT32 = 4294967295;
var MIN_SINGLE_SEGMENT_GROWTH = 4096;
var NATIVE_LITTLE_ENDIAN = tmpWord.getUint8(0) === 2;
var POINTER_DOUBLE_FAR_MASK = 4;
var POINTER_TYPE_MASK = 3;
var MAX_DEPTH = MAX_INT32;
var MAX_SEGMENT_LENGTH = MAX_UINT32;
var INVARIANT_UNREACHABLE_CODE = "CAPNP-TS000 Unreachable code detected.";
function assertNever(n) {
	throw new Error(`CAPNP-TS000 Unreachable code detected. (never block hit with: ${n})`);
}
var MSG_INVALID_FRAME_HEADER = "CAPNP-TS001 Attempted to parse an invalid message frame header; are you sure this is a Cap'n Proto message?";
var MSG_PACK_NOT_WORD_ALIGNED = "CAPNP-TS003 Attempted to pack a message that was not word-aligned.";
var MSG_SEGMENT_OUT_OF_BOUNDS = "CAPNP-TS004 Segment ID %X is out of bounds for message %s.";
var MSG_SEGMENT_TOO_SMALL = "CAPNP-TS005 First segment must have at least enough room to hold the root pointer (8 bytes).";
var PTR_ADOPT_WRONG_MESSAGE = "CAPNP-TS008 Attempted to adopt %s into a pointer in a different message %s.";
var PTR_ALREADY_ADOPTED = "CAPNP-TS009 Attempted to adopt %s more than once.";
var PTR_COMPOSITE_SIZE_UNDEFINED = "CAPNP-TS010 Attempted to set a composite list without providing a composite element size.";
var PTR_DEPTH_LIMIT_EXCEEDED = "CAPNP-TS011 Nesting depth limit exceeded for %s.";
var PTR_INIT_COMPOSITE_STRUCT = "CAPNP-TS013 Attempted to initialize a struct member from a composite list (%s).";
var PTR_INVALID_FAR_TARGET = "CAPNP-TS015 Target of a far pointer (%s) is another far pointer.";
var PTR_INVALID_LIST_SIZE = "CAPNP-TS016 Invalid list element size: %x.";
var PTR_INVALID_POINTER_TYPE = "CAPNP-TS017 Invalid pointer type: %x.";
var PTR_INVALID_UNION_ACCESS = "CAPNP-TS018 Attempted to access getter on %s for union field %s that is not currently set (wanted: %d, found: %d).";
var PTR_OFFSET_OUT_OF_BOUNDS = "CAPNP-TS019 Pointer offset %a is out of bounds for underlying buffer.";
var PTR_STRUCT_DATA_OUT_OF_BOUNDS = "CAPNP-TS020 Attempted to access out-of-bounds struct data (struct: %s, %d bytes at %a, data words: %d).";
var PTR_STRUCT_POINTER_OUT_OF_BOUNDS = "CAPNP-TS021 Attempted to access out-of-bounds struct pointer (%s, index: %d, length: %d).";
var PTR_TRAVERSAL_LIMIT_EXCEEDED = "CAPNP-TS022 Traversal limit exceeded! Slow down! %s";
var PTR_WRONG_LIST_TYPE = "CAPNP-TS023 Cannot convert %s to a %s list.";
var PTR_WRONG_POINTER_TYPE = "CAPNP-TS024 Attempted to convert pointer %s to a %s type.";
var SEG_GET_NON_ZERO_SINGLE = "CAPNP-TS035 Attempted to get a segment other than 0 (%d) from a single segment arena.";
var SEG_ID_OUT_OF_BOUNDS = "CAPNP-TS036 Attempted to get an out-of-bounds segment (%d).";
var SEG_NOT_WORD_ALIGNED = "CAPNP-TS037 Segment buffer length %d is not a multiple of 8.";
var SEG_REPLACEMENT_BUFFER_TOO_SMALL = "CAPNP-TS038 Attempted to replace a segment buffer with one that is smaller than the allocated space.";
var SEG_SIZE_OVERFLOW = `CAPNP-TS039 Requested size %x exceeds maximum value (${MAX_SEGMENT_LENGTH}).`;
var TYPE_COMPOSITE_SIZE_UNDEFINED = "CAPNP-TS040 Must provide a composite element size for composite list pointers.";
var LIST_NO_MUTABLE = "CAPNP-TS045: Cannot call mutative methods on an immutable list.";
var LIST_NO_SEARCH = "CAPNP-TS046: Search is not supported for list.";
var RPC_NULL_CLIENT = "CAPNP-TS100 Call on null client.";
var RPC_CALL_QUEUE_FULL = "CAPNP-TS101 Promised answer call queue full.";
var RPC_QUEUE_CALL_CANCEL = "CAPNP-TS102 Queue call canceled.";
var RPC_METHOD_NOT_IMPLEMENTED = "CAPNP-TS107 Method not implemented.";
var RPC_METHOD_ERROR = "CAPNP-TS116 RPC method failed at %s.%s(): %s";
function bufferToHex(buffer) {
	const a = new Uint8Array(buffer);
	const h = [];
	for (let i = 0; i < a.byteLength; i++) h.push(pad(a[i].toString(16), 2));
	return `[${h.join(" ")}]`;
}
function dumpBuffer(buffer) {
	const b = buffer instanceof ArrayBuffer ? new Uint8Array(buffer) : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
	const byteLength = Math.min(b.byteLength, MAX_BUFFER_DUMP_BYTES);
	let r = format("\n=== buffer[%d] ===", byteLength);
	for (let j = 0; j < byteLength; j += 16) {
		r += `
${pad(j.toString(16), 8)}: `;
		let s = "";
		let k = 0;
		for (; k < 16 && j + k < b.byteLength; k++) {
			const v = b[j + k];
			r += `${pad(v.toString(16), 2)} `;
			s += v > 31 && v < 255 ? String.fromCharCode(v) : "·";
			if (k === 7) r += " ";
		}
		r += `${" ".repeat((17 - k) * 3)}${s}`;
	}
	r += "\n";
	if (byteLength !== b.byteLength) r += format("=== (truncated %d bytes) ===\n", b.byteLength - byteLength);
	return r;
}
function format(s, ...args) {
	const n = s.length;
	let arg;
	let argIndex = 0;
	let c;
	let escaped = false;
	let i = 0;
	let leadingZero = false;
	let precision;
	let result = "";
	function nextArg() {
		return args[argIndex++];
	}
	function slurpNumber() {
		let digits = "";
		while (/\d/.test(s[i])) {
			digits += s[i++];
			c = s[i];
		}
		return digits.length > 0 ? Number.parseInt(digits, 10) : null;
	}
	for (; i < n; ++i) {
		c = s[i];
		if (escaped) {
			escaped = false;
			if (c === ".") {
				leadingZero = false;
				c = s[++i];
			} else if (c === "0" && s[i + 1] === ".") {
				leadingZero = true;
				i += 2;
				c = s[i];
			} else leadingZero = true;
			precision = slurpNumber();
			switch (c) {
				case "a":
					result += "0x" + pad(Number.parseInt(String(nextArg()), 10).toString(16), 8);
					break;
				case "b":
					result += Number.parseInt(String(nextArg()), 10).toString(2);
					break;
				case "c":
					arg = nextArg();
					result += typeof arg === "string" || arg instanceof String ? arg : String.fromCharCode(Number.parseInt(String(arg), 10));
					break;
				case "d":
					result += Number.parseInt(String(nextArg()), 10);
					break;
				case "f": {
					const tmp = Number.parseFloat(String(nextArg())).toFixed(precision || 6);
					result += leadingZero ? tmp : tmp.replace(/^0/, "");
					break;
				}
				case "j":
					result += JSON.stringify(nextArg());
					break;
				case "o":
					result += "0" + Number.parseInt(String(nextArg()), 10).toString(8);
					break;
				case "s":
					result += nextArg();
					break;
				case "x":
					result += "0x" + Number.parseInt(String(nextArg()), 10).toString(16);
					break;
				case "X":
					result += "0x" + Number.parseInt(String(nextArg()), 10).toString(16).toUpperCase();
					break;
				default: result += c;
			}
		} else if (c === "%") escaped = true;
		else result += c;
	}
	return result;
}
function pad(v, width, pad2 = "0") {
	return v.length >= width ? v : Array.from({ length: width - v.length + 1 }).join(pad2) + v;
}
function padToWord$1(size) {
	return size + 7 & -8;
}
var ObjectSize = class {
	/**
	* Creates a new ObjectSize instance.
	*
	* @param dataByteLength - The number of bytes in the data section of the struct
	* @param pointerLength - The number of pointers in the pointer section of the struct
	*/
	constructor(dataByteLength, pointerLength) {
		this.dataByteLength = dataByteLength;
		this.pointerLength = pointerLength;
	}
	toString() {
		return format("ObjectSize_dw:%d,pc:%d", getDataWordLength(this), this.pointerLength);
	}
};
function getByteLength(o) {
	return o.dataByteLength + o.pointerLength * 8;
}
function getDataWordLength(o) {
	return o.dataByteLength / 8;
}
function getWordLength(o) {
	return o.dataByteLength / 8 + o.pointerLength;
}
function padToWord(o) {
	return new ObjectSize(padToWord$1(o.dataByteLength), o.pointerLength);
}
var Orphan = class {
	/** If this member is not present then the orphan has already been adopted, or something went very wrong. */
	_capnp;
	byteOffset;
	segment;
	constructor(src) {
		const c = getContent(src);
		this.segment = c.segment;
		this.byteOffset = c.byteOffset;
		this._capnp = {};
		this._capnp.type = getTargetPointerType(src);
		switch (this._capnp.type) {
			case PointerType.STRUCT:
				this._capnp.size = getTargetStructSize(src);
				break;
			case PointerType.LIST:
				this._capnp.length = getTargetListLength(src);
				this._capnp.elementSize = getTargetListElementSize(src);
				if (this._capnp.elementSize === ListElementSize.COMPOSITE) this._capnp.size = getTargetCompositeListSize(src);
				break;
			case PointerType.OTHER:
				this._capnp.capId = getCapabilityId(src);
				break;
			default: throw new Error(PTR_INVALID_POINTER_TYPE);
		}
		erasePointer(src);
	}
	/**
	* Adopt (move) this orphan into the target pointer location. This will allocate far pointers in `dst` as needed.
	*
	* @param dst The destination pointer.
	*/
	_moveTo(dst) {
		if (this._capnp === void 0) throw new Error(format(PTR_ALREADY_ADOPTED, this));
		if (this.segment.message !== dst.segment.message) throw new Error(format(PTR_ADOPT_WRONG_MESSAGE, this, dst));
		erase(dst);
		const res = initPointer(this.segment, this.byteOffset, dst);
		switch (this._capnp.type) {
			case PointerType.STRUCT:
				setStructPointer(res.offsetWords, this._capnp.size, res.pointer);
				break;
			case PointerType.LIST: {
				let { offsetWords } = res;
				if (this._capnp.elementSize === ListElementSize.COMPOSITE) offsetWords--;
				setListPointer(offsetWords, this._capnp.elementSize, this._capnp.length, res.pointer, this._capnp.size);
				break;
			}
			case PointerType.OTHER:
				setInterfacePointer(this._capnp.capId, res.pointer);
				break;
			/* istanbul ignore next */
			default: throw new Error(PTR_INVALID_POINTER_TYPE);
		}
		this._capnp = void 0;
	}
	dispose() {
		if (this._capnp === void 0) return;
		switch (this._capnp.type) {
			case PointerType.STRUCT:
				this.segment.fillZeroWords(this.byteOffset, getWordLength(this._capnp.size));
				break;
			case PointerType.LIST: {
				const byteLength = getListByteLength(this._capnp.elementSize, this._capnp.length, this._capnp.size);
				this.segment.fillZeroWords(this.byteOffset, byteLength);
				break;
			}
		}
		this._capnp = void 0;
	}
	[Symbol.for("nodejs.util.inspect.custom")]() {
		return format("Orphan_%d@%a,type:%s", this.segment.id, this.byteOffset, this._capnp && this._capnp.type);
	}
};
function adopt(src, p) {
	src._moveTo(p);
}
function disown(p) {
	return new Orphan(p);
}
function dump$1(p) {
	return bufferToHex(p.segment.buffer.slice(p.byteOffset, p.byteOffset + 8));
}
function getListByteLength(elementSize, length, compositeSize) {
	switch (elementSize) {
		case ListElementSize.BIT: return padToWord$1(length + 7 >>> 3);
		case ListElementSize.BYTE:
		case ListElementSize.BYTE_2:
		case ListElementSize.BYTE_4:
		case ListElementSize.BYTE_8:
		case ListElementSize.POINTER:
		case ListElementSize.VOID: return padToWord$1(getListElementByteLength(elementSize) * length);
		/* istanbul ignore next */
		case ListElementSize.COMPOSITE:
			if (compositeSize === void 0) throw new Error(format(PTR_INVALID_LIST_SIZE, NaN));
			return length * padToWord$1(getByteLength(compositeSize));
		/* istanbul ignore next */
		default: throw new Error(PTR_INVALID_LIST_SIZE);
	}
}
function getListElementByteLength(elementSize) {
	switch (elementSize) {
		/* istanbul ignore next */
		case ListElementSize.BIT: return NaN;
		case ListElementSize.BYTE: return 1;
		case ListElementSize.BYTE_2: return 2;
		case ListElementSize.BYTE_4: return 4;
		case ListElementSize.BYTE_8:
		case ListElementSize.POINTER: return 8;
		/* istanbul ignore next */
		case ListElementSize.COMPOSITE: return NaN;
		/* istanbul ignore next */
		case ListElementSize.VOID: return 0;
		/* istanbul ignore next */
		default: throw new Error(format(PTR_INVALID_LIST_SIZE, elementSize));
	}
}
function add(offset, p) {
	return new Pointer(p.segment, p.byteOffset + offset, p._capnp.depthLimit);
}
function copyFrom(src, p) {
	if (p.segment === src.segment && p.byteOffset === src.byteOffset) return;
	erase(p);
	if (isNull$1(src)) return;
	switch (getTargetPointerType(src)) {
		case PointerType.STRUCT:
			copyFromStruct(src, p);
			break;
		case PointerType.LIST:
			copyFromList(src, p);
			break;
		case PointerType.OTHER:
			copyFromInterface(src, p);
			break;
		/* istanbul ignore next */
		default: throw new Error(format(PTR_INVALID_POINTER_TYPE, getTargetPointerType(p)));
	}
}
function erase(p) {
	if (isNull$1(p)) return;
	let c;
	switch (getTargetPointerType(p)) {
		case PointerType.STRUCT: {
			const size = getTargetStructSize(p);
			c = getContent(p);
			c.segment.fillZeroWords(c.byteOffset, size.dataByteLength / 8);
			for (let i = 0; i < size.pointerLength; i++) erase(add(i * 8, c));
			break;
		}
		case PointerType.LIST: {
			const elementSize = getTargetListElementSize(p);
			const length = getTargetListLength(p);
			let contentWords = padToWord$1(length * getListElementByteLength(elementSize));
			c = getContent(p);
			if (elementSize === ListElementSize.POINTER) {
				for (let i = 0; i < length; i++) erase(new Pointer(c.segment, c.byteOffset + i * 8, p._capnp.depthLimit - 1));
				break;
			} else if (elementSize === ListElementSize.COMPOSITE) {
				const tag = add(-8, c);
				const compositeSize = getStructSize(tag);
				const compositeByteLength = getByteLength(compositeSize);
				contentWords = getOffsetWords(tag);
				c.segment.setWordZero(c.byteOffset - 8);
				for (let i = 0; i < length; i++) for (let j = 0; j < compositeSize.pointerLength; j++) erase(new Pointer(c.segment, c.byteOffset + i * compositeByteLength + j * 8, p._capnp.depthLimit - 1));
			}
			c.segment.fillZeroWords(c.byteOffset, contentWords);
			break;
		}
		case PointerType.OTHER: break;
		default: throw new Error(format(PTR_INVALID_POINTER_TYPE, getTargetPointerType(p)));
	}
	erasePointer(p);
}
function erasePointer(p) {
	if (getPointerType(p) === PointerType.FAR) {
		const landingPad = followFar(p);
		if (isDoubleFar(p)) landingPad.segment.setWordZero(landingPad.byteOffset + 8);
		landingPad.segment.setWordZero(landingPad.byteOffset);
	}
	p.segment.setWordZero(p.byteOffset);
}
function followFar(p) {
	return new Pointer(p.segment.message.getSegment(p.segment.getUint32(p.byteOffset + 4)), (p.segment.getUint32(p.byteOffset) >>> 3) * 8, p._capnp.depthLimit - 1);
}
function followFars(p) {
	if (getPointerType(p) === PointerType.FAR) {
		const landingPad = followFar(p);
		if (isDoubleFar(p)) landingPad.byteOffset += 8;
		return landingPad;
	}
	return p;
}
function getCapabilityId(p) {
	return p.segment.getUint32(p.byteOffset + 4);
}
function isCompositeList(p) {
	return getTargetPointerType(p) === PointerType.LIST && getTargetListElementSize(p) === ListElementSize.COMPOSITE;
}
function getContent(p, ignoreCompositeIndex) {
	let c;
	if (isDoubleFar(p)) {
		const landingPad = followFar(p);
		c = new Pointer(p.segment.message.getSegment(getFarSegmentId(landingPad)), getOffsetWords(landingPad) * 8);
	} else {
		const target = followFars(p);
		c = new Pointer(target.segment, target.byteOffset + 8 + getOffsetWords(target) * 8);
	}
	if (isCompositeList(p)) c.byteOffset += 8;
	if (!ignoreCompositeIndex && p._capnp.compositeIndex !== void 0) {
		c.byteOffset -= 8;
		c.byteOffset += 8 + p._capnp.compositeIndex * getByteLength(padToWord(getStructSize(c)));
	}
	return c;
}
function getFarSegmentId(p) {
	return p.segment.getUint32(p.byteOffset + 4);
}
function getListElementSize(p) {
	return p.segment.getUint32(p.byteOffset + 4) & LIST_SIZE_MASK;
}
function getListLength(p) {
	return p.segment.getUint32(p.byteOffset + 4) >>> 3;
}
function getOffsetWords(p) {
	const o = p.segment.getInt32(p.byteOffset);
	return o & 2 ? o >> 3 : o >> 2;
}
function getPointerType(p) {
	return p.segment.getUint32(p.byteOffset) & POINTER_TYPE_MASK;
}
function getStructDataWords(p) {
	return p.segment.getUint16(p.byteOffset + 4);
}
function getStructPointerLength(p) {
	return p.segment.getUint16(p.byteOffset + 6);
}
function getStructSize(p) {
	return new ObjectSize(getStructDataWords(p) * 8, getStructPointerLength(p));
}
function getTargetCompositeListTag(p) {
	const c = getContent(p);
	c.byteOffset -= 8;
	return c;
}
function getTargetCompositeListSize(p) {
	return getStructSize(getTargetCompositeListTag(p));
}
function getTargetListElementSize(p) {
	return getListElementSize(followFars(p));
}
function getTargetListLength(p) {
	const t = followFars(p);
	if (getListElementSize(t) === ListElementSize.COMPOSITE) return getOffsetWords(getTargetCompositeListTag(p));
	return getListLength(t);
}
function getTargetPointerType(p) {
	const t = getPointerType(followFars(p));
	if (t === PointerType.FAR) throw new Error(format(PTR_INVALID_FAR_TARGET, p));
	return t;
}
function getTargetStructSize(p) {
	return getStructSize(followFars(p));
}
function initPointer(contentSegment, contentOffset, p) {
	if (p.segment !== contentSegment) {
		if (!contentSegment.hasCapacity(8)) {
			const landingPad2 = p.segment.allocate(16);
			setFarPointer(true, landingPad2.byteOffset / 8, landingPad2.segment.id, p);
			setFarPointer(false, contentOffset / 8, contentSegment.id, landingPad2);
			landingPad2.byteOffset += 8;
			return new PointerAllocationResult(landingPad2, 0);
		}
		const landingPad = contentSegment.allocate(8);
		if (landingPad.segment.id !== contentSegment.id) throw new Error(INVARIANT_UNREACHABLE_CODE);
		setFarPointer(false, landingPad.byteOffset / 8, landingPad.segment.id, p);
		return new PointerAllocationResult(landingPad, (contentOffset - landingPad.byteOffset - 8) / 8);
	}
	return new PointerAllocationResult(p, (contentOffset - p.byteOffset - 8) / 8);
}
function isDoubleFar(p) {
	return getPointerType(p) === PointerType.FAR && (p.segment.getUint32(p.byteOffset) & POINTER_DOUBLE_FAR_MASK) !== 0;
}
function isNull$1(p) {
	return p.segment.isWordZero(p.byteOffset);
}
function relocateTo(dst, src) {
	const t = followFars(src);
	const lo = t.segment.getUint8(t.byteOffset) & 3;
	const hi = t.segment.getUint32(t.byteOffset + 4);
	erase(dst);
	const res = initPointer(t.segment, t.byteOffset + 8 + getOffsetWords(t) * 8, dst);
	res.pointer.segment.setUint32(res.pointer.byteOffset, lo | res.offsetWords << 2);
	res.pointer.segment.setUint32(res.pointer.byteOffset + 4, hi);
	erasePointer(src);
}
function setFarPointer(doubleFar, offsetWords, segmentId, p) {
	const A = PointerType.FAR;
	const B = doubleFar ? 1 : 0;
	const C = offsetWords;
	const D = segmentId;
	p.segment.setUint32(p.byteOffset, A | B << 2 | C << 3);
	p.segment.setUint32(p.byteOffset + 4, D);
}
function setInterfacePointer(capId, p) {
	p.segment.setUint32(p.byteOffset, PointerType.OTHER);
	p.segment.setUint32(p.byteOffset + 4, capId);
}
function getInterfacePointer(p) {
	return p.segment.getUint32(p.byteOffset + 4);
}
function setListPointer(offsetWords, size, length, p, compositeSize) {
	const A = PointerType.LIST;
	const B = offsetWords;
	const C = size;
	let D = length;
	if (size === ListElementSize.COMPOSITE) {
		if (compositeSize === void 0) throw new TypeError(TYPE_COMPOSITE_SIZE_UNDEFINED);
		D *= getWordLength(compositeSize);
	}
	p.segment.setUint32(p.byteOffset, A | B << 2);
	p.segment.setUint32(p.byteOffset + 4, C | D << 3);
}
function setStructPointer(offsetWords, size, p) {
	const A = PointerType.STRUCT;
	const B = offsetWords;
	const C = getDataWordLength(size);
	const D = size.pointerLength;
	p.segment.setUint32(p.byteOffset, A | B << 2);
	p.segment.setUint16(p.byteOffset + 4, C);
	p.segment.setUint16(p.byteOffset + 6, D);
}
function validate(pointerType, p, elementSize) {
	if (isNull$1(p)) return;
	const t = followFars(p);
	if ((t.segment.getUint32(t.byteOffset) & POINTER_TYPE_MASK) !== pointerType) throw new Error(format(PTR_WRONG_POINTER_TYPE, p, pointerType));
	if (elementSize !== void 0) {
		if ((t.segment.getUint32(t.byteOffset + 4) & LIST_SIZE_MASK) !== elementSize) throw new Error(format(PTR_WRONG_LIST_TYPE, p, ListElementSize[elementSize]));
	}
}
function copyFromInterface(src, dst) {
	const srcCapId = getInterfacePointer(src);
	if (srcCapId < 0) return;
	const srcCapTable = src.segment.message._capnp.capTable;
	if (!srcCapTable) return;
	const client = srcCapTable[srcCapId];
	if (!client) return;
	setInterfacePointer(dst.segment.message.addCap(client), dst);
}
function copyFromList(src, dst) {
	if (dst._capnp.depthLimit <= 0) throw new Error(PTR_DEPTH_LIMIT_EXCEEDED);
	const srcContent = getContent(src);
	const srcElementSize = getTargetListElementSize(src);
	const srcLength = getTargetListLength(src);
	let srcCompositeSize;
	let srcStructByteLength;
	let dstContent;
	if (srcElementSize === ListElementSize.POINTER) {
		dstContent = dst.segment.allocate(srcLength << 3);
		for (let i = 0; i < srcLength; i++) copyFrom(new Pointer(srcContent.segment, srcContent.byteOffset + (i << 3), src._capnp.depthLimit - 1), new Pointer(dstContent.segment, dstContent.byteOffset + (i << 3), dst._capnp.depthLimit - 1));
	} else if (srcElementSize === ListElementSize.COMPOSITE) {
		srcCompositeSize = padToWord(getTargetCompositeListSize(src));
		srcStructByteLength = getByteLength(srcCompositeSize);
		dstContent = dst.segment.allocate(getByteLength(srcCompositeSize) * srcLength + 8);
		dstContent.segment.copyWord(dstContent.byteOffset, srcContent.segment, srcContent.byteOffset - 8);
		if (srcCompositeSize.dataByteLength > 0) {
			const wordLength = getWordLength(srcCompositeSize) * srcLength;
			dstContent.segment.copyWords(dstContent.byteOffset + 8, srcContent.segment, srcContent.byteOffset, wordLength);
		}
		for (let i = 0; i < srcLength; i++) for (let j = 0; j < srcCompositeSize.pointerLength; j++) {
			const offset = i * srcStructByteLength + srcCompositeSize.dataByteLength + (j << 3);
			copyFrom(new Pointer(srcContent.segment, srcContent.byteOffset + offset, src._capnp.depthLimit - 1), new Pointer(dstContent.segment, dstContent.byteOffset + offset + 8, dst._capnp.depthLimit - 1));
		}
	} else {
		const byteLength = padToWord$1(srcElementSize === ListElementSize.BIT ? srcLength + 7 >>> 3 : getListElementByteLength(srcElementSize) * srcLength);
		const wordLength = byteLength >>> 3;
		dstContent = dst.segment.allocate(byteLength);
		dstContent.segment.copyWords(dstContent.byteOffset, srcContent.segment, srcContent.byteOffset, wordLength);
	}
	const res = initPointer(dstContent.segment, dstContent.byteOffset, dst);
	setListPointer(res.offsetWords, srcElementSize, srcLength, res.pointer, srcCompositeSize);
}
function copyFromStruct(src, dst) {
	if (dst._capnp.depthLimit <= 0) throw new Error(PTR_DEPTH_LIMIT_EXCEEDED);
	const srcContent = getContent(src);
	const srcSize = getTargetStructSize(src);
	const srcDataWordLength = getDataWordLength(srcSize);
	const dstContent = dst.segment.allocate(getByteLength(srcSize));
	dstContent.segment.copyWords(dstContent.byteOffset, srcContent.segment, srcContent.byteOffset, srcDataWordLength);
	for (let i = 0; i < srcSize.pointerLength; i++) {
		const offset = srcSize.dataByteLength + i * 8;
		copyFrom(new Pointer(srcContent.segment, srcContent.byteOffset + offset, src._capnp.depthLimit - 1), new Pointer(dstContent.segment, dstContent.byteOffset + offset, dst._capnp.depthLimit - 1));
	}
	if (dst._capnp.compositeList) return;
	const res = initPointer(dstContent.segment, dstContent.byteOffset, dst);
	setStructPointer(res.offsetWords, srcSize, res.pointer);
}
function trackPointerAllocation(message, p) {
	message._capnp.traversalLimit -= 8;
	if (message._capnp.traversalLimit <= 0) throw new Error(format(PTR_TRAVERSAL_LIMIT_EXCEEDED, p));
}
var PointerAllocationResult = class {
	constructor(pointer, offsetWords) {
		this.pointer = pointer;
		this.offsetWords = offsetWords;
	}
};
var PointerType = /* @__PURE__ */ ((PointerType2) => {
	PointerType2[PointerType2["STRUCT"] = 0] = "STRUCT";
	PointerType2[PointerType2["LIST"] = 1] = "LIST";
	PointerType2[PointerType2["FAR"] = 2] = "FAR";
	PointerType2[PointerType2["OTHER"] = 3] = "OTHER";
	return PointerType2;
})(PointerType || {});
var Pointer = class {
	static _capnp = { displayName: "Pointer" };
	_capnp;
	/** Offset, in bytes, from the start of the segment to the beginning of this pointer. */
	byteOffset;
	/**
	* The starting segment for this pointer's data. In the case of a far pointer, the actual content this pointer is
	* referencing will be in another segment within the same message.
	*/
	segment;
	constructor(segment, byteOffset, depthLimit = MAX_DEPTH) {
		this._capnp = {
			compositeList: false,
			depthLimit
		};
		this.segment = segment;
		this.byteOffset = byteOffset;
		if (depthLimit < 1) throw new Error(format(PTR_DEPTH_LIMIT_EXCEEDED, this));
		trackPointerAllocation(segment.message, this);
		if (byteOffset < 0 || byteOffset > segment.byteLength) throw new Error(format(PTR_OFFSET_OUT_OF_BOUNDS, byteOffset));
	}
	[Symbol.toStringTag]() {
		return format("Pointer_%d", this.segment.id);
	}
	toString() {
		return format("->%d@%a%s", this.segment.id, this.byteOffset, dump$1(this));
	}
};
var List = class List extends Pointer {
	static _capnp = {
		displayName: "List<Generic>",
		size: ListElementSize.VOID
	};
	constructor(segment, byteOffset, depthLimit) {
		super(segment, byteOffset, depthLimit);
		return new Proxy(this, List.#proxyHandler);
	}
	static #proxyHandler = { get(target, prop, receiver) {
		const val = Reflect.get(target, prop, receiver);
		if (val !== void 0) return val;
		if (typeof prop === "string") return target.get(+prop);
	} };
	get length() {
		return getTargetListLength(this);
	}
	toArray() {
		const { length } = this;
		const res = Array.from({ length });
		for (let i = 0; i < length; i++) res[i] = this.at(i);
		return res;
	}
	get(_index) {
		throw new TypeError("Cannot get from a generic list.");
	}
	set(_index, _value) {
		throw new TypeError("Cannot set on a generic list.");
	}
	at(index) {
		return this.get(index < 0 ? this.length + index : index);
	}
	concat(other) {
		const { length } = this;
		const otherLength = other.length;
		const res = Array.from({ length: length + otherLength });
		for (let i = 0; i < length; i++) res[i] = this.at(i);
		for (let i = 0; i < otherLength; i++) res[i + length] = other.at(i);
		return res;
	}
	some(cb, _this) {
		for (let i = 0; i < this.length; i++) if (cb.call(_this, this.at(i), i, this)) return true;
		return false;
	}
	filter(cb, _this) {
		const res = [];
		for (let i = 0; i < this.length; i++) {
			const value = this.at(i);
			if (cb.call(_this, value, i, this)) res.push(value);
		}
		return res;
	}
	find(cb, _this) {
		for (let i = 0; i < this.length; i++) {
			const value = this.at(i);
			if (cb.call(_this, value, i, this)) return value;
		}
	}
	findIndex(cb, _this) {
		for (let i = 0; i < this.length; i++) {
			const value = this.at(i);
			if (cb.call(_this, value, i, this)) return i;
		}
		return -1;
	}
	forEach(cb, _this) {
		for (let i = 0; i < this.length; i++) cb.call(_this, this.at(i), i, this);
	}
	map(cb, _this) {
		const { length } = this;
		const res = Array.from({ length });
		for (let i = 0; i < length; i++) res[i] = cb.call(_this, this.at(i), i, this);
		return res;
	}
	flatMap(cb, _this) {
		const res = [];
		for (let i = 0; i < this.length; i++) {
			const r = cb.call(_this, this.at(i), i, this);
			res.push(...Array.isArray(r) ? r : [r]);
		}
		return res;
	}
	every(cb, _this) {
		for (let i = 0; i < this.length; i++) if (!cb.call(_this, this.at(i), i, this)) return false;
		return true;
	}
	reduce(cb, initialValue) {
		let i = 0;
		let res;
		if (initialValue === void 0) {
			res = this.at(0);
			i++;
		} else res = initialValue;
		for (; i < this.length; i++) res = cb(res, this.at(i), i, this);
		return res;
	}
	reduceRight(cb, initialValue) {
		let i = this.length - 1;
		let res;
		if (initialValue === void 0) {
			res = this.at(i);
			i--;
		} else res = initialValue;
		for (; i >= 0; i--) res = cb(res, this.at(i), i, this);
		return res;
	}
	slice(start = 0, end) {
		const length = end ? Math.min(this.length, end) : this.length;
		const res = Array.from({ length: length - start });
		for (let i = start; i < length; i++) res[i] = this.at(i);
		return res;
	}
	join(separator) {
		return this.toArray().join(separator);
	}
	toReversed() {
		return this.toArray().reverse();
	}
	toSorted(compareFn) {
		return this.toArray().sort(compareFn);
	}
	toSpliced(start, deleteCount, ...items) {
		return this.toArray().splice(start, deleteCount, ...items);
	}
	fill(value, start, end) {
		const { length } = this;
		const s = Math.max(start ?? 0, 0);
		const e = Math.min(end ?? length, length);
		for (let i = s; i < e; i++) this.set(i, value);
		return this;
	}
	copyWithin(target, start, end) {
		const { length } = this;
		const e = end ?? length;
		const s = start < 0 ? Math.max(length + start, 0) : start;
		const t = target < 0 ? Math.max(length + target, 0) : target;
		const len = Math.min(e - s, length - t);
		for (let i = 0; i < len; i++) this.set(t + i, this.at(s + i));
		return this;
	}
	keys() {
		return Array.from({ length: this.length }, (_, i) => i)[Symbol.iterator]();
	}
	values() {
		return this.toArray().values();
	}
	entries() {
		return this.toArray().entries();
	}
	flat(depth) {
		return this.toArray().flat(depth);
	}
	with(index, value) {
		return this.toArray().with(index, value);
	}
	includes(_searchElement, _fromIndex) {
		throw new Error(LIST_NO_SEARCH);
	}
	findLast(_cb, _thisArg) {
		throw new Error(LIST_NO_SEARCH);
	}
	findLastIndex(_cb, _t) {
		throw new Error(LIST_NO_SEARCH);
	}
	indexOf(_searchElement, _fromIndex) {
		throw new Error(LIST_NO_SEARCH);
	}
	lastIndexOf(_searchElement, _fromIndex) {
		throw new Error(LIST_NO_SEARCH);
	}
	pop() {
		throw new Error(LIST_NO_MUTABLE);
	}
	push(..._items) {
		throw new Error(LIST_NO_MUTABLE);
	}
	reverse() {
		throw new Error(LIST_NO_MUTABLE);
	}
	shift() {
		throw new Error(LIST_NO_MUTABLE);
	}
	unshift(..._items) {
		throw new Error(LIST_NO_MUTABLE);
	}
	splice(_start, _deleteCount, ..._rest) {
		throw new Error(LIST_NO_MUTABLE);
	}
	sort(_fn) {
		throw new Error(LIST_NO_MUTABLE);
	}
	get [Symbol.unscopables]() {
		return Array.prototype[Symbol.unscopables];
	}
	[Symbol.iterator]() {
		return this.values();
	}
	toJSON() {
		return this.toArray();
	}
	toString() {
		return this.join(",");
	}
	toLocaleString(_locales, _options) {
		return this.toString();
	}
	[Symbol.toStringTag]() {
		return "[object Array]";
	}
	static [Symbol.toStringTag]() {
		return this._capnp.displayName;
	}
};
function initList$1(elementSize, length, list, compositeSize) {
	let c;
	switch (elementSize) {
		case ListElementSize.BIT:
			c = list.segment.allocate(Math.ceil(length / 8));
			break;
		case ListElementSize.BYTE:
		case ListElementSize.BYTE_2:
		case ListElementSize.BYTE_4:
		case ListElementSize.BYTE_8:
		case ListElementSize.POINTER:
			c = list.segment.allocate(length * getListElementByteLength(elementSize));
			break;
		case ListElementSize.COMPOSITE: {
			if (compositeSize === void 0) throw new Error(format(PTR_COMPOSITE_SIZE_UNDEFINED));
			compositeSize = padToWord(compositeSize);
			const byteLength = getByteLength(compositeSize) * length;
			c = list.segment.allocate(byteLength + 8);
			setStructPointer(length, compositeSize, c);
			break;
		}
		case ListElementSize.VOID:
			setListPointer(0, elementSize, length, list);
			return;
		default: throw new Error(format(PTR_INVALID_LIST_SIZE, elementSize));
	}
	const res = initPointer(c.segment, c.byteOffset, list);
	setListPointer(res.offsetWords, elementSize, length, res.pointer, compositeSize);
}
var Data = class extends List {
	static fromPointer(pointer) {
		validate(PointerType.LIST, pointer, ListElementSize.BYTE);
		return this._fromPointerUnchecked(pointer);
	}
	static _fromPointerUnchecked(pointer) {
		return new this(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
	}
	/**
	* Copy the contents of `src` into this Data pointer. If `src` is smaller than the length of this pointer then the
	* remaining bytes will be zeroed out. Extra bytes in `src` are ignored.
	*
	* @param src The source buffer.
	*/
	copyBuffer(src) {
		const c = getContent(this);
		const dstLength = this.length;
		const srcLength = src.byteLength;
		const i = src instanceof ArrayBuffer ? new Uint8Array(src) : new Uint8Array(src.buffer, src.byteOffset, Math.min(dstLength, srcLength));
		const o = new Uint8Array(c.segment.buffer, c.byteOffset, this.length);
		o.set(i);
		if (dstLength > srcLength) o.fill(0, srcLength, dstLength);
	}
	/**
	* Read a byte from the specified offset.
	*
	* @param byteOffset The byte offset to read.
	* @returns The byte value.
	*/
	get(byteOffset) {
		const c = getContent(this);
		return c.segment.getUint8(c.byteOffset + byteOffset);
	}
	/**
	* Write a byte at the specified offset.
	*
	* @param byteOffset The byte offset to set.
	* @param value The byte value to set.
	*/
	set(byteOffset, value) {
		const c = getContent(this);
		c.segment.setUint8(c.byteOffset + byteOffset, value);
	}
	/**
	* Creates a **copy** of the underlying buffer data and returns it as an ArrayBuffer.
	*
	* To obtain a reference to the underlying buffer instead, use `toUint8Array()` or `toDataView()`.
	*
	* @returns A copy of this data buffer.
	*/
	toArrayBuffer() {
		const c = getContent(this);
		return c.segment.buffer.slice(c.byteOffset, c.byteOffset + this.length);
	}
	/**
	* Convert this Data pointer to a DataView representing the pointer's contents.
	*
	* WARNING: The DataView references memory from a message segment, so do not venture outside the bounds of the
	* DataView or else BAD THINGS.
	*
	* @returns A live reference to the underlying buffer.
	*/
	toDataView() {
		const c = getContent(this);
		return new DataView(c.segment.buffer, c.byteOffset, this.length);
	}
	[Symbol.toStringTag]() {
		return `Data_${super.toString()}`;
	}
	/**
	* Convert this Data pointer to a Uint8Array representing the pointer's contents.
	*
	* WARNING: The Uint8Array references memory from a message segment, so do not venture outside the bounds of the
	* Uint8Array or else BAD THINGS.
	*
	* @returns A live reference to the underlying buffer.
	*/
	toUint8Array() {
		const c = getContent(this);
		return new Uint8Array(c.segment.buffer, c.byteOffset, this.length);
	}
};
var textEncoder = new TextEncoder();
var textDecoder = new TextDecoder();
var Text = class extends List {
	static fromPointer(pointer) {
		validate(PointerType.LIST, pointer, ListElementSize.BYTE);
		return textFromPointerUnchecked(pointer);
	}
	/**
	* Read a utf-8 encoded string value from this pointer.
	*
	* @param index The index at which to start reading; defaults to zero.
	* @returns The string value.
	*/
	get(index = 0) {
		if (isNull$1(this)) return "";
		const c = getContent(this);
		return textDecoder.decode(new Uint8Array(c.segment.buffer, c.byteOffset + index, this.length - index));
	}
	/**
	* Get the number of utf-8 encoded bytes in this text. This does **not** include the NUL byte.
	*
	* @returns The number of bytes allocated for the text.
	*/
	get length() {
		return super.length - 1;
	}
	/**
	* Write a utf-8 encoded string value starting at the specified index.
	*
	* @param index The index at which to start copying the string. Note that if this is not zero the bytes
	* before `index` will be left as-is. All bytes after `index` will be overwritten.
	* @param value The string value to set.
	*/
	set(index, value) {
		const src = textEncoder.encode(value);
		const dstLength = src.byteLength + index;
		let c;
		let original;
		if (!isNull$1(this)) {
			c = getContent(this);
			const originalLength = Math.min(this.length, index);
			original = new Uint8Array(c.segment.buffer.slice(c.byteOffset, c.byteOffset + originalLength));
			erase(this);
		}
		initList$1(ListElementSize.BYTE, dstLength + 1, this);
		c = getContent(this);
		const dst = new Uint8Array(c.segment.buffer, c.byteOffset, dstLength);
		if (original) dst.set(original);
		dst.set(src, index);
	}
	toString() {
		return this.get();
	}
	toJSON() {
		return this.get();
	}
	[Symbol.toPrimitive]() {
		return this.get();
	}
	[Symbol.toStringTag]() {
		return `Text_${super.toString()}`;
	}
};
function textFromPointerUnchecked(pointer) {
	return new Text(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
}
var Struct = class extends Pointer {
	static _capnp = { displayName: "Struct" };
	/**
	* Create a new pointer to a struct.
	*
	* @param segment The segment the pointer resides in.
	* @param byteOffset The offset from the beginning of the segment to the beginning of the pointer data.
	* @param depthLimit The nesting depth limit for this object.
	* @param compositeIndex If set, then this pointer is actually a reference to a composite list
	* (`this._getPointerTargetType() === PointerType.LIST`), and this number is used as the index of the struct within
	* the list. It is not valid to call `initStruct()` on a composite struct – the struct contents are initialized when
	* the list pointer is initialized.
	*/
	constructor(segment, byteOffset, depthLimit = MAX_DEPTH, compositeIndex) {
		super(segment, byteOffset, depthLimit);
		this._capnp.compositeIndex = compositeIndex;
		this._capnp.compositeList = compositeIndex !== void 0;
	}
	static [Symbol.toStringTag]() {
		return this._capnp.displayName;
	}
	[Symbol.toStringTag]() {
		return `Struct_${super.toString()}${this._capnp.compositeIndex === void 0 ? "" : `,ci:${this._capnp.compositeIndex}`} > ${getContent(this).toString()}`;
	}
};
var AnyStruct = class extends Struct {
	static _capnp = {
		displayName: "AnyStruct",
		id: "0",
		size: new ObjectSize(0, 0)
	};
};
var FixedAnswer = class {
	struct() {
		return Promise.resolve(this.structSync());
	}
};
var ErrorAnswer = class extends FixedAnswer {
	constructor(err) {
		super();
		this.err = err;
	}
	structSync() {
		throw this.err;
	}
	pipelineCall(_transform, _call) {
		return this;
	}
	pipelineClose(_transform) {
		throw this.err;
	}
};
var ErrorClient = class {
	constructor(err) {
		this.err = err;
	}
	call(_call) {
		return new ErrorAnswer(this.err);
	}
	close() {
		throw this.err;
	}
};
function clientOrNull(client) {
	return client ?? new ErrorClient(/* @__PURE__ */ new Error("CAPNP-TS100 Call on null client."));
}
var TMP_WORD = /* @__PURE__ */ new DataView(/* @__PURE__ */ new ArrayBuffer(8));
function initStruct(size, s) {
	if (s._capnp.compositeIndex !== void 0) throw new Error(format(PTR_INIT_COMPOSITE_STRUCT, s));
	erase(s);
	const c = s.segment.allocate(getByteLength(size));
	const res = initPointer(c.segment, c.byteOffset, s);
	setStructPointer(res.offsetWords, size, res.pointer);
}
function initStructAt(index, StructClass, p) {
	const s = getPointerAs(index, StructClass, p);
	initStruct(StructClass._capnp.size, s);
	return s;
}
function checkPointerBounds(index, s) {
	const { pointerLength } = getSize(s);
	if (index < 0 || index >= pointerLength) throw new Error(format(PTR_STRUCT_POINTER_OUT_OF_BOUNDS, s, index, pointerLength));
}
function getInterfaceClientOrNullAt(index, s) {
	return getInterfaceClientOrNull(getPointer(index, s));
}
function getInterfaceClientOrNull(p) {
	let client = null;
	const capId = getInterfacePointer(p);
	const { capTable } = p.segment.message._capnp;
	if (capTable && capId >= 0 && capId < capTable.length) client = capTable[capId];
	return clientOrNull(client);
}
function resize(dstSize, s) {
	const srcSize = getSize(s);
	const srcContent = getContent(s);
	const dstContent = s.segment.allocate(getByteLength(dstSize));
	dstContent.segment.copyWords(dstContent.byteOffset, srcContent.segment, srcContent.byteOffset, Math.min(getDataWordLength(srcSize), getDataWordLength(dstSize)));
	const res = initPointer(dstContent.segment, dstContent.byteOffset, s);
	setStructPointer(res.offsetWords, dstSize, res.pointer);
	for (let i = 0; i < Math.min(srcSize.pointerLength, dstSize.pointerLength); i++) {
		const srcPtr = new Pointer(srcContent.segment, srcContent.byteOffset + srcSize.dataByteLength + i * 8);
		if (isNull$1(srcPtr)) continue;
		const srcPtrTarget = followFars(srcPtr);
		const srcPtrContent = getContent(srcPtr);
		const dstPtr = new Pointer(dstContent.segment, dstContent.byteOffset + dstSize.dataByteLength + i * 8);
		if (getTargetPointerType(srcPtr) === PointerType.LIST && getTargetListElementSize(srcPtr) === ListElementSize.COMPOSITE) srcPtrContent.byteOffset -= 8;
		const r = initPointer(srcPtrContent.segment, srcPtrContent.byteOffset, dstPtr);
		const a = srcPtrTarget.segment.getUint8(srcPtrTarget.byteOffset) & 3;
		const b = srcPtrTarget.segment.getUint32(srcPtrTarget.byteOffset + 4);
		r.pointer.segment.setUint32(r.pointer.byteOffset, a | r.offsetWords << 2);
		r.pointer.segment.setUint32(r.pointer.byteOffset + 4, b);
	}
	srcContent.segment.fillZeroWords(srcContent.byteOffset, getWordLength(srcSize));
}
function getAs(StructClass, s) {
	return new StructClass(s.segment, s.byteOffset, s._capnp.depthLimit, s._capnp.compositeIndex);
}
function getBit(bitOffset, s, defaultMask) {
	const byteOffset = Math.floor(bitOffset / 8);
	const bitMask = 1 << bitOffset % 8;
	checkDataBounds(byteOffset, 1, s);
	const ds = getDataSection(s);
	const v = ds.segment.getUint8(ds.byteOffset + byteOffset);
	if (defaultMask === void 0) return (v & bitMask) !== 0;
	return ((v ^ defaultMask.getUint8(0)) & bitMask) !== 0;
}
function getData(index, s, defaultValue) {
	checkPointerBounds(index, s);
	const ps = getPointerSection(s);
	ps.byteOffset += index * 8;
	const l = new Data(ps.segment, ps.byteOffset, s._capnp.depthLimit - 1);
	if (isNull$1(l)) {
		if (defaultValue) copyFrom(defaultValue, l);
		else initList$1(ListElementSize.BYTE, 0, l);
	}
	return l;
}
function getDataSection(s) {
	return getContent(s);
}
function getFloat32(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 4, s);
	const ds = getDataSection(s);
	if (defaultMask === void 0) return ds.segment.getFloat32(ds.byteOffset + byteOffset);
	const v = ds.segment.getUint32(ds.byteOffset + byteOffset) ^ defaultMask.getUint32(0, true);
	TMP_WORD.setUint32(0, v, NATIVE_LITTLE_ENDIAN);
	return TMP_WORD.getFloat32(0, NATIVE_LITTLE_ENDIAN);
}
function getFloat64(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 8, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		const lo = ds.segment.getUint32(ds.byteOffset + byteOffset) ^ defaultMask.getUint32(0, true);
		const hi = ds.segment.getUint32(ds.byteOffset + byteOffset + 4) ^ defaultMask.getUint32(4, true);
		TMP_WORD.setUint32(0, lo, NATIVE_LITTLE_ENDIAN);
		TMP_WORD.setUint32(4, hi, NATIVE_LITTLE_ENDIAN);
		return TMP_WORD.getFloat64(0, NATIVE_LITTLE_ENDIAN);
	}
	return ds.segment.getFloat64(ds.byteOffset + byteOffset);
}
function getInt16(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 2, s);
	const ds = getDataSection(s);
	if (defaultMask === void 0) return ds.segment.getInt16(ds.byteOffset + byteOffset);
	const v = ds.segment.getUint16(ds.byteOffset + byteOffset) ^ defaultMask.getUint16(0, true);
	TMP_WORD.setUint16(0, v, NATIVE_LITTLE_ENDIAN);
	return TMP_WORD.getInt16(0, NATIVE_LITTLE_ENDIAN);
}
function getInt32(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 4, s);
	const ds = getDataSection(s);
	if (defaultMask === void 0) return ds.segment.getInt32(ds.byteOffset + byteOffset);
	const v = ds.segment.getUint32(ds.byteOffset + byteOffset) ^ defaultMask.getUint16(0, true);
	TMP_WORD.setUint32(0, v, NATIVE_LITTLE_ENDIAN);
	return TMP_WORD.getInt32(0, NATIVE_LITTLE_ENDIAN);
}
function getInt64(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 8, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		const lo = ds.segment.getUint32(ds.byteOffset + byteOffset) ^ defaultMask.getUint32(0, true);
		const hi = ds.segment.getUint32(ds.byteOffset + byteOffset + 4) ^ defaultMask.getUint32(4, true);
		TMP_WORD.setUint32(NATIVE_LITTLE_ENDIAN ? 0 : 4, lo, NATIVE_LITTLE_ENDIAN);
		TMP_WORD.setUint32(NATIVE_LITTLE_ENDIAN ? 4 : 0, hi, NATIVE_LITTLE_ENDIAN);
		return TMP_WORD.getBigInt64(0, NATIVE_LITTLE_ENDIAN);
	}
	return ds.segment.getInt64(ds.byteOffset + byteOffset);
}
function getInt8(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 1, s);
	const ds = getDataSection(s);
	if (defaultMask === void 0) return ds.segment.getInt8(ds.byteOffset + byteOffset);
	const v = ds.segment.getUint8(ds.byteOffset + byteOffset) ^ defaultMask.getUint8(0);
	TMP_WORD.setUint8(0, v);
	return TMP_WORD.getInt8(0);
}
function getList(index, ListClass, s, defaultValue) {
	checkPointerBounds(index, s);
	const ps = getPointerSection(s);
	ps.byteOffset += index * 8;
	const l = new ListClass(ps.segment, ps.byteOffset, s._capnp.depthLimit - 1);
	if (isNull$1(l)) {
		if (defaultValue) copyFrom(defaultValue, l);
		else initList$1(ListClass._capnp.size, 0, l, ListClass._capnp.compositeSize);
	} else if (ListClass._capnp.compositeSize !== void 0) {
		const srcSize = getTargetCompositeListSize(l);
		const dstSize = ListClass._capnp.compositeSize;
		if (dstSize.dataByteLength > srcSize.dataByteLength || dstSize.pointerLength > srcSize.pointerLength) {
			const srcContent = getContent(l);
			const srcLength = getTargetListLength(l);
			const dstContent = l.segment.allocate(getByteLength(dstSize) * srcLength + 8);
			const res = initPointer(dstContent.segment, dstContent.byteOffset, l);
			setListPointer(res.offsetWords, ListClass._capnp.size, srcLength, res.pointer, dstSize);
			setStructPointer(srcLength, dstSize, dstContent);
			dstContent.byteOffset += 8;
			for (let i = 0; i < srcLength; i++) {
				const srcElementOffset = srcContent.byteOffset + i * getByteLength(srcSize);
				const dstElementOffset = dstContent.byteOffset + i * getByteLength(dstSize);
				dstContent.segment.copyWords(dstElementOffset, srcContent.segment, srcElementOffset, getWordLength(srcSize));
				for (let j = 0; j < srcSize.pointerLength; j++) {
					const srcPtr = new Pointer(srcContent.segment, srcElementOffset + srcSize.dataByteLength + j * 8);
					const dstPtr = new Pointer(dstContent.segment, dstElementOffset + dstSize.dataByteLength + j * 8);
					const srcPtrTarget = followFars(srcPtr);
					const srcPtrContent = getContent(srcPtr);
					if (getTargetPointerType(srcPtr) === PointerType.LIST && getTargetListElementSize(srcPtr) === ListElementSize.COMPOSITE) srcPtrContent.byteOffset -= 8;
					const r = initPointer(srcPtrContent.segment, srcPtrContent.byteOffset, dstPtr);
					const a = srcPtrTarget.segment.getUint8(srcPtrTarget.byteOffset) & 3;
					const b = srcPtrTarget.segment.getUint32(srcPtrTarget.byteOffset + 4);
					r.pointer.segment.setUint32(r.pointer.byteOffset, a | r.offsetWords << 2);
					r.pointer.segment.setUint32(r.pointer.byteOffset + 4, b);
				}
			}
			srcContent.segment.fillZeroWords(srcContent.byteOffset, getWordLength(srcSize) * srcLength);
		}
	}
	return l;
}
function getPointer(index, s) {
	checkPointerBounds(index, s);
	const ps = getPointerSection(s);
	ps.byteOffset += index * 8;
	return new Pointer(ps.segment, ps.byteOffset, s._capnp.depthLimit - 1);
}
function getPointerAs(index, PointerClass, s) {
	checkPointerBounds(index, s);
	const ps = getPointerSection(s);
	ps.byteOffset += index * 8;
	return new PointerClass(ps.segment, ps.byteOffset, s._capnp.depthLimit - 1);
}
function getPointerSection(s) {
	const ps = getContent(s);
	ps.byteOffset += padToWord$1(getSize(s).dataByteLength);
	return ps;
}
function getSize(s) {
	if (s._capnp.compositeIndex !== void 0) {
		const c = getContent(s, true);
		c.byteOffset -= 8;
		return getStructSize(c);
	}
	return getTargetStructSize(s);
}
function getStruct(index, StructClass, s, defaultValue) {
	const t = getPointerAs(index, StructClass, s);
	if (isNull$1(t)) {
		if (defaultValue) copyFrom(defaultValue, t);
		else initStruct(StructClass._capnp.size, t);
	} else {
		validate(PointerType.STRUCT, t);
		const ts = getTargetStructSize(t);
		if (ts.dataByteLength < StructClass._capnp.size.dataByteLength || ts.pointerLength < StructClass._capnp.size.pointerLength) resize(StructClass._capnp.size, t);
	}
	return t;
}
function getText(index, s, defaultValue) {
	const t = Text.fromPointer(getPointer(index, s));
	if (isNull$1(t) && defaultValue) t.set(0, defaultValue);
	return t.get(0);
}
function getUint16(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 2, s);
	const ds = getDataSection(s);
	if (defaultMask === void 0) return ds.segment.getUint16(ds.byteOffset + byteOffset);
	return ds.segment.getUint16(ds.byteOffset + byteOffset) ^ defaultMask.getUint16(0, true);
}
function getUint32(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 4, s);
	const ds = getDataSection(s);
	if (defaultMask === void 0) return ds.segment.getUint32(ds.byteOffset + byteOffset);
	return ds.segment.getUint32(ds.byteOffset + byteOffset) ^ defaultMask.getUint32(0, true);
}
function getUint64(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 8, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		const lo = ds.segment.getUint32(ds.byteOffset + byteOffset) ^ defaultMask.getUint32(0, true);
		const hi = ds.segment.getUint32(ds.byteOffset + byteOffset + 4) ^ defaultMask.getUint32(4, true);
		TMP_WORD.setUint32(NATIVE_LITTLE_ENDIAN ? 0 : 4, lo, NATIVE_LITTLE_ENDIAN);
		TMP_WORD.setUint32(NATIVE_LITTLE_ENDIAN ? 4 : 0, hi, NATIVE_LITTLE_ENDIAN);
		return TMP_WORD.getBigUint64(0, NATIVE_LITTLE_ENDIAN);
	}
	return ds.segment.getUint64(ds.byteOffset + byteOffset);
}
function getUint8(byteOffset, s, defaultMask) {
	checkDataBounds(byteOffset, 1, s);
	const ds = getDataSection(s);
	if (defaultMask === void 0) return ds.segment.getUint8(ds.byteOffset + byteOffset);
	return ds.segment.getUint8(ds.byteOffset + byteOffset) ^ defaultMask.getUint8(0);
}
function initData(index, length, s) {
	checkPointerBounds(index, s);
	const ps = getPointerSection(s);
	ps.byteOffset += index * 8;
	const l = new Data(ps.segment, ps.byteOffset, s._capnp.depthLimit - 1);
	erase(l);
	initList$1(ListElementSize.BYTE, length, l);
	return l;
}
function initList(index, ListClass, length, s) {
	checkPointerBounds(index, s);
	const ps = getPointerSection(s);
	ps.byteOffset += index * 8;
	const l = new ListClass(ps.segment, ps.byteOffset, s._capnp.depthLimit - 1);
	erase(l);
	initList$1(ListClass._capnp.size, length, l, ListClass._capnp.compositeSize);
	return l;
}
function setBit(bitOffset, value, s, defaultMask) {
	const byteOffset = Math.floor(bitOffset / 8);
	const bitMask = 1 << bitOffset % 8;
	checkDataBounds(byteOffset, 1, s);
	const ds = getDataSection(s);
	const b = ds.segment.getUint8(ds.byteOffset + byteOffset);
	if (defaultMask !== void 0) value = (defaultMask.getUint8(0) & bitMask) === 0 ? value : !value;
	ds.segment.setUint8(ds.byteOffset + byteOffset, value ? b | bitMask : b & ~bitMask);
}
function setFloat32(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 4, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		TMP_WORD.setFloat32(0, value, NATIVE_LITTLE_ENDIAN);
		const v = TMP_WORD.getUint32(0, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(0, true);
		ds.segment.setUint32(ds.byteOffset + byteOffset, v);
		return;
	}
	ds.segment.setFloat32(ds.byteOffset + byteOffset, value);
}
function setFloat64(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 8, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		TMP_WORD.setFloat64(0, value, NATIVE_LITTLE_ENDIAN);
		const lo = TMP_WORD.getUint32(0, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(0, true);
		const hi = TMP_WORD.getUint32(4, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(4, true);
		ds.segment.setUint32(ds.byteOffset + byteOffset, lo);
		ds.segment.setUint32(ds.byteOffset + byteOffset + 4, hi);
		return;
	}
	ds.segment.setFloat64(ds.byteOffset + byteOffset, value);
}
function setInt16(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 2, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		TMP_WORD.setInt16(0, value, NATIVE_LITTLE_ENDIAN);
		const v = TMP_WORD.getUint16(0, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint16(0, true);
		ds.segment.setUint16(ds.byteOffset + byteOffset, v);
		return;
	}
	ds.segment.setInt16(ds.byteOffset + byteOffset, value);
}
function setInt32(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 4, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		TMP_WORD.setInt32(0, value, NATIVE_LITTLE_ENDIAN);
		const v = TMP_WORD.getUint32(0, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(0, true);
		ds.segment.setUint32(ds.byteOffset + byteOffset, v);
		return;
	}
	ds.segment.setInt32(ds.byteOffset + byteOffset, value);
}
function setInt64(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 8, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		TMP_WORD.setBigInt64(0, value, NATIVE_LITTLE_ENDIAN);
		const lo = TMP_WORD.getUint32(NATIVE_LITTLE_ENDIAN ? 0 : 4, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(0, true);
		const hi = TMP_WORD.getUint32(NATIVE_LITTLE_ENDIAN ? 4 : 0, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(4, true);
		ds.segment.setUint32(ds.byteOffset + byteOffset, lo);
		ds.segment.setUint32(ds.byteOffset + byteOffset + 4, hi);
		return;
	}
	ds.segment.setInt64(ds.byteOffset + byteOffset, value);
}
function setInt8(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 1, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		TMP_WORD.setInt8(0, value);
		const v = TMP_WORD.getUint8(0) ^ defaultMask.getUint8(0);
		ds.segment.setUint8(ds.byteOffset + byteOffset, v);
		return;
	}
	ds.segment.setInt8(ds.byteOffset + byteOffset, value);
}
function setText(index, value, s) {
	Text.fromPointer(getPointer(index, s)).set(0, value);
}
function setUint16(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 2, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) value ^= defaultMask.getUint16(0, true);
	ds.segment.setUint16(ds.byteOffset + byteOffset, value);
}
function setUint32(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 4, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) value ^= defaultMask.getUint32(0, true);
	ds.segment.setUint32(ds.byteOffset + byteOffset, value);
}
function setUint64(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 8, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) {
		TMP_WORD.setBigUint64(0, value, NATIVE_LITTLE_ENDIAN);
		const lo = TMP_WORD.getUint32(NATIVE_LITTLE_ENDIAN ? 0 : 4, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(0, true);
		const hi = TMP_WORD.getUint32(NATIVE_LITTLE_ENDIAN ? 4 : 0, NATIVE_LITTLE_ENDIAN) ^ defaultMask.getUint32(4, true);
		ds.segment.setUint32(ds.byteOffset + byteOffset, lo);
		ds.segment.setUint32(ds.byteOffset + byteOffset + 4, hi);
		return;
	}
	ds.segment.setUint64(ds.byteOffset + byteOffset, value);
}
function setUint8(byteOffset, value, s, defaultMask) {
	checkDataBounds(byteOffset, 1, s);
	const ds = getDataSection(s);
	if (defaultMask !== void 0) value ^= defaultMask.getUint8(0);
	ds.segment.setUint8(ds.byteOffset + byteOffset, value);
}
function testWhich(name, found, wanted, s) {
	if (found !== wanted) throw new Error(format(PTR_INVALID_UNION_ACCESS, s, name, found, wanted));
}
function checkDataBounds(byteOffset, byteLength, s) {
	const { dataByteLength } = getSize(s);
	if (byteOffset < 0 || byteLength < 0 || byteOffset + byteLength > dataByteLength) throw new Error(format(PTR_STRUCT_DATA_OUT_OF_BOUNDS, s, byteLength, byteOffset, dataByteLength));
}
// node_modules/capnp-es/dist/shared/capnp-es.CFSf015t.mjs
function CompositeList(CompositeClass) {
	return class extends List {
		static _capnp = {
			compositeSize: CompositeClass._capnp.size,
			displayName: `List<${CompositeClass._capnp.displayName}>`,
			size: ListElementSize.COMPOSITE
		};
		get(index) {
			return new CompositeClass(this.segment, this.byteOffset, this._capnp.depthLimit - 1, index);
		}
		set(index, value) {
			copyFrom(value, this.get(index));
		}
		[Symbol.toStringTag]() {
			return `Composite_${super.toString()},cls:${CompositeClass.toString()}`;
		}
	};
}
function _makePrimitiveMaskFn(byteLength, setter) {
	return (x) => {
		const dv = new DataView(new ArrayBuffer(byteLength));
		setter.call(dv, 0, x, true);
		return dv;
	};
}
DataView.prototype.setFloat32;
DataView.prototype.setFloat64;
DataView.prototype.setInt16;
DataView.prototype.setInt32;
DataView.prototype.setBigInt64;
DataView.prototype.setInt8;
DataView.prototype.setUint16;
DataView.prototype.setUint32;
DataView.prototype.setBigUint64;
var getUint8Mask = _makePrimitiveMaskFn(1, DataView.prototype.setUint8);
function getBitMask(value, bitOffset) {
	const dv = /* @__PURE__ */ new DataView(/* @__PURE__ */ new ArrayBuffer(1));
	if (!value) return dv;
	dv.setUint8(0, 1 << bitOffset % 8);
	return dv;
}
// node_modules/capnp-es/dist/shared/capnp-es.BlZmb8ia.mjs
var ArenaKind = /* @__PURE__ */ ((ArenaKind2) => {
	ArenaKind2[ArenaKind2["SINGLE_SEGMENT"] = 0] = "SINGLE_SEGMENT";
	ArenaKind2[ArenaKind2["MULTI_SEGMENT"] = 1] = "MULTI_SEGMENT";
	return ArenaKind2;
})(ArenaKind || {});
var ArenaAllocationResult = class {
	/**
	* The newly allocated buffer. This buffer might be a copy of an existing segment's buffer with free space appended.
	*/
	buffer;
	/**
	* The id of the newly-allocated segment.
	*/
	id;
	constructor(id, buffer) {
		this.id = id;
		this.buffer = buffer;
	}
};
var MultiSegmentArena = class {
	constructor(buffers = [new ArrayBuffer(DEFAULT_BUFFER_SIZE)]) {
		this.buffers = buffers;
		let i = buffers.length;
		while (--i >= 0) if ((buffers[i].byteLength & 7) !== 0) throw new Error(format(SEG_NOT_WORD_ALIGNED, buffers[i].byteLength));
	}
	static allocate = allocate$2;
	static getBuffer = getBuffer$2;
	static getNumSegments = getNumSegments$2;
	kind = ArenaKind.MULTI_SEGMENT;
	toString() {
		return format("MultiSegmentArena_segments:%d", getNumSegments$2(this));
	}
};
function allocate$2(minSize, m) {
	const b = new ArrayBuffer(padToWord$1(Math.max(minSize, DEFAULT_BUFFER_SIZE)));
	m.buffers.push(b);
	return new ArenaAllocationResult(m.buffers.length - 1, b);
}
function getBuffer$2(id, m) {
	if (id < 0 || id >= m.buffers.length) throw new Error(format(SEG_ID_OUT_OF_BOUNDS, id));
	return m.buffers[id];
}
function getNumSegments$2(m) {
	return m.buffers.length;
}
var SingleSegmentArena = class {
	static allocate = allocate$1;
	static getBuffer = getBuffer$1;
	static getNumSegments = getNumSegments$1;
	buffer;
	kind = ArenaKind.SINGLE_SEGMENT;
	constructor(buffer = new ArrayBuffer(DEFAULT_BUFFER_SIZE)) {
		if ((buffer.byteLength & 7) !== 0) throw new Error(format(SEG_NOT_WORD_ALIGNED, buffer.byteLength));
		this.buffer = buffer;
	}
	toString() {
		return format("SingleSegmentArena_len:%x", this.buffer.byteLength);
	}
};
function allocate$1(minSize, segments, s) {
	const srcBuffer = segments.length > 0 ? segments[0].buffer : s.buffer;
	minSize = minSize < 4096 ? MIN_SINGLE_SEGMENT_GROWTH : padToWord$1(minSize);
	s.buffer = new ArrayBuffer(srcBuffer.byteLength + minSize);
	new Float64Array(s.buffer).set(new Float64Array(srcBuffer));
	return new ArenaAllocationResult(0, s.buffer);
}
function getBuffer$1(id, s) {
	if (id !== 0) throw new Error(format(SEG_GET_NON_ZERO_SINGLE, id));
	return s.buffer;
}
function getNumSegments$1() {
	return 1;
}
var Arena = class {
	static allocate = allocate;
	static copy = copy$1;
	static getBuffer = getBuffer;
	static getNumSegments = getNumSegments;
};
function allocate(minSize, segments, a) {
	switch (a.kind) {
		case ArenaKind.MULTI_SEGMENT: return MultiSegmentArena.allocate(minSize, a);
		case ArenaKind.SINGLE_SEGMENT: return SingleSegmentArena.allocate(minSize, segments, a);
		default: return assertNever(a);
	}
}
function copy$1(a) {
	switch (a.kind) {
		case ArenaKind.MULTI_SEGMENT: {
			let i = a.buffers.length;
			const buffers = Array.from({ length: i });
			while (--i >= 0) buffers[i] = a.buffers[i].slice(0);
			return new MultiSegmentArena(buffers);
		}
		case ArenaKind.SINGLE_SEGMENT: return new SingleSegmentArena(a.buffer.slice(0));
		default: return assertNever(a);
	}
}
function getBuffer(id, a) {
	switch (a.kind) {
		case ArenaKind.MULTI_SEGMENT: return MultiSegmentArena.getBuffer(id, a);
		case ArenaKind.SINGLE_SEGMENT: return SingleSegmentArena.getBuffer(id, a);
		default: return assertNever(a);
	}
}
function getNumSegments(a) {
	switch (a.kind) {
		case ArenaKind.MULTI_SEGMENT: return MultiSegmentArena.getNumSegments(a);
		case ArenaKind.SINGLE_SEGMENT: return SingleSegmentArena.getNumSegments();
		default: return assertNever(a);
	}
}
function getHammingWeight(x) {
	let w = x - (x >> 1 & 1431655765);
	w = (w & 858993459) + (w >> 2 & 858993459);
	return (w + (w >> 4) & 252645135) * 16843009 >> 24;
}
function getTagByte(a, b, c, d, e, f, g, h) {
	return (a === 0 ? 0 : 1) | (b === 0 ? 0 : 2) | (c === 0 ? 0 : 4) | (d === 0 ? 0 : 8) | (e === 0 ? 0 : 16) | (f === 0 ? 0 : 32) | (g === 0 ? 0 : 64) | (h === 0 ? 0 : 128);
}
function getUnpackedByteLength(packed) {
	const p = new Uint8Array(packed);
	let wordCount = 0;
	let lastTag = 119;
	for (let i = 0; i < p.byteLength;) {
		const tag = p[i];
		if (lastTag === 0) {
			wordCount += tag;
			i++;
			lastTag = 119;
		} else if (lastTag === 255) {
			wordCount += tag;
			i += tag * 8 + 1;
			lastTag = 119;
		} else {
			wordCount++;
			i += getHammingWeight(tag) + 1;
			lastTag = tag;
		}
	}
	return wordCount * 8;
}
function getZeroByteCount(a, b, c, d, e, f, g, h) {
	return (a === 0 ? 1 : 0) + (b === 0 ? 1 : 0) + (c === 0 ? 1 : 0) + (d === 0 ? 1 : 0) + (e === 0 ? 1 : 0) + (f === 0 ? 1 : 0) + (g === 0 ? 1 : 0) + (h === 0 ? 1 : 0);
}
function pack(unpacked, byteOffset = 0, byteLength) {
	if (unpacked.byteLength % 8 !== 0) throw new Error(MSG_PACK_NOT_WORD_ALIGNED);
	const src = new Uint8Array(unpacked, byteOffset, byteLength);
	const dst = [];
	let lastTag = 119;
	let spanWordCountOffset = 0;
	let rangeWordCount = 0;
	for (let srcByteOffset = 0; srcByteOffset < src.byteLength; srcByteOffset += 8) {
		const a = src[srcByteOffset];
		const b = src[srcByteOffset + 1];
		const c = src[srcByteOffset + 2];
		const d = src[srcByteOffset + 3];
		const e = src[srcByteOffset + 4];
		const f = src[srcByteOffset + 5];
		const g = src[srcByteOffset + 6];
		const h = src[srcByteOffset + 7];
		const tag = getTagByte(a, b, c, d, e, f, g, h);
		let skipWriteWord = true;
		switch (lastTag) {
			case 0:
				if (tag !== 0 || rangeWordCount >= 255) {
					dst.push(rangeWordCount);
					rangeWordCount = 0;
					skipWriteWord = false;
				} else rangeWordCount++;
				break;
			case 255:
				if (getZeroByteCount(a, b, c, d, e, f, g, h) >= 2 || rangeWordCount >= 255) {
					dst[spanWordCountOffset] = rangeWordCount;
					rangeWordCount = 0;
					skipWriteWord = false;
				} else {
					dst.push(a, b, c, d, e, f, g, h);
					rangeWordCount++;
				}
				break;
			default: skipWriteWord = false;
		}
		if (skipWriteWord) continue;
		dst.push(tag);
		lastTag = tag;
		if (a !== 0) dst.push(a);
		if (b !== 0) dst.push(b);
		if (c !== 0) dst.push(c);
		if (d !== 0) dst.push(d);
		if (e !== 0) dst.push(e);
		if (f !== 0) dst.push(f);
		if (g !== 0) dst.push(g);
		if (h !== 0) dst.push(h);
		if (tag === 255) {
			spanWordCountOffset = dst.length;
			dst.push(0);
		}
	}
	if (lastTag === 0) dst.push(rangeWordCount);
	else if (lastTag === 255) dst[spanWordCountOffset] = rangeWordCount;
	return new Uint8Array(dst).buffer;
}
function unpack(packed) {
	const src = new Uint8Array(packed);
	const dst = new Uint8Array(new ArrayBuffer(getUnpackedByteLength(packed)));
	let lastTag = 119;
	for (let srcByteOffset = 0, dstByteOffset = 0; srcByteOffset < src.byteLength;) {
		const tag = src[srcByteOffset];
		if (lastTag === 0) {
			dstByteOffset += tag * 8;
			srcByteOffset++;
			lastTag = 119;
		} else if (lastTag === 255) {
			const spanByteLength = tag * 8;
			dst.set(src.subarray(srcByteOffset + 1, srcByteOffset + 1 + spanByteLength), dstByteOffset);
			dstByteOffset += spanByteLength;
			srcByteOffset += 1 + spanByteLength;
			lastTag = 119;
		} else {
			srcByteOffset++;
			for (let i = 1; i <= 128; i <<= 1) {
				if ((tag & i) !== 0) dst[dstByteOffset] = src[srcByteOffset++];
				dstByteOffset++;
			}
			lastTag = tag;
		}
	}
	return dst.buffer;
}
var Segment = class {
	constructor(id, message, buffer, byteLength = 0) {
		this.id = id;
		this.message = message;
		this.message = message;
		this.buffer = buffer;
		this._dv = new DataView(buffer);
		this.byteOffset = 0;
		this.byteLength = byteLength;
	}
	buffer;
	/** The number of bytes currently allocated in the segment. */
	byteLength;
	/**
	* This value should always be zero. It's only here to satisfy the DataView interface.
	*
	* In the future the Segment implementation (or a child class) may allow accessing the buffer from a nonzero offset,
	* but that adds a lot of extra arithmetic.
	*/
	byteOffset;
	[Symbol.toStringTag] = "Segment";
	_dv;
	/**
	* Attempt to allocate the requested number of bytes in this segment. If this segment is full this method will return
	* a pointer to freshly allocated space in another segment from the same message.
	*
	* @param byteLength The number of bytes to allocate, will be rounded up to the nearest word.
	* @returns A pointer to the newly allocated space.
	*/
	allocate(byteLength) {
		let segment = this;
		byteLength = padToWord$1(byteLength);
		if (byteLength > 4294967287) throw new Error(format(SEG_SIZE_OVERFLOW, byteLength));
		if (!segment.hasCapacity(byteLength)) segment = segment.message.allocateSegment(byteLength);
		const byteOffset = segment.byteLength;
		segment.byteLength += byteLength;
		return new Pointer(segment, byteOffset);
	}
	/**
	* Quickly copy a word (8 bytes) from `srcSegment` into this one at the given offset.
	*
	* @param byteOffset The offset to write the word to.
	* @param srcSegment The segment to copy the word from.
	* @param srcByteOffset The offset from the start of `srcSegment` to copy from.
	*/
	copyWord(byteOffset, srcSegment, srcByteOffset) {
		const value = srcSegment._dv.getFloat64(srcByteOffset, NATIVE_LITTLE_ENDIAN);
		this._dv.setFloat64(byteOffset, value, NATIVE_LITTLE_ENDIAN);
	}
	/**
	* Quickly copy words from `srcSegment` into this one.
	*
	* @param byteOffset The offset to start copying into.
	* @param srcSegment The segment to copy from.
	* @param srcByteOffset The start offset to copy from.
	* @param wordLength The number of words to copy.
	*/
	copyWords(byteOffset, srcSegment, srcByteOffset, wordLength) {
		const dst = new Float64Array(this.buffer, byteOffset, wordLength);
		const src = new Float64Array(srcSegment.buffer, srcByteOffset, wordLength);
		dst.set(src);
	}
	/**
	* Quickly fill a number of words in the buffer with zeroes.
	*
	* @param byteOffset The first byte to set to zero.
	* @param wordLength The number of words (not bytes!) to zero out.
	*/
	fillZeroWords(byteOffset, wordLength) {
		new Float64Array(this.buffer, byteOffset, wordLength).fill(0);
	}
	getBigInt64(byteOffset, littleEndian) {
		return this._dv.getBigInt64(byteOffset, littleEndian);
	}
	getBigUint64(byteOffset, littleEndian) {
		return this._dv.getBigUint64(byteOffset, littleEndian);
	}
	/**
	* Get the total number of bytes available in this segment (the size of its underlying buffer).
	*
	* @returns The total number of bytes this segment can hold.
	*/
	getCapacity() {
		return this.buffer.byteLength;
	}
	/**
	* Read a float16 value out of this segment.
	*
	* NOTE: Non functional, added to allow compilation with TS 5.9+
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getFloat16(_byteOffset) {
		throw new Error("Not implemented");
	}
	/**
	* Read a float32 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getFloat32(byteOffset) {
		return this._dv.getFloat32(byteOffset, true);
	}
	/**
	* Read a float64 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getFloat64(byteOffset) {
		return this._dv.getFloat64(byteOffset, true);
	}
	/**
	* Read an int16 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getInt16(byteOffset) {
		return this._dv.getInt16(byteOffset, true);
	}
	/**
	* Read an int32 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getInt32(byteOffset) {
		return this._dv.getInt32(byteOffset, true);
	}
	/**
	* Read an int64 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getInt64(byteOffset) {
		return this._dv.getBigInt64(byteOffset, true);
	}
	/**
	* Read an int8 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getInt8(byteOffset) {
		return this._dv.getInt8(byteOffset);
	}
	/**
	* Read a uint16 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getUint16(byteOffset) {
		return this._dv.getUint16(byteOffset, true);
	}
	/**
	* Read a uint32 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getUint32(byteOffset) {
		return this._dv.getUint32(byteOffset, true);
	}
	/**
	* Read a uint64 value (as a bigint) out of this segment.
	* NOTE: this does not copy the memory region, so updates to the underlying buffer will affect the returned value!
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getUint64(byteOffset) {
		return this._dv.getBigUint64(byteOffset, true);
	}
	/**
	* Read a uint8 value out of this segment.
	*
	* @param byteOffset The offset in bytes to the value.
	* @returns The value.
	*/
	getUint8(byteOffset) {
		return this._dv.getUint8(byteOffset);
	}
	hasCapacity(byteLength) {
		return this.buffer.byteLength - this.byteLength >= byteLength;
	}
	/**
	* Quickly check the word at the given offset to see if it is equal to zero.
	*
	* PERF_V8: Fastest way to do this is by reading the whole word as a `number` (float64) in the _native_ endian format
	* and see if it's zero.
	*
	* Benchmark: http://jsben.ch/#/Pjooc
	*
	* @param byteOffset The offset to the word.
	* @returns `true` if the word is zero.
	*/
	isWordZero(byteOffset) {
		return this._dv.getFloat64(byteOffset, NATIVE_LITTLE_ENDIAN) === 0;
	}
	/**
	* Swap out this segment's underlying buffer with a new one. It's assumed that the new buffer has the same content but
	* more free space, otherwise all existing pointers to this segment will be hilariously broken.
	*
	* @param buffer The new buffer to use.
	*/
	replaceBuffer(buffer) {
		if (this.buffer === buffer) return;
		if (buffer.byteLength < this.byteLength) throw new Error(SEG_REPLACEMENT_BUFFER_TOO_SMALL);
		this._dv = new DataView(buffer);
		this.buffer = buffer;
	}
	setBigInt64(byteOffset, value, littleEndian) {
		this._dv.setBigInt64(byteOffset, value, littleEndian);
	}
	/** WARNING: This function is not yet implemented.  */
	setBigUint64(byteOffset, value, littleEndian) {
		this._dv.setBigUint64(byteOffset, value, littleEndian);
	}
	/**
	* Write a float16 value to the specified offset.
	*
	* NOTE: Non functional, added to allow compilation with TS 5.9+
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setFloat16(_byteOffset, _val) {
		throw new Error("Not implemented");
	}
	/**
	* Write a float32 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setFloat32(byteOffset, val) {
		this._dv.setFloat32(byteOffset, val, true);
	}
	/**
	* Write an float64 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setFloat64(byteOffset, val) {
		this._dv.setFloat64(byteOffset, val, true);
	}
	/**
	* Write an int16 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setInt16(byteOffset, val) {
		this._dv.setInt16(byteOffset, val, true);
	}
	/**
	* Write an int32 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setInt32(byteOffset, val) {
		this._dv.setInt32(byteOffset, val, true);
	}
	/**
	* Write an int8 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setInt8(byteOffset, val) {
		this._dv.setInt8(byteOffset, val);
	}
	/**
	* Write an int64 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setInt64(byteOffset, val) {
		this._dv.setBigInt64(byteOffset, val, true);
	}
	/**
	* Write a uint16 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setUint16(byteOffset, val) {
		this._dv.setUint16(byteOffset, val, true);
	}
	/**
	* Write a uint32 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setUint32(byteOffset, val) {
		this._dv.setUint32(byteOffset, val, true);
	}
	/**
	* Write a uint64 value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setUint64(byteOffset, val) {
		this._dv.setBigUint64(byteOffset, val, true);
	}
	/**
	* Write a uint8 (byte) value to the specified offset.
	*
	* @param byteOffset The offset from the beginning of the buffer.
	* @param val The value to store.
	*/
	setUint8(byteOffset, val) {
		this._dv.setUint8(byteOffset, val);
	}
	/**
	* Write a zero word (8 bytes) to the specified offset. This is slightly faster than calling `setUint64` or
	* `setFloat64` with a zero value.
	*
	* Benchmark: http://jsben.ch/#/dUdPI
	*
	* @param byteOffset The offset of the word to set to zero.
	*/
	setWordZero(byteOffset) {
		this._dv.setFloat64(byteOffset, 0, NATIVE_LITTLE_ENDIAN);
	}
	toString() {
		return format("Segment_id:%d,off:%a,len:%a,cap:%a", this.id, this.byteLength, this.byteOffset, this.buffer.byteLength);
	}
};
var Message$1 = class {
	static allocateSegment = allocateSegment;
	static dump = dump;
	static getRoot = getRoot;
	static getSegment = getSegment;
	static initRoot = initRoot;
	static readRawPointer = readRawPointer;
	static toArrayBuffer = toArrayBuffer;
	static toPackedArrayBuffer = toPackedArrayBuffer;
	_capnp;
	/**
	* A Cap'n Proto message.
	*
	* SECURITY WARNING: In Node.js do not pass a Buffer's internal array buffer into this constructor. Pass the buffer
	* directly and everything will be fine. If not, your message will potentially be initialized with random memory
	* contents!
	*
	* The constructor method creates a new Message, optionally using a provided arena for segment allocation, or a buffer
	* to read from.
	*
	* @param src The source for the message.
	* A value of `undefined` will cause the message to initialize with a single segment arena only big enough for the
	* root pointer; it will expand as you go. This is a reasonable choice for most messages.
	*
	* Passing an arena will cause the message to use that arena for its segment allocation. Contents will be accepted
	* as-is.
	*
	* Passing an array buffer view (like `DataView`, `Uint8Array` or `Buffer`) will create a **copy** of the source
	* buffer; beware of the potential performance cost!
	*
	* @param packed Whether or not the message is packed. If `true` (the default), the message will be
	* unpacked.
	*
	* @param singleSegment If true, `src` will be treated as a message consisting of a single segment without
	* a framing header.
	*
	*/
	constructor(src, packed = true, singleSegment = false) {
		this._capnp = initMessage(src, packed, singleSegment);
		if (src) preallocateSegments(this);
	}
	allocateSegment(byteLength) {
		return allocateSegment(byteLength, this);
	}
	/**
	* Copies the contents of this message into an identical message with its own ArrayBuffers.
	*
	* @returns A copy of this message.
	*/
	copy() {
		return copy(this);
	}
	/**
	* Create a pretty-printed string dump of this message; incredibly useful for debugging.
	*
	* WARNING: Do not call this method on large messages!
	*
	* @returns A big steaming pile of pretty hex digits.
	*/
	dump() {
		return dump(this);
	}
	/**
	* Get a struct pointer for the root of this message. This is primarily used when reading a message; it will not
	* overwrite existing data.
	*
	* @param RootStruct The struct type to use as the root.
	* @returns A struct representing the root of the message.
	*/
	getRoot(RootStruct) {
		return getRoot(RootStruct, this);
	}
	/**
	* Get a segment by its id.
	*
	* This will lazily allocate the first segment if it doesn't already exist.
	*
	* @param id The segment id.
	* @returns The requested segment.
	*/
	getSegment(id) {
		return getSegment(id, this);
	}
	/**
	* Initialize a new message using the provided struct type as the root.
	*
	* @param RootStruct The struct type to use as the root.
	* @returns An initialized struct pointing to the root of the message.
	*/
	initRoot(RootStruct) {
		return initRoot(RootStruct, this);
	}
	/**
	* Set the root of the message to a copy of the given pointer. Used internally
	* to make copies of pointers for default values.
	*
	* @param src The source pointer to copy.
	*/
	setRoot(src) {
		setRoot(src, this);
	}
	/**
	* Combine the contents of this message's segments into a single array buffer and prepend a stream framing header
	* containing information about the following segment data.
	*
	* @returns An ArrayBuffer with the contents of this message.
	*/
	toArrayBuffer() {
		return toArrayBuffer(this);
	}
	/**
	* Like `toArrayBuffer()`, but also applies the packing algorithm to the output. This is typically what you want to
	* use if you're sending the message over a network link or other slow I/O interface where size matters.
	*
	* @returns A packed message.
	*/
	toPackedArrayBuffer() {
		return toPackedArrayBuffer(this);
	}
	addCap(client) {
		if (!this._capnp.capTable) this._capnp.capTable = [];
		const id = this._capnp.capTable.length;
		this._capnp.capTable.push(client);
		return id;
	}
	toString() {
		return `Message_arena:${this._capnp.arena}`;
	}
};
function initMessage(src, packed = true, singleSegment = false) {
	if (src === void 0) return {
		arena: new SingleSegmentArena(),
		segments: [],
		traversalLimit: DEFAULT_TRAVERSE_LIMIT
	};
	if (isAnyArena(src)) return {
		arena: src,
		segments: [],
		traversalLimit: DEFAULT_TRAVERSE_LIMIT
	};
	let buf = src;
	if (isArrayBufferView(buf)) buf = buf.buffer.slice(buf.byteOffset, buf.byteOffset + buf.byteLength);
	if (packed) buf = unpack(buf);
	if (singleSegment) return {
		arena: new SingleSegmentArena(buf),
		segments: [],
		traversalLimit: DEFAULT_TRAVERSE_LIMIT
	};
	return {
		arena: new MultiSegmentArena(getFramedSegments(buf)),
		segments: [],
		traversalLimit: DEFAULT_TRAVERSE_LIMIT
	};
}
function getFramedSegments(message) {
	const dv = new DataView(message);
	const segmentCount = dv.getUint32(0, true) + 1;
	const segments = Array.from({ length: segmentCount });
	let byteOffset = 4 + segmentCount * 4;
	byteOffset += byteOffset % 8;
	if (byteOffset + segmentCount * 4 > message.byteLength) throw new Error(MSG_INVALID_FRAME_HEADER);
	for (let i = 0; i < segmentCount; i++) {
		const byteLength = dv.getUint32(4 + i * 4, true) * 8;
		if (byteOffset + byteLength > message.byteLength) throw new Error(MSG_INVALID_FRAME_HEADER);
		segments[i] = message.slice(byteOffset, byteOffset + byteLength);
		byteOffset += byteLength;
	}
	return segments;
}
function preallocateSegments(m) {
	const numSegments = Arena.getNumSegments(m._capnp.arena);
	m._capnp.segments = Array.from({ length: numSegments });
	for (let i = 0; i < numSegments; i++) {
		if (i === 0 && Arena.getBuffer(i, m._capnp.arena).byteLength < 8) throw new Error(MSG_SEGMENT_TOO_SMALL);
		const buffer = Arena.getBuffer(i, m._capnp.arena);
		const segment = new Segment(i, m, buffer, buffer.byteLength);
		m._capnp.segments[i] = segment;
	}
}
function isArrayBufferView(src) {
	return src.byteOffset !== void 0;
}
function isAnyArena(o) {
	return o.kind !== void 0;
}
function allocateSegment(byteLength, m) {
	const res = Arena.allocate(byteLength, m._capnp.segments, m._capnp.arena);
	let s;
	if (res.id === m._capnp.segments.length) {
		s = new Segment(res.id, m, res.buffer);
		m._capnp.segments.push(s);
	} else if (res.id < 0 || res.id > m._capnp.segments.length) throw new Error(format(MSG_SEGMENT_OUT_OF_BOUNDS, res.id, m));
	else {
		s = m._capnp.segments[res.id];
		s.replaceBuffer(res.buffer);
	}
	return s;
}
function dump(m) {
	let r = "";
	if (m._capnp.segments.length === 0) return "================\nNo Segments\n================\n";
	for (let i = 0; i < m._capnp.segments.length; i++) {
		r += `================
Segment #${i}
================
`;
		const { buffer, byteLength } = m._capnp.segments[i];
		const b = new Uint8Array(buffer, 0, byteLength);
		r += dumpBuffer(b);
	}
	return r;
}
function getRoot(RootStruct, m) {
	const root = new RootStruct(m.getSegment(0), 0);
	validate(PointerType.STRUCT, root);
	const ts = getTargetStructSize(root);
	if (ts.dataByteLength < RootStruct._capnp.size.dataByteLength || ts.pointerLength < RootStruct._capnp.size.pointerLength) resize(RootStruct._capnp.size, root);
	return root;
}
function getSegment(id, m) {
	const segmentLength = m._capnp.segments.length;
	if (id === 0 && segmentLength === 0) {
		if (Arena.getNumSegments(m._capnp.arena) === 0) allocateSegment(DEFAULT_BUFFER_SIZE, m);
		else m._capnp.segments[0] = new Segment(0, m, Arena.getBuffer(0, m._capnp.arena));
		if (!m._capnp.segments[0].hasCapacity(8)) throw new Error(MSG_SEGMENT_TOO_SMALL);
		m._capnp.segments[0].allocate(8);
		return m._capnp.segments[0];
	}
	if (id < 0 || id >= segmentLength) throw new Error(format(MSG_SEGMENT_OUT_OF_BOUNDS, id, m));
	return m._capnp.segments[id];
}
function initRoot(RootStruct, m) {
	const root = new RootStruct(m.getSegment(0), 0);
	initStruct(RootStruct._capnp.size, root);
	return root;
}
function readRawPointer(data) {
	return new Pointer(new Message$1(data).getSegment(0), 0);
}
function setRoot(src, m) {
	copyFrom(src, new Pointer(m.getSegment(0), 0));
}
function toArrayBuffer(m) {
	const streamFrame = getStreamFrame(m);
	if (m._capnp.segments.length === 0) getSegment(0, m);
	const { segments } = m._capnp;
	const totalLength = streamFrame.byteLength + segments.reduce((l, s) => l + padToWord$1(s.byteLength), 0);
	const out = new Uint8Array(new ArrayBuffer(totalLength));
	let o = streamFrame.byteLength;
	out.set(new Uint8Array(streamFrame));
	for (const s of segments) {
		const segmentLength = padToWord$1(s.byteLength);
		out.set(new Uint8Array(s.buffer, 0, segmentLength), o);
		o += segmentLength;
	}
	return out.buffer;
}
function toPackedArrayBuffer(m) {
	const streamFrame = pack(getStreamFrame(m));
	if (m._capnp.segments.length === 0) m.getSegment(0);
	const segments = m._capnp.segments.map((s) => pack(s.buffer, 0, padToWord$1(s.byteLength)));
	const totalLength = streamFrame.byteLength + segments.reduce((l, s) => l + s.byteLength, 0);
	const out = new Uint8Array(new ArrayBuffer(totalLength));
	let o = streamFrame.byteLength;
	out.set(new Uint8Array(streamFrame));
	for (const s of segments) {
		out.set(new Uint8Array(s), o);
		o += s.byteLength;
	}
	return out.buffer;
}
function getStreamFrame(m) {
	const { length } = m._capnp.segments;
	if (length === 0) return (/* @__PURE__ */ new Float64Array(1)).buffer;
	const frameLength = 4 + length * 4 + (1 - length % 2) * 4;
	const out = new DataView(new ArrayBuffer(frameLength));
	out.setUint32(0, length - 1, true);
	for (const [i, s] of m._capnp.segments.entries()) out.setUint32(i * 4 + 4, s.byteLength / 8, true);
	return out.buffer;
}
function copy(m) {
	return new Message$1(Arena.copy(m._capnp.arena));
}
// node_modules/capnp-es/dist/shared/capnp-es.BVG6upt7.mjs
var Interface = class extends Pointer {
	static _capnp = { displayName: "Interface" };
	static getCapID = getCapID;
	static getAsInterface = getAsInterface;
	static isInterface = isInterface;
	static getClient = getClient;
	constructor(segment, byteOffset, depthLimit = MAX_DEPTH) {
		super(segment, byteOffset, depthLimit);
	}
	static fromPointer(p) {
		return getAsInterface(p);
	}
	getCapId() {
		return getCapID(this);
	}
	getClient() {
		return getClient(this);
	}
	[Symbol.for("nodejs.util.inspect.custom")]() {
		return format("Interface_%d@%a,%d,limit:%x", this.segment.id, this.byteOffset, this.getCapId(), this._capnp.depthLimit);
	}
};
function getAsInterface(p) {
	if (getTargetPointerType(p) === PointerType.OTHER) return new Interface(p.segment, p.byteOffset, p._capnp.depthLimit);
	return null;
}
function isInterface(p) {
	return getTargetPointerType(p) === PointerType.OTHER;
}
function getCapID(i) {
	if (i.segment.getUint32(i.byteOffset) !== PointerType.OTHER) return -1;
	return i.segment.getUint32(i.byteOffset + 4);
}
function getClient(i) {
	const capID = getCapID(i);
	const { capTable } = i.segment.message._capnp;
	if (!capTable) return null;
	return capTable[capID];
}
function isDataCall(call) {
	return !!call.params;
}
function copyCall(call) {
	if (isDataCall(call)) return call;
	return {
		method: call.method,
		params: placeParams(call, void 0)
	};
}
function placeParams(call, contentPtr) {
	if (isDataCall(call)) return call.params;
	let p;
	if (contentPtr) p = new call.method.ParamsClass(contentPtr.segment, contentPtr.byteOffset, contentPtr._capnp.depthLimit);
	else {
		const msg = new Message$1();
		p = new call.method.ParamsClass(msg.getSegment(0), 0);
	}
	initStruct(call.method.ParamsClass._capnp.size, p);
	if (call.paramsFunc) call.paramsFunc(p);
	return p;
}
function pointerToStruct(p) {
	if (getTargetPointerType(p) === PointerType.STRUCT) return new Struct(p.segment, p.byteOffset, p._capnp.depthLimit, p._capnp.compositeIndex);
	return null;
}
function transformPtr(p, transform) {
	if (transform.length === 0) return p;
	let s = pointerToStruct(p);
	if (!s) return p;
	for (const op of transform) s = getPointer(op.field, s);
	return s;
}
var Deferred = class Deferred {
	static fromPromise(p) {
		const d = new Deferred();
		p.then(d.resolve, d.reject);
		return d;
	}
	promise;
	reject;
	resolve;
	constructor() {
		this.promise = new Promise((a, b) => {
			this.resolve = a;
			this.reject = b;
		});
	}
};
var ImmediateAnswer = class extends FixedAnswer {
	constructor(s) {
		super();
		this.s = s;
	}
	structSync() {
		return this.s;
	}
	findClient(transform) {
		return getInterfaceClientOrNull(transformPtr(this.s, transform));
	}
	pipelineCall(transform, call) {
		return this.findClient(transform).call(call);
	}
	pipelineClose(transform) {
		this.findClient(transform).close();
	}
};
var Queue = class {
	constructor(q, n) {
		this.q = q;
		this.n = n;
		this.cap = q.len();
	}
	start = 0;
	cap;
	len() {
		return this.n;
	}
	push() {
		if (this.n >= this.cap) return -1;
		const i = (this.start + this.n) % this.cap;
		this.n++;
		return i;
	}
	front() {
		if (this.n === 0) return -1;
		return this.start;
	}
	pop() {
		if (this.n === 0) return false;
		this.q.clear(this.start);
		this.start = (this.start + 1) % this.cap;
		this.n--;
		return true;
	}
};
var EmbargoClient = class {
	_client;
	q;
	calls;
	constructor(client, queue) {
		this._client = client;
		this.calls = queue.copy();
		this.q = new Queue(this.calls, this.calls.len());
		this.flushQueue();
	}
	flushQueue() {
		let c = null;
		{
			const i = this.q.front();
			if (i !== -1) c = this.calls.data[i];
		}
		while (c && c.call) {
			const ans = this._client.call(c.call);
			(async (f, ans2) => {
				try {
					f.fulfill(await ans2.struct());
				} catch (error_) {
					f.reject(error_);
				}
			})(c.f, ans);
			this.q.pop();
			{
				const i = this.q.front();
				c = i === -1 ? null : this.calls.data[i];
			}
		}
	}
	client() {
		return this.isPassthrough() ? this._client : null;
	}
	isPassthrough() {
		return this.q.len() === 0;
	}
	call(call) {
		if (this.isPassthrough()) return this._client.call(call);
		return this.push(call);
	}
	push(_call) {
		const f = new Fulfiller();
		const call = copyCall(_call);
		const i = this.q.push();
		if (i === -1) return new ErrorAnswer(new Error(RPC_CALL_QUEUE_FULL));
		this.calls.data[i] = {
			call,
			f
		};
		return f;
	}
	close() {
		while (this.q.len() > 0) {
			const first = this.calls.data[this.q.front()];
			if (!first) throw new Error(INVARIANT_UNREACHABLE_CODE);
			first.f.reject(new Error(RPC_QUEUE_CALL_CANCEL));
			this.q.pop();
		}
		this._client.close();
	}
};
var Ecalls = class Ecalls {
	data;
	constructor(data) {
		this.data = data;
	}
	static copyOf(data) {
		return new Ecalls([...data]);
	}
	len() {
		return this.data.length;
	}
	clear(i) {
		this.data[i] = null;
	}
	copy() {
		return Ecalls.copyOf(this.data);
	}
};
var callQueueSize = 64;
var Fulfiller = class Fulfiller {
	resolved = false;
	answer;
	queue = [];
	queueCap = callQueueSize;
	deferred = new Deferred();
	fulfill(s) {
		this.answer = new ImmediateAnswer(s);
		const queues = this.emptyQueue(s);
		const msgcap = s.segment.message._capnp;
		if (!msgcap.capTable) msgcap.capTable = [];
		const ctab = msgcap.capTable;
		for (const _capIdx of Object.keys(queues)) {
			const capIdx = +_capIdx;
			const q = queues[capIdx];
			const client = ctab[capIdx];
			if (!client) throw new Error(INVARIANT_UNREACHABLE_CODE);
			ctab[capIdx] = new EmbargoClient(client, q);
		}
		this.deferred.resolve(s);
	}
	reject(err) {
		this.deferred.reject(err);
	}
	peek() {
		return this.answer;
	}
	async struct() {
		return await this.deferred.promise;
	}
	pipelineCall(transform, call) {
		{
			const a = this.peek();
			if (a) return a.pipelineCall(transform, call);
		}
		if (this.queue.length === this.queueCap) return new ErrorAnswer(new Error(RPC_CALL_QUEUE_FULL));
		const cc = copyCall(call);
		const g = new Fulfiller();
		this.queue.push({
			call: cc,
			f: g,
			transform
		});
		return g;
	}
	pipelineClose(transform) {
		const onFinally = () => {
			if (this.answer) this.answer.pipelineClose(transform);
		};
		this.deferred.promise.then(onFinally, onFinally);
	}
	emptyQueue(s) {
		const qs = {};
		for (let i = 0; i < this.queue.length; i++) {
			const pc = this.queue[i];
			let c;
			try {
				c = transformPtr(s, pc.transform);
			} catch (error_) {
				pc.f.reject(error_);
				continue;
			}
			const iface = Interface.fromPointer(c);
			if (!iface) {
				pc.f.reject(new Error(RPC_NULL_CLIENT));
				continue;
			}
			const cn = iface.getCapId();
			if (!qs[cn]) qs[cn] = new Ecalls([]);
			qs[cn].data.push(pc);
		}
		this.queue = [];
		return qs;
	}
};
var PipelineClient = class {
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	transform() {
		return this.pipeline.transform();
	}
	call(call) {
		return this.pipeline.answer.pipelineCall(this.transform(), call);
	}
	close() {
		this.pipeline.answer.pipelineClose(this.transform());
	}
};
var Pipeline = class Pipeline {
	constructor(ResultsClass, answer, op, parent) {
		this.ResultsClass = ResultsClass;
		this.answer = answer;
		this.parent = parent;
		this.op = op || { field: 0 };
	}
	op;
	pipelineClient;
	transform() {
		const xform = [];
		for (let q = this; q.parent; q = q.parent) xform.unshift(q.op);
		return xform;
	}
	async struct() {
		const t = transformPtr(await this.answer.struct(), this.transform());
		if (!t) {
			if (this.op.defaultValue) copyFrom(this.op.defaultValue, t);
			else initStruct(this.ResultsClass._capnp.size, t);
		}
		return getAs(this.ResultsClass, t);
	}
	client() {
		if (!this.pipelineClient) this.pipelineClient = new PipelineClient(this);
		return this.pipelineClient;
	}
	getPipeline(ResultsClass, off, defaultValue) {
		return new Pipeline(ResultsClass, this.answer, {
			field: off,
			defaultValue
		}, this);
	}
};
var MethodError = class extends Error {
	constructor(method, message) {
		super(format(RPC_METHOD_ERROR, method.interfaceName, method.methodName, message));
		this.method = method;
	}
};
var Registry$1 = class {
	static interfaces = /* @__PURE__ */ new Map();
	static register(id, def) {
		this.interfaces.set(id, def);
	}
	static lookup(id) {
		return this.interfaces.get(id);
	}
};
var Server = class {
	constructor(target, methods) {
		this.target = target;
		this.methods = methods;
	}
	startCall(call) {
		const results = new Message$1().initRoot(call.method.ResultsClass);
		call.serverMethod.impl.call(this.target, call.params, results).then(() => call.answer.fulfill(results)).catch((error_) => call.answer.reject(error_));
	}
	call(call) {
		const serverMethod = this.methods[call.method.methodId];
		if (!serverMethod) return new ErrorAnswer(new MethodError(call.method, RPC_METHOD_NOT_IMPLEMENTED));
		const serverCall = {
			...copyCall(call),
			answer: new Fulfiller(),
			serverMethod
		};
		this.startCall(serverCall);
		return serverCall.answer;
	}
	close() {}
};
// node_modules/capnp-es/dist/capnp/rpc.mjs
var Message_Which = {
	/**
	* The sender previously received this message from the peer but didn't understand it or doesn't
	* yet implement the functionality that was requested.  So, the sender is echoing the message
	* back.  In some cases, the receiver may be able to recover from this by pretending the sender
	* had taken some appropriate "null" action.
	*
	* For example, say `resolve` is received by a level 0 implementation (because a previous call
	* or return happened to contain a promise).  The level 0 implementation will echo it back as
	* `unimplemented`.  The original sender can then simply release the cap to which the promise
	* had resolved, thus avoiding a leak.
	*
	* For any message type that introduces a question, if the message comes back unimplemented,
	* the original sender may simply treat it as if the question failed with an exception.
	*
	* In cases where there is no sensible way to react to an `unimplemented` message (without
	* resource leaks or other serious problems), the connection may need to be aborted.  This is
	* a gray area; different implementations may take different approaches.
	*
	*/
	UNIMPLEMENTED: 0,
	/**
	* Sent when a connection is being aborted due to an unrecoverable error.  This could be e.g.
	* because the sender received an invalid or nonsensical message or because the sender had an
	* internal error.  The sender will shut down the outgoing half of the connection after `abort`
	* and will completely close the connection shortly thereafter (it's up to the sender how much
	* of a time buffer they want to offer for the client to receive the `abort` before the
	* connection is reset).
	*
	*/
	ABORT: 1,
	/**
	* Request the peer's bootstrap interface.
	*
	*/
	BOOTSTRAP: 8,
	/**
	* Begin a method call.
	*
	*/
	CALL: 2,
	/**
	* Complete a method call.
	*
	*/
	RETURN: 3,
	/**
	* Release a returned answer / cancel a call.
	*
	*/
	FINISH: 4,
	/**
	* Resolve a previously-sent promise.
	*
	*/
	RESOLVE: 5,
	/**
	* Release a capability so that the remote object can be deallocated.
	*
	*/
	RELEASE: 6,
	/**
	* Lift an embargo used to enforce E-order over promise resolution.
	*
	*/
	DISEMBARGO: 13,
	/**
	* Obsolete request to save a capability, resulting in a SturdyRef. This has been replaced
	* by the `Persistent` interface defined in `persistent.capnp`. This operation was never
	* implemented.
	*
	*/
	OBSOLETE_SAVE: 7,
	/**
	* Obsolete way to delete a SturdyRef. This operation was never implemented.
	*
	*/
	OBSOLETE_DELETE: 9,
	/**
	* Provide a capability to a third party.
	*
	*/
	PROVIDE: 10,
	/**
	* Accept a capability provided by a third party.
	*
	*/
	ACCEPT: 11,
	/**
	* Directly connect to the common root of two or more proxied caps.
	*
	*/
	JOIN: 12
};
var Message = class Message extends Struct {
	static UNIMPLEMENTED = Message_Which.UNIMPLEMENTED;
	static ABORT = Message_Which.ABORT;
	static BOOTSTRAP = Message_Which.BOOTSTRAP;
	static CALL = Message_Which.CALL;
	static RETURN = Message_Which.RETURN;
	static FINISH = Message_Which.FINISH;
	static RESOLVE = Message_Which.RESOLVE;
	static RELEASE = Message_Which.RELEASE;
	static DISEMBARGO = Message_Which.DISEMBARGO;
	static OBSOLETE_SAVE = Message_Which.OBSOLETE_SAVE;
	static OBSOLETE_DELETE = Message_Which.OBSOLETE_DELETE;
	static PROVIDE = Message_Which.PROVIDE;
	static ACCEPT = Message_Which.ACCEPT;
	static JOIN = Message_Which.JOIN;
	static _capnp = {
		displayName: "Message",
		id: "91b79f1f808db032",
		size: new ObjectSize(8, 1)
	};
	_adoptUnimplemented(value) {
		setUint16(0, 0, this);
		adopt(value, getPointer(0, this));
	}
	_disownUnimplemented() {
		return disown(this.unimplemented);
	}
	/**
	* The sender previously received this message from the peer but didn't understand it or doesn't
	* yet implement the functionality that was requested.  So, the sender is echoing the message
	* back.  In some cases, the receiver may be able to recover from this by pretending the sender
	* had taken some appropriate "null" action.
	*
	* For example, say `resolve` is received by a level 0 implementation (because a previous call
	* or return happened to contain a promise).  The level 0 implementation will echo it back as
	* `unimplemented`.  The original sender can then simply release the cap to which the promise
	* had resolved, thus avoiding a leak.
	*
	* For any message type that introduces a question, if the message comes back unimplemented,
	* the original sender may simply treat it as if the question failed with an exception.
	*
	* In cases where there is no sensible way to react to an `unimplemented` message (without
	* resource leaks or other serious problems), the connection may need to be aborted.  This is
	* a gray area; different implementations may take different approaches.
	*
	*/
	get unimplemented() {
		testWhich("unimplemented", getUint16(0, this), 0, this);
		return getStruct(0, Message, this);
	}
	_hasUnimplemented() {
		return !isNull$1(getPointer(0, this));
	}
	_initUnimplemented() {
		setUint16(0, 0, this);
		return initStructAt(0, Message, this);
	}
	get _isUnimplemented() {
		return getUint16(0, this) === 0;
	}
	set unimplemented(value) {
		setUint16(0, 0, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptAbort(value) {
		setUint16(0, 1, this);
		adopt(value, getPointer(0, this));
	}
	_disownAbort() {
		return disown(this.abort);
	}
	/**
	* Sent when a connection is being aborted due to an unrecoverable error.  This could be e.g.
	* because the sender received an invalid or nonsensical message or because the sender had an
	* internal error.  The sender will shut down the outgoing half of the connection after `abort`
	* and will completely close the connection shortly thereafter (it's up to the sender how much
	* of a time buffer they want to offer for the client to receive the `abort` before the
	* connection is reset).
	*
	*/
	get abort() {
		testWhich("abort", getUint16(0, this), 1, this);
		return getStruct(0, Exception, this);
	}
	_hasAbort() {
		return !isNull$1(getPointer(0, this));
	}
	_initAbort() {
		setUint16(0, 1, this);
		return initStructAt(0, Exception, this);
	}
	get _isAbort() {
		return getUint16(0, this) === 1;
	}
	set abort(value) {
		setUint16(0, 1, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptBootstrap(value) {
		setUint16(0, 8, this);
		adopt(value, getPointer(0, this));
	}
	_disownBootstrap() {
		return disown(this.bootstrap);
	}
	/**
	* Request the peer's bootstrap interface.
	*
	*/
	get bootstrap() {
		testWhich("bootstrap", getUint16(0, this), 8, this);
		return getStruct(0, Bootstrap, this);
	}
	_hasBootstrap() {
		return !isNull$1(getPointer(0, this));
	}
	_initBootstrap() {
		setUint16(0, 8, this);
		return initStructAt(0, Bootstrap, this);
	}
	get _isBootstrap() {
		return getUint16(0, this) === 8;
	}
	set bootstrap(value) {
		setUint16(0, 8, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptCall(value) {
		setUint16(0, 2, this);
		adopt(value, getPointer(0, this));
	}
	_disownCall() {
		return disown(this.call);
	}
	/**
	* Begin a method call.
	*
	*/
	get call() {
		testWhich("call", getUint16(0, this), 2, this);
		return getStruct(0, Call, this);
	}
	_hasCall() {
		return !isNull$1(getPointer(0, this));
	}
	_initCall() {
		setUint16(0, 2, this);
		return initStructAt(0, Call, this);
	}
	get _isCall() {
		return getUint16(0, this) === 2;
	}
	set call(value) {
		setUint16(0, 2, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptReturn(value) {
		setUint16(0, 3, this);
		adopt(value, getPointer(0, this));
	}
	_disownReturn() {
		return disown(this.return);
	}
	/**
	* Complete a method call.
	*
	*/
	get return() {
		testWhich("return", getUint16(0, this), 3, this);
		return getStruct(0, Return, this);
	}
	_hasReturn() {
		return !isNull$1(getPointer(0, this));
	}
	_initReturn() {
		setUint16(0, 3, this);
		return initStructAt(0, Return, this);
	}
	get _isReturn() {
		return getUint16(0, this) === 3;
	}
	set return(value) {
		setUint16(0, 3, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptFinish(value) {
		setUint16(0, 4, this);
		adopt(value, getPointer(0, this));
	}
	_disownFinish() {
		return disown(this.finish);
	}
	/**
	* Release a returned answer / cancel a call.
	*
	*/
	get finish() {
		testWhich("finish", getUint16(0, this), 4, this);
		return getStruct(0, Finish, this);
	}
	_hasFinish() {
		return !isNull$1(getPointer(0, this));
	}
	_initFinish() {
		setUint16(0, 4, this);
		return initStructAt(0, Finish, this);
	}
	get _isFinish() {
		return getUint16(0, this) === 4;
	}
	set finish(value) {
		setUint16(0, 4, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptResolve(value) {
		setUint16(0, 5, this);
		adopt(value, getPointer(0, this));
	}
	_disownResolve() {
		return disown(this.resolve);
	}
	/**
	* Resolve a previously-sent promise.
	*
	*/
	get resolve() {
		testWhich("resolve", getUint16(0, this), 5, this);
		return getStruct(0, Resolve, this);
	}
	_hasResolve() {
		return !isNull$1(getPointer(0, this));
	}
	_initResolve() {
		setUint16(0, 5, this);
		return initStructAt(0, Resolve, this);
	}
	get _isResolve() {
		return getUint16(0, this) === 5;
	}
	set resolve(value) {
		setUint16(0, 5, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptRelease(value) {
		setUint16(0, 6, this);
		adopt(value, getPointer(0, this));
	}
	_disownRelease() {
		return disown(this.release);
	}
	/**
	* Release a capability so that the remote object can be deallocated.
	*
	*/
	get release() {
		testWhich("release", getUint16(0, this), 6, this);
		return getStruct(0, Release, this);
	}
	_hasRelease() {
		return !isNull$1(getPointer(0, this));
	}
	_initRelease() {
		setUint16(0, 6, this);
		return initStructAt(0, Release, this);
	}
	get _isRelease() {
		return getUint16(0, this) === 6;
	}
	set release(value) {
		setUint16(0, 6, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptDisembargo(value) {
		setUint16(0, 13, this);
		adopt(value, getPointer(0, this));
	}
	_disownDisembargo() {
		return disown(this.disembargo);
	}
	/**
	* Lift an embargo used to enforce E-order over promise resolution.
	*
	*/
	get disembargo() {
		testWhich("disembargo", getUint16(0, this), 13, this);
		return getStruct(0, Disembargo, this);
	}
	_hasDisembargo() {
		return !isNull$1(getPointer(0, this));
	}
	_initDisembargo() {
		setUint16(0, 13, this);
		return initStructAt(0, Disembargo, this);
	}
	get _isDisembargo() {
		return getUint16(0, this) === 13;
	}
	set disembargo(value) {
		setUint16(0, 13, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptObsoleteSave(value) {
		setUint16(0, 7, this);
		adopt(value, getPointer(0, this));
	}
	_disownObsoleteSave() {
		return disown(this.obsoleteSave);
	}
	/**
	* Obsolete request to save a capability, resulting in a SturdyRef. This has been replaced
	* by the `Persistent` interface defined in `persistent.capnp`. This operation was never
	* implemented.
	*
	*/
	get obsoleteSave() {
		testWhich("obsoleteSave", getUint16(0, this), 7, this);
		return getPointer(0, this);
	}
	_hasObsoleteSave() {
		return !isNull$1(getPointer(0, this));
	}
	get _isObsoleteSave() {
		return getUint16(0, this) === 7;
	}
	set obsoleteSave(value) {
		setUint16(0, 7, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptObsoleteDelete(value) {
		setUint16(0, 9, this);
		adopt(value, getPointer(0, this));
	}
	_disownObsoleteDelete() {
		return disown(this.obsoleteDelete);
	}
	/**
	* Obsolete way to delete a SturdyRef. This operation was never implemented.
	*
	*/
	get obsoleteDelete() {
		testWhich("obsoleteDelete", getUint16(0, this), 9, this);
		return getPointer(0, this);
	}
	_hasObsoleteDelete() {
		return !isNull$1(getPointer(0, this));
	}
	get _isObsoleteDelete() {
		return getUint16(0, this) === 9;
	}
	set obsoleteDelete(value) {
		setUint16(0, 9, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptProvide(value) {
		setUint16(0, 10, this);
		adopt(value, getPointer(0, this));
	}
	_disownProvide() {
		return disown(this.provide);
	}
	/**
	* Provide a capability to a third party.
	*
	*/
	get provide() {
		testWhich("provide", getUint16(0, this), 10, this);
		return getStruct(0, Provide, this);
	}
	_hasProvide() {
		return !isNull$1(getPointer(0, this));
	}
	_initProvide() {
		setUint16(0, 10, this);
		return initStructAt(0, Provide, this);
	}
	get _isProvide() {
		return getUint16(0, this) === 10;
	}
	set provide(value) {
		setUint16(0, 10, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptAccept(value) {
		setUint16(0, 11, this);
		adopt(value, getPointer(0, this));
	}
	_disownAccept() {
		return disown(this.accept);
	}
	/**
	* Accept a capability provided by a third party.
	*
	*/
	get accept() {
		testWhich("accept", getUint16(0, this), 11, this);
		return getStruct(0, Accept, this);
	}
	_hasAccept() {
		return !isNull$1(getPointer(0, this));
	}
	_initAccept() {
		setUint16(0, 11, this);
		return initStructAt(0, Accept, this);
	}
	get _isAccept() {
		return getUint16(0, this) === 11;
	}
	set accept(value) {
		setUint16(0, 11, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptJoin(value) {
		setUint16(0, 12, this);
		adopt(value, getPointer(0, this));
	}
	_disownJoin() {
		return disown(this.join);
	}
	/**
	* Directly connect to the common root of two or more proxied caps.
	*
	*/
	get join() {
		testWhich("join", getUint16(0, this), 12, this);
		return getStruct(0, Join, this);
	}
	_hasJoin() {
		return !isNull$1(getPointer(0, this));
	}
	_initJoin() {
		setUint16(0, 12, this);
		return initStructAt(0, Join, this);
	}
	get _isJoin() {
		return getUint16(0, this) === 12;
	}
	set join(value) {
		setUint16(0, 12, this);
		copyFrom(value, getPointer(0, this));
	}
	toString() {
		return "Message_" + super.toString();
	}
	which() {
		return getUint16(0, this);
	}
};
var Bootstrap = class extends Struct {
	static _capnp = {
		displayName: "Bootstrap",
		id: "e94ccf8031176ec4",
		size: new ObjectSize(8, 1)
	};
	/**
	* A new question ID identifying this request, which will eventually receive a Return message
	* containing the restored capability.
	*
	*/
	get questionId() {
		return getUint32(0, this);
	}
	set questionId(value) {
		setUint32(0, value, this);
	}
	_adoptDeprecatedObjectId(value) {
		adopt(value, getPointer(0, this));
	}
	_disownDeprecatedObjectId() {
		return disown(this.deprecatedObjectId);
	}
	/**
	* ** DEPRECATED **
	*
	* A Vat may export multiple bootstrap interfaces. In this case, `deprecatedObjectId` specifies
	* which one to return. If this pointer is null, then the default bootstrap interface is returned.
	*
	* As of version 0.5, use of this field is deprecated. If a service wants to export multiple
	* bootstrap interfaces, it should instead define a single bootstrap interface that has methods
	* that return each of the other interfaces.
	*
	* **History**
	*
	* In the first version of Cap'n Proto RPC (0.4.x) the `Bootstrap` message was called `Restore`.
	* At the time, it was thought that this would eventually serve as the way to restore SturdyRefs
	* (level 2). Meanwhile, an application could offer its "main" interface on a well-known
	* (non-secret) SturdyRef.
	*
	* Since level 2 RPC was not implemented at the time, the `Restore` message was in practice only
	* used to obtain the main interface. Since most applications had only one main interface that
	* they wanted to restore, they tended to designate this with a null `objectId`.
	*
	* Unfortunately, the earliest version of the EZ RPC interfaces set a precedent of exporting
	* multiple main interfaces by allowing them to be exported under string names. In this case,
	* `objectId` was a Text value specifying the name.
	*
	* All of this proved problematic for several reasons:
	*
	* - The arrangement assumed that a client wishing to restore a SturdyRef would know exactly what
	*   machine to connect to and would be able to immediately restore a SturdyRef on connection.
	*   However, in practice, the ability to restore SturdyRefs is itself a capability that may
	*   require going through an authentication process to obtain. Thus, it makes more sense to
	*   define a "restorer service" as a full Cap'n Proto interface. If this restorer interface is
	*   offered as the vat's bootstrap interface, then this is equivalent to the old arrangement.
	*
	* - Overloading "Restore" for the purpose of obtaining well-known capabilities encouraged the
	*   practice of exporting singleton services with string names. If singleton services are desired,
	*   it is better to have one main interface that has methods that can be used to obtain each
	*   service, in order to get all the usual benefits of schemas and type checking.
	*
	* - Overloading "Restore" also had a security problem: Often, "main" or "well-known"
	*   capabilities exported by a vat are in fact not public: they are intended to be accessed only
	*   by clients who are capable of forming a connection to the vat. This can lead to trouble if
	*   the client itself has other clients and wishes to forward some `Restore` requests from those
	*   external clients -- it has to be very careful not to allow through `Restore` requests
	*   addressing the default capability.
	*
	*   For example, consider the case of a sandboxed Sandstorm application and its supervisor. The
	*   application exports a default capability to its supervisor that provides access to
	*   functionality that only the supervisor is supposed to access. Meanwhile, though, applications
	*   may publish other capabilities that may be persistent, in which case the application needs
	*   to field `Restore` requests that could come from anywhere. These requests of course have to
	*   pass through the supervisor, as all communications with the outside world must. But, the
	*   supervisor has to be careful not to honor an external request addressing the application's
	*   default capability, since this capability is privileged. Unfortunately, the default
	*   capability cannot be given an unguessable name, because then the supervisor itself would not
	*   be able to address it!
	*
	* As of Cap'n Proto 0.5, `Restore` has been renamed to `Bootstrap` and is no longer planned for
	* use in restoring SturdyRefs.
	*
	* Note that 0.4 also defined a message type called `Delete` that, like `Restore`, addressed a
	* SturdyRef, but indicated that the client would not restore the ref again in the future. This
	* operation was never implemented, so it was removed entirely. If a "delete" operation is desired,
	* it should exist as a method on the same interface that handles restoring SturdyRefs. However,
	* the utility of such an operation is questionable. You wouldn't be able to rely on it for
	* garbage collection since a client could always disappear permanently without remembering to
	* delete all its SturdyRefs, thus leaving them dangling forever. Therefore, it is advisable to
	* design systems such that SturdyRefs never represent "owned" pointers.
	*
	* For example, say a SturdyRef points to an image file hosted on some server. That image file
	* should also live inside a collection (a gallery, perhaps) hosted on the same server, owned by
	* a user who can delete the image at any time. If the user deletes the image, the SturdyRef
	* stops working. On the other hand, if the SturdyRef is discarded, this has no effect on the
	* existence of the image in its collection.
	*
	*/
	get deprecatedObjectId() {
		return getPointer(0, this);
	}
	_hasDeprecatedObjectId() {
		return !isNull$1(getPointer(0, this));
	}
	set deprecatedObjectId(value) {
		copyFrom(value, getPointer(0, this));
	}
	toString() {
		return "Bootstrap_" + super.toString();
	}
};
var Call_SendResultsTo_Which = {
	/**
	* Send the return message back to the caller (the usual).
	*
	*/
	CALLER: 0,
	/**
	* **(level 1)**
	*
	* Don't actually return the results to the sender.  Instead, hold on to them and await
	* instructions from the sender regarding what to do with them.  In particular, the sender
	* may subsequently send a `Return` for some other call (which the receiver had previously made
	* to the sender) with `takeFromOtherQuestion` set.  The results from this call are then used
	* as the results of the other call.
	*
	* When `yourself` is used, the receiver must still send a `Return` for the call, but sets the
	* field `resultsSentElsewhere` in that `Return` rather than including the results.
	*
	* This feature can be used to implement tail calls in which a call from Vat A to Vat B ends up
	* returning the result of a call from Vat B back to Vat A.
	*
	* In particular, the most common use case for this feature is when Vat A makes a call to a
	* promise in Vat B, and then that promise ends up resolving to a capability back in Vat A.
	* Vat B must forward all the queued calls on that promise back to Vat A, but can set `yourself`
	* in the calls so that the results need not pass back through Vat B.
	*
	* For example:
	* - Alice, in Vat A, calls foo() on Bob in Vat B.
	* - Alice makes a pipelined call bar() on the promise returned by foo().
	* - Later on, Bob resolves the promise from foo() to point at Carol, who lives in Vat A (next
	*   to Alice).
	* - Vat B dutifully forwards the bar() call to Carol.  Let us call this forwarded call bar'().
	*   Notice that bar() and bar'() are travelling in opposite directions on the same network
	*   link.
	* - The `Call` for bar'() has `sendResultsTo` set to `yourself`.
	* - Vat B sends a `Return` for bar() with `takeFromOtherQuestion` set in place of the results,
	*   with the value set to the question ID of bar'().  Vat B does not wait for bar'() to return,
	*   as doing so would introduce unnecessary round trip latency.
	* - Vat A receives bar'() and delivers it to Carol.
	* - When bar'() returns, Vat A sends a `Return` for bar'() to Vat B, with `resultsSentElsewhere`
	*   set in place of results.
	* - Vat A sends a `Finish` for the bar() call to Vat B.
	* - Vat B receives the `Finish` for bar() and sends a `Finish` for bar'().
	*
	*/
	YOURSELF: 1,
	/**
	* **(level 3)**
	*
	* The call's result should be returned to a different vat.  The receiver (the callee) expects
	* to receive an `Accept` message from the indicated vat, and should return the call's result
	* to it, rather than to the sender of the `Call`.
	*
	* This operates much like `yourself`, above, except that Carol is in a separate Vat C.  `Call`
	* messages are sent from Vat A -> Vat B and Vat B -> Vat C.  A `Return` message is sent from
	* Vat B -> Vat A that contains `acceptFromThirdParty` in place of results.  When Vat A sends
	* an `Accept` to Vat C, it receives back a `Return` containing the call's actual result.  Vat C
	* also sends a `Return` to Vat B with `resultsSentElsewhere`.
	*
	*/
	THIRD_PARTY: 2
};
var Call_SendResultsTo = class extends Struct {
	static CALLER = Call_SendResultsTo_Which.CALLER;
	static YOURSELF = Call_SendResultsTo_Which.YOURSELF;
	static THIRD_PARTY = Call_SendResultsTo_Which.THIRD_PARTY;
	static _capnp = {
		displayName: "sendResultsTo",
		id: "dae8b0f61aab5f99",
		size: new ObjectSize(24, 3)
	};
	get _isCaller() {
		return getUint16(6, this) === 0;
	}
	set caller(_) {
		setUint16(6, 0, this);
	}
	get _isYourself() {
		return getUint16(6, this) === 1;
	}
	set yourself(_) {
		setUint16(6, 1, this);
	}
	_adoptThirdParty(value) {
		setUint16(6, 2, this);
		adopt(value, getPointer(2, this));
	}
	_disownThirdParty() {
		return disown(this.thirdParty);
	}
	/**
	* **(level 3)**
	*
	* The call's result should be returned to a different vat.  The receiver (the callee) expects
	* to receive an `Accept` message from the indicated vat, and should return the call's result
	* to it, rather than to the sender of the `Call`.
	*
	* This operates much like `yourself`, above, except that Carol is in a separate Vat C.  `Call`
	* messages are sent from Vat A -> Vat B and Vat B -> Vat C.  A `Return` message is sent from
	* Vat B -> Vat A that contains `acceptFromThirdParty` in place of results.  When Vat A sends
	* an `Accept` to Vat C, it receives back a `Return` containing the call's actual result.  Vat C
	* also sends a `Return` to Vat B with `resultsSentElsewhere`.
	*
	*/
	get thirdParty() {
		testWhich("thirdParty", getUint16(6, this), 2, this);
		return getPointer(2, this);
	}
	_hasThirdParty() {
		return !isNull$1(getPointer(2, this));
	}
	get _isThirdParty() {
		return getUint16(6, this) === 2;
	}
	set thirdParty(value) {
		setUint16(6, 2, this);
		copyFrom(value, getPointer(2, this));
	}
	toString() {
		return "Call_SendResultsTo_" + super.toString();
	}
	which() {
		return getUint16(6, this);
	}
};
var Call = class Call extends Struct {
	static _capnp = {
		displayName: "Call",
		id: "836a53ce789d4cd4",
		size: new ObjectSize(24, 3),
		defaultAllowThirdPartyTailCall: getBitMask(false, 0),
		defaultNoPromisePipelining: getBitMask(false, 1),
		defaultOnlyPromisePipeline: getBitMask(false, 2)
	};
	/**
	* A number, chosen by the caller, that identifies this call in future messages.  This number
	* must be different from all other calls originating from the same end of the connection (but
	* may overlap with question IDs originating from the opposite end).  A fine strategy is to use
	* sequential question IDs, but the recipient should not assume this.
	*
	* A question ID can be reused once both:
	* - A matching Return has been received from the callee.
	* - A matching Finish has been sent from the caller.
	*
	*/
	get questionId() {
		return getUint32(0, this);
	}
	set questionId(value) {
		setUint32(0, value, this);
	}
	_adoptTarget(value) {
		adopt(value, getPointer(0, this));
	}
	_disownTarget() {
		return disown(this.target);
	}
	/**
	* The object that should receive this call.
	*
	*/
	get target() {
		return getStruct(0, MessageTarget, this);
	}
	_hasTarget() {
		return !isNull$1(getPointer(0, this));
	}
	_initTarget() {
		return initStructAt(0, MessageTarget, this);
	}
	set target(value) {
		copyFrom(value, getPointer(0, this));
	}
	/**
	* The type ID of the interface being called.  Each capability may implement multiple interfaces.
	*
	*/
	get interfaceId() {
		return getUint64(8, this);
	}
	set interfaceId(value) {
		setUint64(8, value, this);
	}
	/**
	* The ordinal number of the method to call within the requested interface.
	*
	*/
	get methodId() {
		return getUint16(4, this);
	}
	set methodId(value) {
		setUint16(4, value, this);
	}
	/**
	* Indicates whether or not the receiver is allowed to send a `Return` containing
	* `acceptFromThirdParty`.  Level 3 implementations should set this true.  Otherwise, the callee
	* will have to proxy the return in the case of a tail call to a third-party vat.
	*
	*/
	get allowThirdPartyTailCall() {
		return getBit(128, this, Call._capnp.defaultAllowThirdPartyTailCall);
	}
	set allowThirdPartyTailCall(value) {
		setBit(128, value, this, Call._capnp.defaultAllowThirdPartyTailCall);
	}
	/**
	* If true, the sender promises that it won't make any promise-pipelined calls on the results of
	* this call. If it breaks this promise, the receiver may throw an arbitrary error from such
	* calls.
	*
	* The receiver may use this as an optimization, by skipping the bookkeeping needed for pipelining
	* when no pipelined calls are expected. The sender typically sets this to false when the method's
	* schema does not specify any return capabilities.
	*
	*/
	get noPromisePipelining() {
		return getBit(129, this, Call._capnp.defaultNoPromisePipelining);
	}
	set noPromisePipelining(value) {
		setBit(129, value, this, Call._capnp.defaultNoPromisePipelining);
	}
	/**
	* If true, the sender only plans to use this call to make pipelined calls. The receiver need not
	* send a `Return` message (but is still allowed to do so).
	*
	* Since the sender does not know whether a `Return` will be sent, it must release all state
	* related to the call when it sends `Finish`. However, in the case that the callee does not
	* recognize this hint and chooses to send a `Return`, then technically the caller is not allowed
	* to reuse the question ID until it receives said `Return`. This creates a conundrum: How does
	* the caller decide when it's OK to reuse the ID? To sidestep the problem, the C++ implementation
	* uses high-numbered IDs (with the high-order bit set) for such calls, and cycles through the
	* IDs in order. If all 2^31 IDs in this space are used without ever seeing a `Return`, then the
	* implementation assumes that the other end is in fact honoring the hint, and the ID counter is
	* allowed to loop around. If a `Return` is ever seen when `onlyPromisePipeline` was set, then
	* the implementation stops using this hint.
	*
	*/
	get onlyPromisePipeline() {
		return getBit(130, this, Call._capnp.defaultOnlyPromisePipeline);
	}
	set onlyPromisePipeline(value) {
		setBit(130, value, this, Call._capnp.defaultOnlyPromisePipeline);
	}
	_adoptParams(value) {
		adopt(value, getPointer(1, this));
	}
	_disownParams() {
		return disown(this.params);
	}
	/**
	* The call parameters.  `params.content` is a struct whose fields correspond to the parameters of
	* the method.
	*
	*/
	get params() {
		return getStruct(1, Payload, this);
	}
	_hasParams() {
		return !isNull$1(getPointer(1, this));
	}
	_initParams() {
		return initStructAt(1, Payload, this);
	}
	set params(value) {
		copyFrom(value, getPointer(1, this));
	}
	/**
	* Where should the return message be sent?
	*
	*/
	get sendResultsTo() {
		return getAs(Call_SendResultsTo, this);
	}
	_initSendResultsTo() {
		return getAs(Call_SendResultsTo, this);
	}
	toString() {
		return "Call_" + super.toString();
	}
};
var Return_Which = {
	/**
	* The result.
	*
	* For regular method calls, `results.content` points to the result struct.
	*
	* For a `Return` in response to an `Accept` or `Bootstrap`, `results` contains a single
	* capability (rather than a struct), and `results.content` is just a capability pointer with
	* index 0.  A `Finish` is still required in this case.
	*
	*/
	RESULTS: 0,
	/**
	* Indicates that the call failed and explains why.
	*
	*/
	EXCEPTION: 1,
	/**
	* Indicates that the call was canceled due to the caller sending a Finish message
	* before the call had completed.
	*
	*/
	CANCELED: 2,
	/**
	* This is set when returning from a `Call` that had `sendResultsTo` set to something other
	* than `caller`.
	*
	* It doesn't matter too much when this is sent, as the receiver doesn't need to do anything
	* with it, but the C++ implementation appears to wait for the call to finish before sending
	* this.
	*
	*/
	RESULTS_SENT_ELSEWHERE: 3,
	/**
	* The sender has also sent (before this message) a `Call` with the given question ID and with
	* `sendResultsTo.yourself` set, and the results of that other call should be used as the
	* results here.  `takeFromOtherQuestion` can only used once per question.
	*
	*/
	TAKE_FROM_OTHER_QUESTION: 4,
	/**
	* **(level 3)**
	*
	* The caller should contact a third-party vat to pick up the results.  An `Accept` message
	* sent to the vat will return the result.  This pairs with `Call.sendResultsTo.thirdParty`.
	* It should only be used if the corresponding `Call` had `allowThirdPartyTailCall` set.
	*
	*/
	ACCEPT_FROM_THIRD_PARTY: 5
};
var Return = class Return extends Struct {
	static RESULTS = Return_Which.RESULTS;
	static EXCEPTION = Return_Which.EXCEPTION;
	static CANCELED = Return_Which.CANCELED;
	static RESULTS_SENT_ELSEWHERE = Return_Which.RESULTS_SENT_ELSEWHERE;
	static TAKE_FROM_OTHER_QUESTION = Return_Which.TAKE_FROM_OTHER_QUESTION;
	static ACCEPT_FROM_THIRD_PARTY = Return_Which.ACCEPT_FROM_THIRD_PARTY;
	static _capnp = {
		displayName: "Return",
		id: "9e19b28d3db3573a",
		size: new ObjectSize(16, 1),
		defaultReleaseParamCaps: getBitMask(true, 0),
		defaultNoFinishNeeded: getBitMask(false, 1)
	};
	/**
	* Equal to the QuestionId of the corresponding `Call` message.
	*
	*/
	get answerId() {
		return getUint32(0, this);
	}
	set answerId(value) {
		setUint32(0, value, this);
	}
	/**
	* If true, all capabilities that were in the params should be considered released.  The sender
	* must not send separate `Release` messages for them.  Level 0 implementations in particular
	* should always set this true.  This defaults true because if level 0 implementations forget to
	* set it they'll never notice (just silently leak caps), but if level >=1 implementations forget
	* to set it to false they'll quickly get errors.
	*
	* The receiver should act as if the sender had sent a release message with count=1 for each
	* CapDescriptor in the original Call message.
	*
	*/
	get releaseParamCaps() {
		return getBit(32, this, Return._capnp.defaultReleaseParamCaps);
	}
	set releaseParamCaps(value) {
		setBit(32, value, this, Return._capnp.defaultReleaseParamCaps);
	}
	/**
	* If true, the sender does not need the receiver to send a `Finish` message; its answer table
	* entry has already been cleaned up. This implies that the results do not contain any
	* capabilities, since the `Finish` message would normally release those capabilities from
	* promise pipelining responsibility. The caller may still send a `Finish` message if it wants,
	* which will be silently ignored by the callee.
	*
	*/
	get noFinishNeeded() {
		return getBit(33, this, Return._capnp.defaultNoFinishNeeded);
	}
	set noFinishNeeded(value) {
		setBit(33, value, this, Return._capnp.defaultNoFinishNeeded);
	}
	_adoptResults(value) {
		setUint16(6, 0, this);
		adopt(value, getPointer(0, this));
	}
	_disownResults() {
		return disown(this.results);
	}
	/**
	* The result.
	*
	* For regular method calls, `results.content` points to the result struct.
	*
	* For a `Return` in response to an `Accept` or `Bootstrap`, `results` contains a single
	* capability (rather than a struct), and `results.content` is just a capability pointer with
	* index 0.  A `Finish` is still required in this case.
	*
	*/
	get results() {
		testWhich("results", getUint16(6, this), 0, this);
		return getStruct(0, Payload, this);
	}
	_hasResults() {
		return !isNull$1(getPointer(0, this));
	}
	_initResults() {
		setUint16(6, 0, this);
		return initStructAt(0, Payload, this);
	}
	get _isResults() {
		return getUint16(6, this) === 0;
	}
	set results(value) {
		setUint16(6, 0, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptException(value) {
		setUint16(6, 1, this);
		adopt(value, getPointer(0, this));
	}
	_disownException() {
		return disown(this.exception);
	}
	/**
	* Indicates that the call failed and explains why.
	*
	*/
	get exception() {
		testWhich("exception", getUint16(6, this), 1, this);
		return getStruct(0, Exception, this);
	}
	_hasException() {
		return !isNull$1(getPointer(0, this));
	}
	_initException() {
		setUint16(6, 1, this);
		return initStructAt(0, Exception, this);
	}
	get _isException() {
		return getUint16(6, this) === 1;
	}
	set exception(value) {
		setUint16(6, 1, this);
		copyFrom(value, getPointer(0, this));
	}
	get _isCanceled() {
		return getUint16(6, this) === 2;
	}
	set canceled(_) {
		setUint16(6, 2, this);
	}
	get _isResultsSentElsewhere() {
		return getUint16(6, this) === 3;
	}
	set resultsSentElsewhere(_) {
		setUint16(6, 3, this);
	}
	/**
	* The sender has also sent (before this message) a `Call` with the given question ID and with
	* `sendResultsTo.yourself` set, and the results of that other call should be used as the
	* results here.  `takeFromOtherQuestion` can only used once per question.
	*
	*/
	get takeFromOtherQuestion() {
		testWhich("takeFromOtherQuestion", getUint16(6, this), 4, this);
		return getUint32(8, this);
	}
	get _isTakeFromOtherQuestion() {
		return getUint16(6, this) === 4;
	}
	set takeFromOtherQuestion(value) {
		setUint16(6, 4, this);
		setUint32(8, value, this);
	}
	_adoptAcceptFromThirdParty(value) {
		setUint16(6, 5, this);
		adopt(value, getPointer(0, this));
	}
	_disownAcceptFromThirdParty() {
		return disown(this.acceptFromThirdParty);
	}
	/**
	* **(level 3)**
	*
	* The caller should contact a third-party vat to pick up the results.  An `Accept` message
	* sent to the vat will return the result.  This pairs with `Call.sendResultsTo.thirdParty`.
	* It should only be used if the corresponding `Call` had `allowThirdPartyTailCall` set.
	*
	*/
	get acceptFromThirdParty() {
		testWhich("acceptFromThirdParty", getUint16(6, this), 5, this);
		return getPointer(0, this);
	}
	_hasAcceptFromThirdParty() {
		return !isNull$1(getPointer(0, this));
	}
	get _isAcceptFromThirdParty() {
		return getUint16(6, this) === 5;
	}
	set acceptFromThirdParty(value) {
		setUint16(6, 5, this);
		copyFrom(value, getPointer(0, this));
	}
	toString() {
		return "Return_" + super.toString();
	}
	which() {
		return getUint16(6, this);
	}
};
var Finish = class Finish extends Struct {
	static _capnp = {
		displayName: "Finish",
		id: "d37d2eb2c2f80e63",
		size: new ObjectSize(8, 0),
		defaultReleaseResultCaps: getBitMask(true, 0),
		defaultRequireEarlyCancellationWorkaround: getBitMask(true, 1)
	};
	/**
	* ID of the call whose result is to be released.
	*
	*/
	get questionId() {
		return getUint32(0, this);
	}
	set questionId(value) {
		setUint32(0, value, this);
	}
	/**
	* If true, all capabilities that were in the results should be considered released.  The sender
	* must not send separate `Release` messages for them.  Level 0 implementations in particular
	* should always set this true.  This defaults true because if level 0 implementations forget to
	* set it they'll never notice (just silently leak caps), but if level >=1 implementations forget
	* set it false they'll quickly get errors.
	*
	*/
	get releaseResultCaps() {
		return getBit(32, this, Finish._capnp.defaultReleaseResultCaps);
	}
	set releaseResultCaps(value) {
		setBit(32, value, this, Finish._capnp.defaultReleaseResultCaps);
	}
	/**
	* If true, if the RPC system receives this Finish message before the original call has even been
	* delivered, it should defer cancellation util after delivery. In particular, this gives the
	* destination object a chance to opt out of cancellation, e.g. as controlled by the
	* `allowCancellation` annotation defined in `c++.capnp`.
	*
	* This is a work-around. Versions 1.0 and up of Cap'n Proto always set this to false. However,
	* older versions of Cap'n Proto unintentionally exhibited this errant behavior by default, and
	* as a result programs built with older versions could be inadvertently relying on their peers
	* to implement the behavior. The purpose of this flag is to let newer versions know when the
	* peer is an older version, so that it can attempt to work around the issue.
	*
	* See also comments in handleFinish() in rpc.c++ for more details.
	*
	*/
	get requireEarlyCancellationWorkaround() {
		return getBit(33, this, Finish._capnp.defaultRequireEarlyCancellationWorkaround);
	}
	set requireEarlyCancellationWorkaround(value) {
		setBit(33, value, this, Finish._capnp.defaultRequireEarlyCancellationWorkaround);
	}
	toString() {
		return "Finish_" + super.toString();
	}
};
var Resolve_Which = {
	/**
	* The object to which the promise resolved.
	*
	* The sender promises that from this point forth, until `promiseId` is released, it shall
	* simply forward all messages to the capability designated by `cap`.  This is true even if
	* `cap` itself happens to designate another promise, and that other promise later resolves --
	* messages sent to `promiseId` shall still go to that other promise, not to its resolution.
	* This is important in the case that the receiver of the `Resolve` ends up sending a
	* `Disembargo` message towards `promiseId` in order to control message ordering -- that
	* `Disembargo` really needs to reflect back to exactly the object designated by `cap` even
	* if that object is itself a promise.
	*
	*/
	CAP: 0,
	/**
	* Indicates that the promise was broken.
	*
	*/
	EXCEPTION: 1
};
var Resolve = class extends Struct {
	static CAP = Resolve_Which.CAP;
	static EXCEPTION = Resolve_Which.EXCEPTION;
	static _capnp = {
		displayName: "Resolve",
		id: "bbc29655fa89086e",
		size: new ObjectSize(8, 1)
	};
	/**
	* The ID of the promise to be resolved.
	*
	* Unlike all other instances of `ExportId` sent from the exporter, the `Resolve` message does
	* _not_ increase the reference count of `promiseId`.  In fact, it is expected that the receiver
	* will release the export soon after receiving `Resolve`, and the sender will not send this
	* `ExportId` again until it has been released and recycled.
	*
	* When an export ID sent over the wire (e.g. in a `CapDescriptor`) is indicated to be a promise,
	* this indicates that the sender will follow up at some point with a `Resolve` message.  If the
	* same `promiseId` is sent again before `Resolve`, still only one `Resolve` is sent.  If the
	* same ID is sent again later _after_ a `Resolve`, it can only be because the export's
	* reference count hit zero in the meantime and the ID was re-assigned to a new export, therefore
	* this later promise does _not_ correspond to the earlier `Resolve`.
	*
	* If a promise ID's reference count reaches zero before a `Resolve` is sent, the `Resolve`
	* message may or may not still be sent (the `Resolve` may have already been in-flight when
	* `Release` was sent, but if the `Release` is received before `Resolve` then there is no longer
	* any reason to send a `Resolve`).  Thus a `Resolve` may be received for a promise of which
	* the receiver has no knowledge, because it already released it earlier.  In this case, the
	* receiver should simply release the capability to which the promise resolved.
	*
	*/
	get promiseId() {
		return getUint32(0, this);
	}
	set promiseId(value) {
		setUint32(0, value, this);
	}
	_adoptCap(value) {
		setUint16(4, 0, this);
		adopt(value, getPointer(0, this));
	}
	_disownCap() {
		return disown(this.cap);
	}
	/**
	* The object to which the promise resolved.
	*
	* The sender promises that from this point forth, until `promiseId` is released, it shall
	* simply forward all messages to the capability designated by `cap`.  This is true even if
	* `cap` itself happens to designate another promise, and that other promise later resolves --
	* messages sent to `promiseId` shall still go to that other promise, not to its resolution.
	* This is important in the case that the receiver of the `Resolve` ends up sending a
	* `Disembargo` message towards `promiseId` in order to control message ordering -- that
	* `Disembargo` really needs to reflect back to exactly the object designated by `cap` even
	* if that object is itself a promise.
	*
	*/
	get cap() {
		testWhich("cap", getUint16(4, this), 0, this);
		return getStruct(0, CapDescriptor, this);
	}
	_hasCap() {
		return !isNull$1(getPointer(0, this));
	}
	_initCap() {
		setUint16(4, 0, this);
		return initStructAt(0, CapDescriptor, this);
	}
	get _isCap() {
		return getUint16(4, this) === 0;
	}
	set cap(value) {
		setUint16(4, 0, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptException(value) {
		setUint16(4, 1, this);
		adopt(value, getPointer(0, this));
	}
	_disownException() {
		return disown(this.exception);
	}
	/**
	* Indicates that the promise was broken.
	*
	*/
	get exception() {
		testWhich("exception", getUint16(4, this), 1, this);
		return getStruct(0, Exception, this);
	}
	_hasException() {
		return !isNull$1(getPointer(0, this));
	}
	_initException() {
		setUint16(4, 1, this);
		return initStructAt(0, Exception, this);
	}
	get _isException() {
		return getUint16(4, this) === 1;
	}
	set exception(value) {
		setUint16(4, 1, this);
		copyFrom(value, getPointer(0, this));
	}
	toString() {
		return "Resolve_" + super.toString();
	}
	which() {
		return getUint16(4, this);
	}
};
var Release = class extends Struct {
	static _capnp = {
		displayName: "Release",
		id: "ad1a6c0d7dd07497",
		size: new ObjectSize(8, 0)
	};
	/**
	* What to release.
	*
	*/
	get id() {
		return getUint32(0, this);
	}
	set id(value) {
		setUint32(0, value, this);
	}
	/**
	* The amount by which to decrement the reference count.  The export is only actually released
	* when the reference count reaches zero.
	*
	*/
	get referenceCount() {
		return getUint32(4, this);
	}
	set referenceCount(value) {
		setUint32(4, value, this);
	}
	toString() {
		return "Release_" + super.toString();
	}
};
var Disembargo_Context_Which = {
	/**
	* The sender is requesting a disembargo on a promise that is known to resolve back to a
	* capability hosted by the sender.  As soon as the receiver has echoed back all pipelined calls
	* on this promise, it will deliver the Disembargo back to the sender with `receiverLoopback`
	* set to the same value as `senderLoopback`.  This value is chosen by the sender, and since
	* it is also consumed be the sender, the sender can use whatever strategy it wants to make sure
	* the value is unambiguous.
	*
	* The receiver must verify that the target capability actually resolves back to the sender's
	* vat.  Otherwise, the sender has committed a protocol error and should be disconnected.
	*
	*/
	SENDER_LOOPBACK: 0,
	/**
	* The receiver previously sent a `senderLoopback` Disembargo towards a promise resolving to
	* this capability, and that Disembargo is now being echoed back.
	*
	*/
	RECEIVER_LOOPBACK: 1,
	/**
	* **(level 3)**
	*
	* The sender is requesting a disembargo on a promise that is known to resolve to a third-party
	* capability that the sender is currently in the process of accepting (using `Accept`).
	* The receiver of this `Disembargo` has an outstanding `Provide` on said capability.  The
	* receiver should now send a `Disembargo` with `provide` set to the question ID of that
	* `Provide` message.
	*
	* See `Accept.embargo` for an example.
	*
	*/
	ACCEPT: 2,
	/**
	* **(level 3)**
	*
	* The sender is requesting a disembargo on a capability currently being provided to a third
	* party.  The question ID identifies the `Provide` message previously sent by the sender to
	* this capability.  On receipt, the receiver (the capability host) shall release the embargo
	* on the `Accept` message that it has received from the third party.  See `Accept.embargo` for
	* an example.
	*
	*/
	PROVIDE: 3
};
var Disembargo_Context = class extends Struct {
	static SENDER_LOOPBACK = Disembargo_Context_Which.SENDER_LOOPBACK;
	static RECEIVER_LOOPBACK = Disembargo_Context_Which.RECEIVER_LOOPBACK;
	static ACCEPT = Disembargo_Context_Which.ACCEPT;
	static PROVIDE = Disembargo_Context_Which.PROVIDE;
	static _capnp = {
		displayName: "context",
		id: "d562b4df655bdd4d",
		size: new ObjectSize(8, 1)
	};
	/**
	* The sender is requesting a disembargo on a promise that is known to resolve back to a
	* capability hosted by the sender.  As soon as the receiver has echoed back all pipelined calls
	* on this promise, it will deliver the Disembargo back to the sender with `receiverLoopback`
	* set to the same value as `senderLoopback`.  This value is chosen by the sender, and since
	* it is also consumed be the sender, the sender can use whatever strategy it wants to make sure
	* the value is unambiguous.
	*
	* The receiver must verify that the target capability actually resolves back to the sender's
	* vat.  Otherwise, the sender has committed a protocol error and should be disconnected.
	*
	*/
	get senderLoopback() {
		testWhich("senderLoopback", getUint16(4, this), 0, this);
		return getUint32(0, this);
	}
	get _isSenderLoopback() {
		return getUint16(4, this) === 0;
	}
	set senderLoopback(value) {
		setUint16(4, 0, this);
		setUint32(0, value, this);
	}
	/**
	* The receiver previously sent a `senderLoopback` Disembargo towards a promise resolving to
	* this capability, and that Disembargo is now being echoed back.
	*
	*/
	get receiverLoopback() {
		testWhich("receiverLoopback", getUint16(4, this), 1, this);
		return getUint32(0, this);
	}
	get _isReceiverLoopback() {
		return getUint16(4, this) === 1;
	}
	set receiverLoopback(value) {
		setUint16(4, 1, this);
		setUint32(0, value, this);
	}
	get _isAccept() {
		return getUint16(4, this) === 2;
	}
	set accept(_) {
		setUint16(4, 2, this);
	}
	/**
	* **(level 3)**
	*
	* The sender is requesting a disembargo on a capability currently being provided to a third
	* party.  The question ID identifies the `Provide` message previously sent by the sender to
	* this capability.  On receipt, the receiver (the capability host) shall release the embargo
	* on the `Accept` message that it has received from the third party.  See `Accept.embargo` for
	* an example.
	*
	*/
	get provide() {
		testWhich("provide", getUint16(4, this), 3, this);
		return getUint32(0, this);
	}
	get _isProvide() {
		return getUint16(4, this) === 3;
	}
	set provide(value) {
		setUint16(4, 3, this);
		setUint32(0, value, this);
	}
	toString() {
		return "Disembargo_Context_" + super.toString();
	}
	which() {
		return getUint16(4, this);
	}
};
var Disembargo = class extends Struct {
	static _capnp = {
		displayName: "Disembargo",
		id: "f964368b0fbd3711",
		size: new ObjectSize(8, 1)
	};
	_adoptTarget(value) {
		adopt(value, getPointer(0, this));
	}
	_disownTarget() {
		return disown(this.target);
	}
	/**
	* What is to be disembargoed.
	*
	*/
	get target() {
		return getStruct(0, MessageTarget, this);
	}
	_hasTarget() {
		return !isNull$1(getPointer(0, this));
	}
	_initTarget() {
		return initStructAt(0, MessageTarget, this);
	}
	set target(value) {
		copyFrom(value, getPointer(0, this));
	}
	get context() {
		return getAs(Disembargo_Context, this);
	}
	_initContext() {
		return getAs(Disembargo_Context, this);
	}
	toString() {
		return "Disembargo_" + super.toString();
	}
};
var Provide = class extends Struct {
	static _capnp = {
		displayName: "Provide",
		id: "9c6a046bfbc1ac5a",
		size: new ObjectSize(8, 2)
	};
	/**
	* Question ID to be held open until the recipient has received the capability.  A result will be
	* returned once the third party has successfully received the capability.  The sender must at some
	* point send a `Finish` message as with any other call, and that message can be used to cancel the
	* whole operation.
	*
	*/
	get questionId() {
		return getUint32(0, this);
	}
	set questionId(value) {
		setUint32(0, value, this);
	}
	_adoptTarget(value) {
		adopt(value, getPointer(0, this));
	}
	_disownTarget() {
		return disown(this.target);
	}
	/**
	* What is to be provided to the third party.
	*
	*/
	get target() {
		return getStruct(0, MessageTarget, this);
	}
	_hasTarget() {
		return !isNull$1(getPointer(0, this));
	}
	_initTarget() {
		return initStructAt(0, MessageTarget, this);
	}
	set target(value) {
		copyFrom(value, getPointer(0, this));
	}
	_adoptRecipient(value) {
		adopt(value, getPointer(1, this));
	}
	_disownRecipient() {
		return disown(this.recipient);
	}
	/**
	* Identity of the third party that is expected to pick up the capability.
	*
	*/
	get recipient() {
		return getPointer(1, this);
	}
	_hasRecipient() {
		return !isNull$1(getPointer(1, this));
	}
	set recipient(value) {
		copyFrom(value, getPointer(1, this));
	}
	toString() {
		return "Provide_" + super.toString();
	}
};
var Accept = class extends Struct {
	static _capnp = {
		displayName: "Accept",
		id: "d4c9b56290554016",
		size: new ObjectSize(8, 1)
	};
	/**
	* A new question ID identifying this accept message, which will eventually receive a Return
	* message containing the provided capability (or the call result in the case of a redirected
	* return).
	*
	*/
	get questionId() {
		return getUint32(0, this);
	}
	set questionId(value) {
		setUint32(0, value, this);
	}
	_adoptProvision(value) {
		adopt(value, getPointer(0, this));
	}
	_disownProvision() {
		return disown(this.provision);
	}
	/**
	* Identifies the provided object to be picked up.
	*
	*/
	get provision() {
		return getPointer(0, this);
	}
	_hasProvision() {
		return !isNull$1(getPointer(0, this));
	}
	set provision(value) {
		copyFrom(value, getPointer(0, this));
	}
	/**
	* If true, this accept shall be temporarily embargoed.  The resulting `Return` will not be sent,
	* and any pipelined calls will not be delivered, until the embargo is released.  The receiver
	* (the capability host) will expect the provider (the vat that sent the `Provide` message) to
	* eventually send a `Disembargo` message with the field `context.provide` set to the question ID
	* of the original `Provide` message.  At that point, the embargo is released and the queued
	* messages are delivered.
	*
	* For example:
	* - Alice, in Vat A, holds a promise P, which currently points toward Vat B.
	* - Alice calls foo() on P.  The `Call` message is sent to Vat B.
	* - The promise P in Vat B ends up resolving to Carol, in Vat C.
	* - Vat B sends a `Provide` message to Vat C, identifying Vat A as the recipient.
	* - Vat B sends a `Resolve` message to Vat A, indicating that the promise has resolved to a
	*   `ThirdPartyCapId` identifying Carol in Vat C.
	* - Vat A sends an `Accept` message to Vat C to pick up the capability.  Since Vat A knows that
	*   it has an outstanding call to the promise, it sets `embargo` to `true` in the `Accept`
	*   message.
	* - Vat A sends a `Disembargo` message to Vat B on promise P, with `context.accept` set.
	* - Alice makes a call bar() to promise P, which is now pointing towards Vat C.  Alice doesn't
	*   know anything about the mechanics of promise resolution happening under the hood, but she
	*   expects that bar() will be delivered after foo() because that is the order in which she
	*   initiated the calls.
	* - Vat A sends the bar() call to Vat C, as a pipelined call on the result of the `Accept` (which
	*   hasn't returned yet, due to the embargo).  Since calls to the newly-accepted capability
	*   are embargoed, Vat C does not deliver the call yet.
	* - At some point, Vat B forwards the foo() call from the beginning of this example on to Vat C.
	* - Vat B forwards the `Disembargo` from Vat A on to vat C.  It sets `context.provide` to the
	*   question ID of the `Provide` message it had sent previously.
	* - Vat C receives foo() before `Disembargo`, thus allowing it to correctly deliver foo()
	*   before delivering bar().
	* - Vat C receives `Disembargo` from Vat B.  It can now send a `Return` for the `Accept` from
	*   Vat A, as well as deliver bar().
	*
	*/
	get embargo() {
		return getBit(32, this);
	}
	set embargo(value) {
		setBit(32, value, this);
	}
	toString() {
		return "Accept_" + super.toString();
	}
};
var Join = class extends Struct {
	static _capnp = {
		displayName: "Join",
		id: "fbe1980490e001af",
		size: new ObjectSize(8, 2)
	};
	/**
	* Question ID used to respond to this Join.  (Note that this ID only identifies one part of the
	* request for one hop; each part has a different ID and relayed copies of the request have
	* (probably) different IDs still.)
	*
	* The receiver will reply with a `Return` whose `results` is a JoinResult.  This `JoinResult`
	* is relayed from the joined object's host, possibly with transformation applied as needed
	* by the network.
	*
	* Like any return, the result must be released using a `Finish`.  However, this release
	* should not occur until the joiner has either successfully connected to the joined object.
	* Vats relaying a `Join` message similarly must not release the result they receive until the
	* return they relayed back towards the joiner has itself been released.  This allows the
	* joined object's host to detect when the Join operation is canceled before completing -- if
	* it receives a `Finish` for one of the join results before the joiner successfully
	* connects.  It can then free any resources it had allocated as part of the join.
	*
	*/
	get questionId() {
		return getUint32(0, this);
	}
	set questionId(value) {
		setUint32(0, value, this);
	}
	_adoptTarget(value) {
		adopt(value, getPointer(0, this));
	}
	_disownTarget() {
		return disown(this.target);
	}
	/**
	* The capability to join.
	*
	*/
	get target() {
		return getStruct(0, MessageTarget, this);
	}
	_hasTarget() {
		return !isNull$1(getPointer(0, this));
	}
	_initTarget() {
		return initStructAt(0, MessageTarget, this);
	}
	set target(value) {
		copyFrom(value, getPointer(0, this));
	}
	_adoptKeyPart(value) {
		adopt(value, getPointer(1, this));
	}
	_disownKeyPart() {
		return disown(this.keyPart);
	}
	/**
	* A part of the join key.  These combine to form the complete join key, which is used to establish
	* a direct connection.
	*
	*/
	get keyPart() {
		return getPointer(1, this);
	}
	_hasKeyPart() {
		return !isNull$1(getPointer(1, this));
	}
	set keyPart(value) {
		copyFrom(value, getPointer(1, this));
	}
	toString() {
		return "Join_" + super.toString();
	}
};
var MessageTarget_Which = {
	/**
	* This message is to a capability or promise previously imported by the caller (exported by
	* the receiver).
	*
	*/
	IMPORTED_CAP: 0,
	/**
	* This message is to a capability that is expected to be returned by another call that has not
	* yet been completed.
	*
	* At level 0, this is supported only for addressing the result of a previous `Bootstrap`, so
	* that initial startup doesn't require a round trip.
	*
	*/
	PROMISED_ANSWER: 1
};
var MessageTarget = class extends Struct {
	static IMPORTED_CAP = MessageTarget_Which.IMPORTED_CAP;
	static PROMISED_ANSWER = MessageTarget_Which.PROMISED_ANSWER;
	static _capnp = {
		displayName: "MessageTarget",
		id: "95bc14545813fbc1",
		size: new ObjectSize(8, 1)
	};
	/**
	* This message is to a capability or promise previously imported by the caller (exported by
	* the receiver).
	*
	*/
	get importedCap() {
		testWhich("importedCap", getUint16(4, this), 0, this);
		return getUint32(0, this);
	}
	get _isImportedCap() {
		return getUint16(4, this) === 0;
	}
	set importedCap(value) {
		setUint16(4, 0, this);
		setUint32(0, value, this);
	}
	_adoptPromisedAnswer(value) {
		setUint16(4, 1, this);
		adopt(value, getPointer(0, this));
	}
	_disownPromisedAnswer() {
		return disown(this.promisedAnswer);
	}
	/**
	* This message is to a capability that is expected to be returned by another call that has not
	* yet been completed.
	*
	* At level 0, this is supported only for addressing the result of a previous `Bootstrap`, so
	* that initial startup doesn't require a round trip.
	*
	*/
	get promisedAnswer() {
		testWhich("promisedAnswer", getUint16(4, this), 1, this);
		return getStruct(0, PromisedAnswer, this);
	}
	_hasPromisedAnswer() {
		return !isNull$1(getPointer(0, this));
	}
	_initPromisedAnswer() {
		setUint16(4, 1, this);
		return initStructAt(0, PromisedAnswer, this);
	}
	get _isPromisedAnswer() {
		return getUint16(4, this) === 1;
	}
	set promisedAnswer(value) {
		setUint16(4, 1, this);
		copyFrom(value, getPointer(0, this));
	}
	toString() {
		return "MessageTarget_" + super.toString();
	}
	which() {
		return getUint16(4, this);
	}
};
var Payload = class Payload extends Struct {
	static _capnp = {
		displayName: "Payload",
		id: "9a0e61223d96743b",
		size: new ObjectSize(0, 2)
	};
	static _CapTable;
	_adoptContent(value) {
		adopt(value, getPointer(0, this));
	}
	_disownContent() {
		return disown(this.content);
	}
	/**
	* Some Cap'n Proto data structure.  Capability pointers embedded in this structure index into
	* `capTable`.
	*
	*/
	get content() {
		return getPointer(0, this);
	}
	_hasContent() {
		return !isNull$1(getPointer(0, this));
	}
	set content(value) {
		copyFrom(value, getPointer(0, this));
	}
	_adoptCapTable(value) {
		adopt(value, getPointer(1, this));
	}
	_disownCapTable() {
		return disown(this.capTable);
	}
	/**
	* Descriptors corresponding to the cap pointers in `content`.
	*
	*/
	get capTable() {
		return getList(1, Payload._CapTable, this);
	}
	_hasCapTable() {
		return !isNull$1(getPointer(1, this));
	}
	_initCapTable(length) {
		return initList(1, Payload._CapTable, length, this);
	}
	set capTable(value) {
		copyFrom(value, getPointer(1, this));
	}
	toString() {
		return "Payload_" + super.toString();
	}
};
var CapDescriptor_Which = {
	/**
	* There is no capability here.  This `CapDescriptor` should not appear in the payload content.
	* A `none` CapDescriptor can be generated when an application inserts a capability into a
	* message and then later changes its mind and removes it -- rewriting all of the other
	* capability pointers may be hard, so instead a tombstone is left, similar to the way a removed
	* struct or list instance is zeroed out of the message but the space is not reclaimed.
	* Hopefully this is unusual.
	*
	*/
	NONE: 0,
	/**
	* The ID of a capability in the sender's export table (receiver's import table).  It may be a
	* newly allocated table entry, or an existing entry (increments the reference count).
	*
	*/
	SENDER_HOSTED: 1,
	/**
	* A promise that the sender will resolve later.  The sender will send exactly one Resolve
	* message at a future point in time to replace this promise.  Note that even if the same
	* `senderPromise` is received multiple times, only one `Resolve` is sent to cover all of
	* them.  If `senderPromise` is released before the `Resolve` is sent, the sender (of this
	* `CapDescriptor`) may choose not to send the `Resolve` at all.
	*
	*/
	SENDER_PROMISE: 2,
	/**
	* A capability (or promise) previously exported by the receiver (imported by the sender).
	*
	*/
	RECEIVER_HOSTED: 3,
	/**
	* A capability expected to be returned in the results of a currently-outstanding call posed
	* by the sender.
	*
	*/
	RECEIVER_ANSWER: 4,
	/**
	* **(level 3)**
	*
	* A capability that lives in neither the sender's nor the receiver's vat.  The sender needs
	* to form a direct connection to a third party to pick up the capability.
	*
	* Level 1 and 2 implementations that receive a `thirdPartyHosted` may simply send calls to its
	* `vine` instead.
	*
	*/
	THIRD_PARTY_HOSTED: 5
};
var CapDescriptor = class CapDescriptor extends Struct {
	static NONE = CapDescriptor_Which.NONE;
	static SENDER_HOSTED = CapDescriptor_Which.SENDER_HOSTED;
	static SENDER_PROMISE = CapDescriptor_Which.SENDER_PROMISE;
	static RECEIVER_HOSTED = CapDescriptor_Which.RECEIVER_HOSTED;
	static RECEIVER_ANSWER = CapDescriptor_Which.RECEIVER_ANSWER;
	static THIRD_PARTY_HOSTED = CapDescriptor_Which.THIRD_PARTY_HOSTED;
	static _capnp = {
		displayName: "CapDescriptor",
		id: "8523ddc40b86b8b0",
		size: new ObjectSize(8, 1),
		defaultAttachedFd: getUint8Mask(255)
	};
	get _isNone() {
		return getUint16(0, this) === 0;
	}
	set none(_) {
		setUint16(0, 0, this);
	}
	/**
	* The ID of a capability in the sender's export table (receiver's import table).  It may be a
	* newly allocated table entry, or an existing entry (increments the reference count).
	*
	*/
	get senderHosted() {
		testWhich("senderHosted", getUint16(0, this), 1, this);
		return getUint32(4, this);
	}
	get _isSenderHosted() {
		return getUint16(0, this) === 1;
	}
	set senderHosted(value) {
		setUint16(0, 1, this);
		setUint32(4, value, this);
	}
	/**
	* A promise that the sender will resolve later.  The sender will send exactly one Resolve
	* message at a future point in time to replace this promise.  Note that even if the same
	* `senderPromise` is received multiple times, only one `Resolve` is sent to cover all of
	* them.  If `senderPromise` is released before the `Resolve` is sent, the sender (of this
	* `CapDescriptor`) may choose not to send the `Resolve` at all.
	*
	*/
	get senderPromise() {
		testWhich("senderPromise", getUint16(0, this), 2, this);
		return getUint32(4, this);
	}
	get _isSenderPromise() {
		return getUint16(0, this) === 2;
	}
	set senderPromise(value) {
		setUint16(0, 2, this);
		setUint32(4, value, this);
	}
	/**
	* A capability (or promise) previously exported by the receiver (imported by the sender).
	*
	*/
	get receiverHosted() {
		testWhich("receiverHosted", getUint16(0, this), 3, this);
		return getUint32(4, this);
	}
	get _isReceiverHosted() {
		return getUint16(0, this) === 3;
	}
	set receiverHosted(value) {
		setUint16(0, 3, this);
		setUint32(4, value, this);
	}
	_adoptReceiverAnswer(value) {
		setUint16(0, 4, this);
		adopt(value, getPointer(0, this));
	}
	_disownReceiverAnswer() {
		return disown(this.receiverAnswer);
	}
	/**
	* A capability expected to be returned in the results of a currently-outstanding call posed
	* by the sender.
	*
	*/
	get receiverAnswer() {
		testWhich("receiverAnswer", getUint16(0, this), 4, this);
		return getStruct(0, PromisedAnswer, this);
	}
	_hasReceiverAnswer() {
		return !isNull$1(getPointer(0, this));
	}
	_initReceiverAnswer() {
		setUint16(0, 4, this);
		return initStructAt(0, PromisedAnswer, this);
	}
	get _isReceiverAnswer() {
		return getUint16(0, this) === 4;
	}
	set receiverAnswer(value) {
		setUint16(0, 4, this);
		copyFrom(value, getPointer(0, this));
	}
	_adoptThirdPartyHosted(value) {
		setUint16(0, 5, this);
		adopt(value, getPointer(0, this));
	}
	_disownThirdPartyHosted() {
		return disown(this.thirdPartyHosted);
	}
	/**
	* **(level 3)**
	*
	* A capability that lives in neither the sender's nor the receiver's vat.  The sender needs
	* to form a direct connection to a third party to pick up the capability.
	*
	* Level 1 and 2 implementations that receive a `thirdPartyHosted` may simply send calls to its
	* `vine` instead.
	*
	*/
	get thirdPartyHosted() {
		testWhich("thirdPartyHosted", getUint16(0, this), 5, this);
		return getStruct(0, ThirdPartyCapDescriptor, this);
	}
	_hasThirdPartyHosted() {
		return !isNull$1(getPointer(0, this));
	}
	_initThirdPartyHosted() {
		setUint16(0, 5, this);
		return initStructAt(0, ThirdPartyCapDescriptor, this);
	}
	get _isThirdPartyHosted() {
		return getUint16(0, this) === 5;
	}
	set thirdPartyHosted(value) {
		setUint16(0, 5, this);
		copyFrom(value, getPointer(0, this));
	}
	/**
	* If the RPC message in which this CapDescriptor was delivered also had file descriptors
	* attached, and `fd` is a valid index into the list of attached file descriptors, then
	* that file descriptor should be attached to this capability. If `attachedFd` is out-of-bounds
	* for said list, then no FD is attached.
	*
	* For example, if the RPC message arrived over a Unix socket, then file descriptors may be
	* attached by sending an SCM_RIGHTS ancillary message attached to the data bytes making up the
	* raw message. Receivers who wish to opt into FD passing should arrange to receive SCM_RIGHTS
	* whenever receiving an RPC message. Senders who wish to send FDs need not verify whether the
	* receiver knows how to receive them, because the operating system will automatically discard
	* ancillary messages like SCM_RIGHTS if the receiver doesn't ask to receive them, including
	* automatically closing any FDs.
	*
	* It is up to the application protocol to define what capabilities are expected to have file
	* descriptors attached, and what those FDs mean. But, for example, an application could use this
	* to open a file on disk and then transmit the open file descriptor to a sandboxed process that
	* does not otherwise have permission to access the filesystem directly. This is usually an
	* optimization: the sending process could instead provide an RPC interface supporting all the
	* operations needed (such as reading and writing a file), but by passing the file descriptor
	* directly, the recipient can often perform operations much more efficiently. Application
	* designers are encouraged to provide such RPC interfaces and automatically fall back to them
	* when FD passing is not available, so that the application can still work when the parties are
	* remote over a network.
	*
	* An attached FD is most often associated with a `senderHosted` descriptor. It could also make
	* sense in the case of `thirdPartyHosted`: in this case, the sender is forwarding the FD that
	* they received from the third party, so that the receiver can start using it without first
	* interacting with the third party. This is an optional optimization -- the middleman may choose
	* not to forward capabilities, in which case the receiver will need to complete the handshake
	* with the third party directly before receiving the FD. If an implementation receives a second
	* attached FD after having already received one previously (e.g. both in a `thirdPartyHosted`
	* CapDescriptor and then later again when receiving the final capability directly from the
	* third party), the implementation should discard the later FD and stick with the original. At
	* present, there is no known reason why other capability types (e.g. `receiverHosted`) would want
	* to carry an attached FD, but we reserve the right to define a meaning for this in the future.
	*
	* Each file descriptor attached to the message must be used in no more than one CapDescriptor,
	* so that the receiver does not need to use dup() or refcounting to handle the possibility of
	* multiple capabilities using the same descriptor. If multiple CapDescriptors do point to the
	* same FD index, then the receiver can arbitrarily choose which capability ends up having the
	* FD attached.
	*
	* To mitigate DoS attacks, RPC implementations should limit the number of FDs they are willing to
	* receive in a single message to a small value. If a message happens to contain more than that,
	* the list is truncated. Moreover, in some cases, FD passing needs to be blocked entirely for
	* security or implementation reasons, in which case the list may be truncated to zero. Hence,
	* `attachedFd` might point past the end of the list, which the implementation should treat as if
	* no FD was attached at all.
	*
	* The type of this field was chosen to be UInt8 because Linux supports sending only a maximum
	* of 253 file descriptors in an SCM_RIGHTS message anyway, and CapDescriptor had two bytes of
	* padding left -- so after adding this, there is still one byte for a future feature.
	* Conveniently, this also means we're able to use 0xff as the default value, which will always
	* be out-of-range (of course, the implementation should explicitly enforce that 255 descriptors
	* cannot be sent at once, rather than relying on Linux to do so).
	*
	*/
	get attachedFd() {
		return getUint8(2, this, CapDescriptor._capnp.defaultAttachedFd);
	}
	set attachedFd(value) {
		setUint8(2, value, this, CapDescriptor._capnp.defaultAttachedFd);
	}
	toString() {
		return "CapDescriptor_" + super.toString();
	}
	which() {
		return getUint16(0, this);
	}
};
var PromisedAnswer_Op_Which = {
	/**
	* Does nothing.  This member is mostly defined so that we can make `Op` a union even
	* though (as of this writing) only one real operation is defined.
	*
	*/
	NOOP: 0,
	/**
	* Get a pointer field within a struct.  The number is an index into the pointer section, NOT
	* a field ordinal, so that the receiver does not need to understand the schema.
	*
	*/
	GET_POINTER_FIELD: 1
};
var PromisedAnswer_Op = class extends Struct {
	static NOOP = PromisedAnswer_Op_Which.NOOP;
	static GET_POINTER_FIELD = PromisedAnswer_Op_Which.GET_POINTER_FIELD;
	static _capnp = {
		displayName: "Op",
		id: "f316944415569081",
		size: new ObjectSize(8, 0)
	};
	get _isNoop() {
		return getUint16(0, this) === 0;
	}
	set noop(_) {
		setUint16(0, 0, this);
	}
	/**
	* Get a pointer field within a struct.  The number is an index into the pointer section, NOT
	* a field ordinal, so that the receiver does not need to understand the schema.
	*
	*/
	get getPointerField() {
		testWhich("getPointerField", getUint16(0, this), 1, this);
		return getUint16(2, this);
	}
	get _isGetPointerField() {
		return getUint16(0, this) === 1;
	}
	set getPointerField(value) {
		setUint16(0, 1, this);
		setUint16(2, value, this);
	}
	toString() {
		return "PromisedAnswer_Op_" + super.toString();
	}
	which() {
		return getUint16(0, this);
	}
};
var PromisedAnswer = class PromisedAnswer extends Struct {
	static Op = PromisedAnswer_Op;
	static _capnp = {
		displayName: "PromisedAnswer",
		id: "d800b1d6cd6f1ca0",
		size: new ObjectSize(8, 1)
	};
	static _Transform;
	/**
	* ID of the question (in the sender's question table / receiver's answer table) whose answer is
	* expected to contain the capability.
	*
	*/
	get questionId() {
		return getUint32(0, this);
	}
	set questionId(value) {
		setUint32(0, value, this);
	}
	_adoptTransform(value) {
		adopt(value, getPointer(0, this));
	}
	_disownTransform() {
		return disown(this.transform);
	}
	/**
	* Operations / transformations to apply to the result in order to get the capability actually
	* being addressed.  E.g. if the result is a struct and you want to call a method on a capability
	* pointed to by a field of the struct, you need a `getPointerField` op.
	*
	*/
	get transform() {
		return getList(0, PromisedAnswer._Transform, this);
	}
	_hasTransform() {
		return !isNull$1(getPointer(0, this));
	}
	_initTransform(length) {
		return initList(0, PromisedAnswer._Transform, length, this);
	}
	set transform(value) {
		copyFrom(value, getPointer(0, this));
	}
	toString() {
		return "PromisedAnswer_" + super.toString();
	}
};
var ThirdPartyCapDescriptor = class extends Struct {
	static _capnp = {
		displayName: "ThirdPartyCapDescriptor",
		id: "d37007fde1f0027d",
		size: new ObjectSize(8, 1)
	};
	_adoptId(value) {
		adopt(value, getPointer(0, this));
	}
	_disownId() {
		return disown(this.id);
	}
	/**
	* Identifies the third-party host and the specific capability to accept from it.
	*
	*/
	get id() {
		return getPointer(0, this);
	}
	_hasId() {
		return !isNull$1(getPointer(0, this));
	}
	set id(value) {
		copyFrom(value, getPointer(0, this));
	}
	/**
	* A proxy for the third-party object exported by the sender.  In CapTP terminology this is called
	* a "vine", because it is an indirect reference to the third-party object that snakes through the
	* sender vat.  This serves two purposes:
	*
	* * Level 1 and 2 implementations that don't understand how to connect to a third party may
	*   simply send calls to the vine.  Such calls will be forwarded to the third-party by the
	*   sender.
	*
	* * Level 3 implementations must release the vine only once they have successfully picked up the
	*   object from the third party.  This ensures that the capability is not released by the sender
	*   prematurely.
	*
	* The sender will close the `Provide` request that it has sent to the third party as soon as
	* it receives either a `Call` or a `Release` message directed at the vine.
	*
	*/
	get vineId() {
		return getUint32(0, this);
	}
	set vineId(value) {
		setUint32(0, value, this);
	}
	toString() {
		return "ThirdPartyCapDescriptor_" + super.toString();
	}
};
var Exception_Type = {
	/**
	* A generic problem occurred, and it is believed that if the operation were repeated without
	* any change in the state of the world, the problem would occur again.
	*
	* A client might respond to this error by logging it for investigation by the developer and/or
	* displaying it to the user.
	*
	*/
	FAILED: 0,
	/**
	* The request was rejected due to a temporary lack of resources.
	*
	* Examples include:
	* - There's not enough CPU time to keep up with incoming requests, so some are rejected.
	* - The server ran out of RAM or disk space during the request.
	* - The operation timed out (took significantly longer than it should have).
	*
	* A client might respond to this error by scheduling to retry the operation much later. The
	* client should NOT retry again immediately since this would likely exacerbate the problem.
	*
	*/
	OVERLOADED: 1,
	/**
	* The method failed because a connection to some necessary capability was lost.
	*
	* Examples include:
	* - The client introduced the server to a third-party capability, the connection to that third
	*   party was subsequently lost, and then the client requested that the server use the dead
	*   capability for something.
	* - The client previously requested that the server obtain a capability from some third party.
	*   The server returned a capability to an object wrapping the third-party capability. Later,
	*   the server's connection to the third party was lost.
	* - The capability has been revoked. Revocation does not necessarily mean that the client is
	*   no longer authorized to use the capability; it is often used simply as a way to force the
	*   client to repeat the setup process, perhaps to efficiently move them to a new back-end or
	*   get them to recognize some other change that has occurred.
	*
	* A client should normally respond to this error by releasing all capabilities it is currently
	* holding related to the one it called and then re-creating them by restoring SturdyRefs and/or
	* repeating the method calls used to create them originally. In other words, disconnect and
	* start over. This should in turn cause the server to obtain a new copy of the capability that
	* it lost, thus making everything work.
	*
	* If the client receives another `disconnected` error in the process of rebuilding the
	* capability and retrying the call, it should treat this as an `overloaded` error: the network
	* is currently unreliable, possibly due to load or other temporary issues.
	*
	*/
	DISCONNECTED: 2,
	/**
	* The server doesn't implement the requested method. If there is some other method that the
	* client could call (perhaps an older and/or slower interface), it should try that instead.
	* Otherwise, this should be treated like `failed`.
	*
	*/
	UNIMPLEMENTED: 3
};
var Exception = class extends Struct {
	static Type = Exception_Type;
	static _capnp = {
		displayName: "Exception",
		id: "d625b7063acf691a",
		size: new ObjectSize(8, 2)
	};
	/**
	* Human-readable failure description.
	*
	*/
	get reason() {
		return getText(0, this);
	}
	set reason(value) {
		setText(0, value, this);
	}
	/**
	* The type of the error. The purpose of this enum is not to describe the error itself, but
	* rather to describe how the client might want to respond to the error.
	*
	*/
	get type() {
		return getUint16(4, this);
	}
	set type(value) {
		setUint16(4, value, this);
	}
	/**
	* OBSOLETE. Ignore.
	*
	*/
	get obsoleteIsCallersFault() {
		return getBit(0, this);
	}
	set obsoleteIsCallersFault(value) {
		setBit(0, value, this);
	}
	/**
	* OBSOLETE. See `type` instead.
	*
	*/
	get obsoleteDurability() {
		return getUint16(2, this);
	}
	set obsoleteDurability(value) {
		setUint16(2, value, this);
	}
	/**
	* Stack trace text from the remote server. The format is not specified. By default,
	* implementations do not provide stack traces; the application must explicitly enable them
	* when desired.
	*
	*/
	get trace() {
		return getText(1, this);
	}
	set trace(value) {
		setText(1, value, this);
	}
	toString() {
		return "Exception_" + super.toString();
	}
};
Payload._CapTable = CompositeList(CapDescriptor);
PromisedAnswer._Transform = CompositeList(PromisedAnswer_Op);
// node_modules/capnp-es/dist/index.mjs
var Void = class extends Struct {
	static _capnp = {
		displayName: "Void",
		id: "0",
		size: new ObjectSize(0, 0)
	};
};
var utils = {
	__proto__: null,
	PointerAllocationResult,
	add,
	adopt,
	checkDataBounds,
	checkPointerBounds,
	copyFrom,
	copyFromInterface,
	copyFromList,
	copyFromStruct,
	disown,
	dump: dump$1,
	erase,
	erasePointer,
	followFar,
	followFars,
	getAs,
	getBit,
	getCapabilityId,
	getContent,
	getData,
	getDataSection,
	getFarSegmentId,
	getFloat32,
	getFloat64,
	getInt16,
	getInt32,
	getInt64,
	getInt8,
	getInterfaceClientOrNull,
	getInterfaceClientOrNullAt,
	getInterfacePointer,
	getList,
	getListByteLength,
	getListElementByteLength,
	getListElementSize,
	getListLength,
	getOffsetWords,
	getPointer,
	getPointerAs,
	getPointerSection,
	getPointerType,
	getSize,
	getStruct,
	getStructDataWords,
	getStructPointerLength,
	getStructSize,
	getTargetCompositeListSize,
	getTargetCompositeListTag,
	getTargetListElementSize,
	getTargetListLength,
	getTargetPointerType,
	getTargetStructSize,
	getText,
	getUint16,
	getUint32,
	getUint64,
	getUint8,
	initData,
	initList,
	initPointer,
	initStruct,
	initStructAt,
	isDoubleFar,
	isNull: isNull$1,
	relocateTo,
	resize,
	setBit,
	setFarPointer,
	setFloat32,
	setFloat64,
	setInt16,
	setInt32,
	setInt64,
	setInt8,
	setInterfacePointer,
	setListPointer,
	setStructPointer,
	setText,
	setUint16,
	setUint32,
	setUint64,
	setUint8,
	testWhich,
	trackPointerAllocation,
	validate
};
function PointerList(PointerClass) {
	return class extends List {
		static _capnp = {
			displayName: `List<${PointerClass._capnp.displayName}>`,
			size: ListElementSize.POINTER
		};
		get(index) {
			const c = getContent(this);
			return new PointerClass(c.segment, c.byteOffset + index * 8, this._capnp.depthLimit - 1);
		}
		set(index, value) {
			copyFrom(value, this.get(index));
		}
		[Symbol.toStringTag]() {
			return `Pointer_${super.toString()},cls:${PointerClass.toString()}`;
		}
	};
}
PointerList(Pointer);
var BoolList = class extends List {
	static _capnp = {
		displayName: "List<boolean>",
		size: ListElementSize.BIT
	};
	get(index) {
		const bitMask = 1 << index % 8;
		const byteOffset = index >>> 3;
		const c = getContent(this);
		return (c.segment.getUint8(c.byteOffset + byteOffset) & bitMask) !== 0;
	}
	set(index, value) {
		const bitMask = 1 << index % 8;
		const c = getContent(this);
		const byteOffset = c.byteOffset + (index >>> 3);
		const v = c.segment.getUint8(byteOffset);
		c.segment.setUint8(byteOffset, value ? v | bitMask : v & ~bitMask);
	}
	[Symbol.toStringTag]() {
		return `Bool_${super.toString()}`;
	}
};
PointerList(Data);
var Float32List = class extends List {
	static _capnp = {
		displayName: "List<Float32>",
		size: ListElementSize.BYTE_4
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getFloat32(c.byteOffset + index * 4);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setFloat32(c.byteOffset + index * 4, value);
	}
	[Symbol.toStringTag]() {
		return `Float32_${super.toString()}`;
	}
};
var Float64List = class extends List {
	static _capnp = {
		displayName: "List<Float64>",
		size: ListElementSize.BYTE_8
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getFloat64(c.byteOffset + index * 8);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setFloat64(c.byteOffset + index * 8, value);
	}
	[Symbol.toStringTag]() {
		return `Float64_${super.toString()}`;
	}
};
var Int8List = class extends List {
	static _capnp = {
		displayName: "List<Int8>",
		size: ListElementSize.BYTE
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getInt8(c.byteOffset + index);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setInt8(c.byteOffset + index, value);
	}
	[Symbol.toStringTag]() {
		return `Int8_${super.toString()}`;
	}
};
var Int16List = class extends List {
	static _capnp = {
		displayName: "List<Int16>",
		size: ListElementSize.BYTE_2
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getInt16(c.byteOffset + index * 2);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setInt16(c.byteOffset + index * 2, value);
	}
	[Symbol.toStringTag]() {
		return `Int16_${super.toString()}`;
	}
};
var Int32List = class extends List {
	static _capnp = {
		displayName: "List<Int32>",
		size: ListElementSize.BYTE_4
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getInt32(c.byteOffset + index * 4);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setInt32(c.byteOffset + index * 4, value);
	}
	[Symbol.toStringTag]() {
		return `Int32_${super.toString()}`;
	}
};
var Int64List = class extends List {
	static _capnp = {
		displayName: "List<Int64>",
		size: ListElementSize.BYTE_8
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getInt64(c.byteOffset + index * 8);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setInt64(c.byteOffset + index * 8, value);
	}
	[Symbol.toStringTag]() {
		return `Int64_${super.toString()}`;
	}
};
var InterfaceList = PointerList(Interface);
var TextList = class extends List {
	static _capnp = {
		displayName: "List<Text>",
		size: ListElementSize.POINTER
	};
	get(index) {
		const c = getContent(this);
		c.byteOffset += index * 8;
		return Text.fromPointer(c).get(0);
	}
	set(index, value) {
		const c = getContent(this);
		c.byteOffset += index * 8;
		Text.fromPointer(c).set(0, value);
	}
	[Symbol.toStringTag]() {
		return `Text_${super.toString()}`;
	}
};
var Uint8List = class extends List {
	static _capnp = {
		displayName: "List<Uint8>",
		size: ListElementSize.BYTE
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getUint8(c.byteOffset + index);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setUint8(c.byteOffset + index, value);
	}
	[Symbol.toStringTag]() {
		return `Uint8_${super.toString()}`;
	}
};
var Uint16List = class extends List {
	static _capnp = {
		displayName: "List<Uint16>",
		size: ListElementSize.BYTE_2
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getUint16(c.byteOffset + index * 2);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setUint16(c.byteOffset + index * 2, value);
	}
	[Symbol.toStringTag]() {
		return `Uint16_${super.toString()}`;
	}
};
var Uint32List = class extends List {
	static _capnp = {
		displayName: "List<Uint32>",
		size: ListElementSize.BYTE_4
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getUint32(c.byteOffset + index * 4);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setUint32(c.byteOffset + index * 4, value);
	}
	[Symbol.toStringTag]() {
		return `Uint32_${super.toString()}`;
	}
};
var Uint64List = class extends List {
	static _capnp = {
		displayName: "List<Uint64>",
		size: ListElementSize.BYTE_8
	};
	get(index) {
		const c = getContent(this);
		return c.segment.getUint64(c.byteOffset + index * 8);
	}
	set(index, value) {
		const c = getContent(this);
		c.segment.setUint64(c.byteOffset + index * 8, value);
	}
	[Symbol.toStringTag]() {
		return `Uint64_${super.toString()}`;
	}
};
PointerList(Void);
globalThis.FinalizationRegistry && new FinalizationRegistry((cb) => cb());
// src/rpc/errors.ts
var ENCODED = /^[^]{0,200}?ww:([a-z_]{1,40}): ([^]*)$/;
var CHARACTERS_MAX = 400;
/** A call failed. `code` is one of ww/errors.py: usage, not_found, disconnected, overloaded, bad_module, ... */
var CapabilityError = class extends Error {
	code;
	constructor(code, message) {
		super(message);
		this.code = code;
		this.name = "CapabilityError";
	}
};
/** The connection is gone, or closing. */
var Disconnected = class extends CapabilityError {
	constructor(message = "the connection to the peer is gone") {
		super("disconnected", message);
		this.name = "Disconnected";
	}
};
/** A call was given up by who made it. */
var Cancelled = class extends CapabilityError {
	constructor(message = "the call was given up") {
		super("cancelled", message);
		this.name = "Cancelled";
	}
};
/** Make text that a stranger wrote printable, one line, of bounded length. */
function oneLine(text) {
	const line = text.slice(0, 401).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ");
	return line.length <= CHARACTERS_MAX ? line : `${line.slice(0, CHARACTERS_MAX)}...`;
}
/** Return what a peer is told of an error: what was thrown on purpose, and nothing but a code for everything else. */
function encoded(error) {
	if (error instanceof CapabilityError) return `ww:${error.code}: ${oneLine(error.message)}`;
	return "ww:remote: the peer failed to answer; its log says why";
}
/** Return what a peer meant by an exception. */
function decoded(kind, reason) {
	if (kind === 2) return new Disconnected();
	if (kind === 3) return new CapabilityError("protocol_mismatch", "the peer does not know this call: it runs another version of ww");
	const found = ENCODED.exec(reason);
	if (found === null) return new CapabilityError("remote", oneLine(reason));
	return new CapabilityError(found[1], oneLine(found[2]));
}
// src/rpc/values.ts
var DEPTH_MAX = 32;
/** Capabilities of one message, and so of one list. */
var CAPABILITIES_MAX = 8192;
var LIST_BITS = 1;
var LIST_POINTERS = 6;
var LIST_STRUCTS = 7;
/** What a capability field holds when it is null. */
var NullCapability = class {
	call() {
		const failure = () => Promise.reject(new CapabilityError("remote", "a call on a capability that is null"));
		return {
			struct: failure,
			pipelineCall: () => this.call(),
			pipelineClose() {}
		};
	}
	close() {}
};
/** Return what a pointer to a capability leads to. */
function clientAt(pointer) {
	if (utils.isNull(pointer) || utils.getTargetPointerType(pointer) !== PointerType.OTHER) return new NullCapability();
	const { capTable } = pointer.segment.message._capnp;
	return capTable?.[utils.getCapabilityId(pointer)] ?? new NullCapability();
}
/** Return whether a field's capability was null. */
function isNull(capability) {
	return capability.client instanceof NullCapability;
}
/** Make a struct of that class of what a pointer of any type is, and return it to be written. */
function initAs(kind, pointer) {
	const made = new kind(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
	utils.initStruct(kind._capnp.size, made);
	return made;
}
/** Read what a pointer of any type leads to as a struct of that class. */
function structOf(pointer, kind) {
	const read = new kind(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
	if (utils.isNull(read)) {
		utils.initStruct(kind._capnp.size, read);
		return read;
	}
	utils.validate(PointerType.STRUCT, read);
	const found = utils.getTargetStructSize(read);
	const { size } = kind._capnp;
	if (found.dataByteLength < size.dataByteLength || found.pointerLength < size.pointerLength) utils.resize(size, read);
	return read;
}
/** Return the capabilities of a list, as clients of that interface. */
function capabilitiesOf(list, kind) {
	const { length } = list;
	if (length === 0) return [];
	if (length > 8192 || utils.getTargetListElementSize(list) !== LIST_POINTERS) throw new CapabilityError("usage", `a list of ${length} capabilities: expected at most ${CAPABILITIES_MAX}`);
	return Array.from({ length }, (_, place) => new kind.Client(clientAt(elementOf(list, place))));
}
/** Write capabilities into a list that was made for as many. */
function setCapabilities(list, capabilities) {
	capabilities.forEach((capability, place) => {
		const pointer = elementOf(list, place);
		utils.setInterfacePointer(pointer.segment.message.addCap(capability.client), pointer);
	});
}
function elementOf(list, place) {
	const content = utils.getContent(list);
	return new Pointer(content.segment, content.byteOffset + 8 * place, list._capnp.depthLimit - 1);
}
/** Copy what one pointer leads to, into another message or the same. */
function copyPointer(from, to, depth = DEPTH_MAX) {
	if (from.segment === to.segment && from.byteOffset === to.byteOffset) return;
	if (depth === 0) throw new CapabilityError("usage", `what is sent is nested more than ${DEPTH_MAX} deep`);
	utils.erase(to);
	if (utils.isNull(from)) return;
	switch (utils.getTargetPointerType(from)) {
		case PointerType.STRUCT: return copyStruct(from, to, depth);
		case PointerType.LIST: return copyList(from, to, depth);
		default: utils.setInterfacePointer(to.segment.message.addCap(clientAt(from)), to);
	}
}
function copyStruct(from, to, depth) {
	const size = utils.getSize(from);
	const source = utils.getContent(from);
	const target = to.segment.allocate(size.dataByteLength + 8 * size.pointerLength);
	copyElements(source, target, 1, size, depth);
	const placed = utils.initPointer(target.segment, target.byteOffset, to);
	utils.setStructPointer(placed.offsetWords, size, placed.pointer);
}
function copyList(from, to, depth) {
	const source = utils.getContent(from);
	const kind = utils.getTargetListElementSize(from);
	const length = utils.getTargetListLength(from);
	if (kind === LIST_STRUCTS) {
		const size = utils.getTargetCompositeListSize(from);
		const target = to.segment.allocate(8 + length * (size.dataByteLength + 8 * size.pointerLength));
		utils.setStructPointer(length, size, target);
		copyElements(source, new Pointer(target.segment, target.byteOffset + 8), length, size, depth);
		const placed = utils.initPointer(target.segment, target.byteOffset, to);
		utils.setListPointer(placed.offsetWords, kind, length, placed.pointer, size);
		return;
	}
	const bytes = kind === LIST_BITS ? length + 7 >>> 3 : length * utils.getListElementByteLength(kind);
	const target = to.segment.allocate(bytes);
	if (kind === LIST_POINTERS) copyElements(source, target, length, new ObjectSize(0, 1), depth);
	else target.segment.copyWords(target.byteOffset, source.segment, source.byteOffset, bytes + 7 >>> 3);
	const placed = utils.initPointer(target.segment, target.byteOffset, to);
	utils.setListPointer(placed.offsetWords, kind, length, placed.pointer);
}
function copyElements(from, to, count, size, depth) {
	const step = size.dataByteLength + 8 * size.pointerLength;
	for (let place = 0; place < count; place++) {
		const source = from.byteOffset + place * step;
		const target = to.byteOffset + place * step;
		to.segment.copyWords(target, from.segment, source, size.dataByteLength >>> 3);
		for (let at = size.dataByteLength; at < step; at += 8) copyPointer(new Pointer(from.segment, source + at), new Pointer(to.segment, target + at), depth - 1);
	}
}
function repair() {
	const utils$1 = utils;
	utils$1.getInterfaceClientOrNull = clientAt;
	utils$1.getInterfaceClientOrNullAt = (index, struct) => clientAt(utils.getPointer(index, struct));
	utils$1.copyFrom = (from, to) => copyPointer(from, to);
}
repair();
// src/rpc/outcome.ts
/** Return a call of generated code. */
function outgoingOf(call) {
	const { interfaceId, methodId, ParamsClass } = call.method;
	const fill = (content) => {
		if (isDataCall(call)) copyPointer(call.params, content);
		else {
			const params = initAs(ParamsClass, content);
			call.paramsFunc?.(params);
		}
	};
	return {
		interfaceId,
		methodId,
		fill
	};
}
/** A call's. What generated code calls an Answer. */
var Outcome = class Outcome {
	#results = null;
	#error;
	#hasFailed = false;
	#waiting = /* @__PURE__ */ new Set();
	/** Called once when it is given up before it is settled. */
	onCancel = () => {};
	get isSettled() {
		return this.#results !== null || this.#hasFailed;
	}
	/** Why the call failed, where it did. */
	get failure() {
		return this.#hasFailed ? { error: this.#error } : null;
	}
	/** How many wait for it. */
	get waiting() {
		return this.#waiting.size;
	}
	/** Have results. Whatever waits for them goes on, in order. */
	settle(results) {
		if (this.isSettled) return;
		this.#results = results;
		this.#goOn();
	}
	fail(error) {
		if (this.isSettled) return;
		this.#hasFailed = true;
		this.#error = error;
		this.#goOn();
	}
	/** Come to what another comes to. */
	follow(other) {
		this.onCancel = () => other.cancel();
		other.whenSettled(() => {
			if (other.failure) this.fail(other.failure.error);
			else this.settle(other.results());
		});
	}
	/** Go on once it is settled, or at once; the returned function forgets that. */
	whenSettled(then) {
		if (this.isSettled) {
			then();
			return () => {};
		}
		const wait = () => then();
		this.#waiting.add(wait);
		return () => this.#waiting.delete(wait);
	}
	/** Give the call up. */
	cancel() {
		if (this.isSettled) return;
		this.onCancel();
		this.fail(new Cancelled());
	}
	/** Return the results. Throws why there are none. */
	results() {
		if (this.#results === null) throw this.#hasFailed ? this.#error : /* @__PURE__ */ new Error("the call has not answered");
		return this.#results;
	}
	/** Return the capability in the results that the transform leads to. */
	hookAt(transform) {
		if (this.#hasFailed) return new Broken(this.#error);
		return hookOf(clientAt(pointerAt(this.results(), transform)));
	}
	/** Call the capability in the results that the transform leads to, now or once it is there. */
	sendTo(transform, outgoing) {
		if (this.#hasFailed) return failed(this.#error);
		return this.isSettled ? this.hookAt(transform).send(outgoing) : this.sendAhead(transform, outgoing);
	}
	sendAhead(transform, outgoing) {
		const outcome = new Outcome();
		outcome.onCancel = this.whenSettled(() => outcome.follow(this.sendTo(transform, outgoing)));
		return outcome;
	}
	struct() {
		return new Promise((resolve, reject) => {
			this.whenSettled(() => this.#hasFailed ? reject(this.#error) : resolve(this.#results));
		});
	}
	pipelineCall(transform, call) {
		const fields = transform.map((step) => step.field);
		return this.sendTo(fields, outgoingOf(call));
	}
	pipelineClose(transform) {
		const fields = transform.map((step) => step.field);
		this.whenSettled(() => this.hookAt(fields).release());
	}
	#goOn() {
		const waiting = this.#waiting;
		this.#waiting = /* @__PURE__ */ new Set();
		for (const then of waiting) then();
	}
};
/** Return an outcome that is a failure. */
function failed(error) {
	const outcome = new Outcome();
	outcome.fail(error);
	return outcome;
}
function pointerAt(results, transform) {
	let pointer = results;
	for (const field of transform) {
		if (utils.isNull(pointer)) return pointer;
		utils.validate(PointerType.STRUCT, pointer);
		const struct = new Struct(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
		if (field >= utils.getTargetStructSize(struct).pointerLength) return new Pointer(new Message$1().getSegment(0), 0);
		pointer = utils.getPointer(field, struct);
	}
	return pointer;
}
// src/rpc/capability.ts
/** A capability that can be called, and referred to. What capnp-es calls a Client. */
var Hook = class {
	call(call) {
		return this.send(outgoingOf(call));
	}
	close() {
		this.release();
	}
};
/** No such method: the caller speaks of a newer interface, or another. */
var Unimplemented = class extends CapabilityError {};
/** Something that is served here. */
var Local = class extends Hook {
	#handlers;
	#methods;
	#references = 0;
	constructor(handlers, methods) {
		super();
		this.#handlers = handlers;
		this.#methods = methods;
	}
	/** Handle a call; settles when its handler is done, with its results. Begins it at once. */
	async start(call) {
		const method = this.#methods.get(`${call.interfaceId}:${call.methodId}`);
		const handler = method && this.#handlers[method.name];
		if (!method || typeof handler !== "function") throw new Unimplemented("protocol_mismatch", "no such method here");
		const results = structOf(call.place(), method.Results);
		this.keep();
		try {
			await handler.call(this.#handlers, structOf(call.params, method.Params), results, call.context);
		} finally {
			this.release();
		}
		return results;
	}
	send(outgoing) {
		const params = new Pointer(new Message$1().getSegment(0), 0);
		const outcome = new Outcome();
		const controller = new AbortController();
		try {
			outgoing.fill(params);
		} catch (error) {
			return failed(error);
		}
		outcome.onCancel = () => controller.abort();
		const { interfaceId, methodId } = outgoing;
		const place = () => new Pointer(new Message$1().getSegment(0), 0);
		this.start({
			interfaceId,
			methodId,
			params,
			context: { signal: controller.signal },
			place
		}).then((results) => outcome.settle(results), (error) => outcome.fail(error));
		return outcome;
	}
	keep() {
		this.#references++;
		return this;
	}
	release() {
		if (this.#references === 0 || --this.#references > 0) return;
		try {
			this.#handlers.released?.call(this.#handlers);
		} catch (error) {
			console.error("a capability that was released:", error);
		}
	}
};
/** A capability in the results of a call that has not answered yet. */
var Pipelined = class extends Hook {
	outcome;
	transform;
	constructor(outcome, transform) {
		super();
		this.outcome = outcome;
		this.transform = transform;
	}
	send(outgoing) {
		return this.outcome.sendTo(this.transform, outgoing);
	}
	keep() {
		return this.outcome.isSettled ? this.outcome.hookAt(this.transform).keep() : this;
	}
	release() {
		this.outcome.whenSettled(() => this.outcome.hookAt(this.transform).release());
	}
};
/** What is no capability, since it is null or never came to be: each call fails. */
var Broken = class extends Hook {
	error;
	constructor(error = new CapabilityError("remote", "a call on a capability that is null")) {
		super();
		this.error = error;
	}
	send() {
		return failed(this.error);
	}
	keep() {
		return this;
	}
	release() {}
};
/** Return what generated code has for a capability as a Hook. */
function hookOf(client) {
	if (client instanceof Hook) return client;
	if (client instanceof NullCapability) return new Broken();
	const { pipeline } = client;
	if (pipeline instanceof Pipeline && pipeline.answer instanceof Outcome) return new Pipelined(pipeline.answer, pipeline.transform().map((step) => step.field));
	throw new TypeError("expected a capability that serve() made, or that a peer gave");
}
var METHODS = /* @__PURE__ */ new WeakMap();
function methodsOf(client) {
	let methods = METHODS.get(client);
	if (methods === void 0) {
		methods = new Map(client.methods.map((method) => {
			const { interfaceId, methodId, methodName: name = "", ParamsClass: Params, ResultsClass: Results } = method;
			return [`${interfaceId}:${methodId}`, {
				name,
				Params,
				Results
			}];
		}));
		METHODS.set(client, methods);
	}
	return methods;
}
/** Serve an interface by handlers, and return the capability, to be put into what is sent. */
function serve(kind, handlers) {
	return new kind.Client(new Local(handlers, methodsOf(kind.Client)));
}
/** Return one more reference to a capability, good until it is released: for what comes as a call's parameter. */
function keep(capability) {
	const kind = capability.constructor;
	return new kind(hookOf(capability.client).keep());
}
/** Let go of capabilities; of a struct that came as a call's results: of all that are in it. */
function release(...given) {
	for (const each of given) if (!(each instanceof Struct)) hookOf(each.client).release();
	else for (const client of each.segment.message._capnp.capTable ?? []) if (client) hookOf(client).release();
}
// src/rpc/calls.ts
/** A call that was sent. */
var Question = class extends Outcome {
	id;
	#connection;
	/** Ids of this side's capabilities in the parameters, one for each time. */
	exported = [];
	/** Which capabilities of the results were called, or sent, before these were there. */
	ahead = /* @__PURE__ */ new Map();
	isGivenUp = false;
	constructor(connection, id) {
		super();
		this.id = id;
		this.#connection = connection;
		this.onCancel = () => connection.giveUp(this);
	}
	/** Whether it was asked over that connection. */
	isOf(connection) {
		return this.#connection === connection;
	}
	sendAhead(transform, outgoing) {
		this.ahead.set(transform.join("."), transform);
		return this.#connection.callAhead(this, transform, outgoing);
	}
};
/** Wait for a call's results. The signal gives it up, at the peer too. */
async function answered(calling, signal) {
	if (signal === void 0) return whole$1(calling);
	const giveUp = () => cancel(calling);
	if (signal.aborted) giveUp();
	signal.addEventListener("abort", giveUp);
	try {
		return await whole$1(calling);
	} catch (error) {
		throw error instanceof Cancelled && signal.aborted ? signal.reason ?? error : error;
	} finally {
		signal.removeEventListener("abort", giveUp);
	}
}
/** Wait for results, and make them as large as this side's schema has them: what is missing is null, or zero. */
async function whole$1(calling) {
	return structOf(await calling.promise(), calling.pipeline.ResultsClass);
}
/** Give a call up, at the peer too; it fails with Cancelled. Does nothing to one that has answered. */
function cancel(calling) {
	calling.pipeline.answer.cancel();
}
// src/identity/proof.ts
/** What a peer's proof is signed for. */
var PEER_DOMAIN = "ww peer over WebSocket 1";
/** What a gateway's welcome is signed for. */
var GATEWAY_DOMAIN = "ww gateway over WebSocket 1";
var VERSION = 1;
var NONCE_BYTES = 32;
var PURPOSE = "work";
/** Bytes as base64url without padding. */
function toText(bytes) {
	const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
	return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
/** Read base64url. Throws when it is none. */
function fromText(text) {
	if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new RangeError("no base64url");
	return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (digit) => digit.charCodeAt(0));
}
/** Return what is signed of texts: each with its length before it, so that they cannot be cut otherwise. */
function statement(...texts) {
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
function unexpected(what) {
	return new CapabilityError("protocol_mismatch", `the gateway ${what}: it is none, or of another version of ww`);
}
function objectOf(text) {
	try {
		const value = JSON.parse(text);
		if (typeof value === "object" && value !== null) return value;
	} catch {}
	throw unexpected("says something that is no JSON object");
}
/** Read what the gateway says first. expected: its peer id, where that is known. */
function readChallenge(text, expected) {
	const { type, version, gateway, nonce } = objectOf(text);
	if (type === "refused") throw refusalOf(text);
	if (type !== "challenge" || typeof gateway !== "string" || typeof nonce !== "string") throw unexpected("gives no challenge");
	if (version !== VERSION) throw unexpected(`speaks version ${String(version).slice(0, 10)} of the proof, not ${VERSION}`);
	try {
		publicKeyOf(gateway);
		if (fromText(nonce).length !== NONCE_BYTES) throw new RangeError();
	} catch {
		throw unexpected("gives a challenge that is malformed");
	}
	if (expected !== void 0 && expected !== gateway) throw new CapabilityError("peer_mismatch", `expected gateway ${expected}, but ${gateway} answered`);
	return {
		gateway,
		nonce
	};
}
function refusalOf(text) {
	const { reason } = objectOf(text);
	return new CapabilityError("not_admitted", typeof reason === "string" ? reason : "the gateway refuses this peer");
}
/** Answer a challenge. */
async function prove(identity, challenge, origin) {
	const nonce = toText(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)));
	const said = statement(challenge.gateway, origin, PURPOSE, challenge.nonce, nonce);
	const signature = toText(await identity.sign(PEER_DOMAIN, said));
	return {
		type: "proof",
		key: toText(identity.publicKey),
		nonce,
		purpose: PURPOSE,
		signature
	};
}
/** Check what the gateway answers the proof with. Throws when it refuses, or does not have the key it is named by. */
async function checkWelcome(text, challenge, proof, origin) {
	const { type, signature } = objectOf(text);
	if (type === "refused") throw refusalOf(text);
	if (type !== "welcome" || typeof signature !== "string") throw unexpected("neither welcomes nor refuses");
	const said = statement(challenge.gateway, origin, proof.purpose, challenge.nonce, proof.nonce, proof.key);
	let isRight = false;
	try {
		isRight = await isSigned(challenge.gateway, GATEWAY_DOMAIN, said, fromText(signature));
	} catch {}
	if (!isRight) throw new CapabilityError("peer_mismatch", `who answered does not have the key of ${challenge.gateway}`);
}
/** Return whether a peer signed a message in that domain. */
async function isSigned(peerId, domain, message, signature) {
	const key = await crypto.subtle.importKey("raw", Uint8Array.from(publicKeyOf(peerId)), "Ed25519", false, ["verify"]);
	return crypto.subtle.verify("Ed25519", key, signature, framedFor(domain, message));
}
// src/schema/vat.ts
var Vat_Hello$Params = class extends Struct {
	static _capnp = {
		displayName: "hello$Params",
		id: "82831ffd6b8e87a5",
		size: new ObjectSize(8, 2)
	};
	get version() {
		return utils.getUint32(0, this);
	}
	set version(value) {
		utils.setUint32(0, value, this);
	}
	get namespace() {
		return utils.getText(0, this);
	}
	set namespace(value) {
		utils.setText(0, value, this);
	}
	get ticket() {
		return utils.getText(1, this);
	}
	set ticket(value) {
		utils.setText(1, value, this);
	}
	toString() {
		return "Vat_Hello$Params_" + super.toString();
	}
};
var Vat_Hello$Results = class extends Struct {
	static _capnp = {
		displayName: "hello$Results",
		id: "beb73dce3961597f",
		size: new ObjectSize(8, 3)
	};
	get version() {
		return utils.getUint32(0, this);
	}
	set version(value) {
		utils.setUint32(0, value, this);
	}
	get namespace() {
		return utils.getText(0, this);
	}
	set namespace(value) {
		utils.setText(0, value, this);
	}
	get exports() {
		return new Exports$Client(utils.getInterfaceClientOrNullAt(1, this));
	}
	set exports(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(1, this));
	}
	get refused() {
		return utils.getText(2, this);
	}
	set refused(value) {
		utils.setText(2, value, this);
	}
	toString() {
		return "Vat_Hello$Results_" + super.toString();
	}
};
var Vat_Hello$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	getExports() {
		return new Exports$Client(this.pipeline.getPipeline(Exports$1, 1).client());
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Vat$Client = class Vat$Client {
	client;
	static interfaceId = 18067761248029060695n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Vat_Hello$Params,
		ResultsClass: Vat_Hello$Results,
		interfaceId: Vat$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/vat.capnp:Vat",
		methodName: "hello"
	}];
	/**
	* Tell each other who speaks what. exports is null when the two do not fit, or when the caller is not admitted;
	* refused then says why, in one line. ticket is what lets the caller in, where that takes one: a secret between the two.
	*
	*/
	hello(paramsFunc) {
		return new Vat_Hello$Results$Promise(new Pipeline(Vat_Hello$Results, this.client.call({
			method: Vat$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Vat$Client.interfaceId, Vat$Client);
var Vat$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Vat$Client.methods[0],
			impl: target.hello
		}]);
		this.target = target;
	}
	client() {
		return new Vat$Client(this);
	}
};
/**
* The bootstrap capability. Its one method never changes, in any version, but for fields at its end, so that nodes of
* any two versions can tell each other why they cannot talk.
*
*/
var Vat = class extends Interface {
	static Client = Vat$Client;
	static Server = Vat$Server;
	static _capnp = {
		displayName: "Vat",
		id: "fabd9520c3572e57",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Vat_" + super.toString();
	}
};
var Exports_Connect$Params = class extends Struct {
	static _capnp = {
		displayName: "connect$Params",
		id: "a5c23a3ca268000d",
		size: new ObjectSize(0, 1)
	};
	get name() {
		return utils.getText(0, this);
	}
	set name(value) {
		utils.setText(0, value, this);
	}
	toString() {
		return "Exports_Connect$Params_" + super.toString();
	}
};
var Exports_Connect$Results = class extends Struct {
	static _capnp = {
		displayName: "connect$Results",
		id: "a0e00482bfffd78e",
		size: new ObjectSize(0, 1)
	};
	_adoptCapability(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownCapability() {
		return utils.disown(this.capability);
	}
	get capability() {
		return utils.getPointer(0, this);
	}
	_hasCapability() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	set capability(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	toString() {
		return "Exports_Connect$Results_" + super.toString();
	}
};
var Exports_Connect$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Exports$Client = class Exports$Client {
	client;
	static interfaceId = 15680208798227854007n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Exports_Connect$Params,
		ResultsClass: Exports_Connect$Results,
		interfaceId: Exports$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/vat.capnp:Exports",
		methodName: "connect"
	}];
	/**
	* What this node exports under that name for the peer that asks. Failures: not_found.
	*
	*/
	connect(paramsFunc) {
		return new Exports_Connect$Results$Promise(new Pipeline(Exports_Connect$Results, this.client.call({
			method: Exports$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Exports$Client.interfaceId, Exports$Client);
var Exports$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Exports$Client.methods[0],
			impl: target.connect
		}]);
		this.target = target;
	}
	client() {
		return new Exports$Client(this);
	}
};
var Exports$1 = class extends Interface {
	static Client = Exports$Client;
	static Server = Exports$Server;
	static _capnp = {
		displayName: "Exports",
		id: "d99b4ad31e5372b7",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Exports_" + super.toString();
	}
};
// src/rpc/embargo.ts
/** A capability whose calls wait. */
var Embargoed = class extends Hook {
	#hook;
	#waiting = [];
	constructor(hook) {
		super();
		this.#hook = hook;
	}
	/** Let the calls go, in order. */
	lift() {
		const waiting = this.#waiting ?? [];
		this.#waiting = null;
		for (const send of waiting) send();
	}
	send(outgoing) {
		if (this.#waiting === null) return this.#hook.send(outgoing);
		const outcome = new Outcome();
		this.#waiting.push(() => {
			if (!outcome.isSettled) outcome.follow(this.#hook.send(outgoing));
		});
		return outcome;
	}
	keep() {
		this.#hook.keep();
		return this;
	}
	release() {
		this.#hook.release();
	}
};
// src/rpc/framing.ts
/** Bytes of one message, with its table of segments. */
var MESSAGE_BYTES_MAX$1 = 64 << 20;
var SEGMENTS_MAX = 512;
var TRAVERSAL_MAX = 16 << 20;
var MULTI_SEGMENT = 1;
/** Bytes came that are no messages. */
var NoMessage = class extends Error {};
/** Cuts messages out of bytes, which come cut anywhere. */
var MessageReader = class {
	#table = /* @__PURE__ */ new Uint8Array(8);
	#tableFilled = 0;
	#buffers = null;
	#filling = 0;
	#filled = 0;
	#bytes = 0;
	/** Take bytes and give each message that they complete, with its size. Throws NoMessage. */
	push(bytes, take) {
		let at = 0;
		while (at < bytes.length || this.#isComplete()) if (this.#buffers === null) at += this.#readTable(bytes, at);
		else if (this.#isComplete()) {
			const [buffers, size] = [this.#buffers, this.#bytes];
			this.#buffers = null;
			this.#tableFilled = 0;
			this.#table = /* @__PURE__ */ new Uint8Array(8);
			take(messageOf(buffers), size);
		} else at += this.#fill(bytes, at);
	}
	#isComplete() {
		return this.#buffers !== null && this.#filling === this.#buffers.length;
	}
	#readTable(bytes, at) {
		const step = Math.min(this.#table.length - this.#tableFilled, bytes.length - at);
		this.#table.set(bytes.subarray(at, at + step), this.#tableFilled);
		this.#tableFilled += step;
		if (this.#tableFilled === this.#table.length) this.#useTable();
		return step;
	}
	#useTable() {
		const view = new DataView(this.#table.buffer);
		const count = view.getUint32(0, true) + 1;
		if (count > SEGMENTS_MAX) throw new NoMessage(`a message of ${count} segments; at most ${SEGMENTS_MAX} are taken`);
		const size = 4 + 4 * count + 7 & -8;
		if (size > this.#table.length) {
			const table = new Uint8Array(size);
			table.set(this.#table);
			this.#table = table;
			return;
		}
		let total = size;
		for (let id = 0; id < count; id++) total += 8 * view.getUint32(4 + 4 * id, true);
		if (total > 67108864) throw new NoMessage(`a message of ${total} bytes; at most ${MESSAGE_BYTES_MAX$1} are taken`);
		this.#buffers = Array.from({ length: count }, (_, id) => /* @__PURE__ */ new ArrayBuffer(8 * view.getUint32(4 + 4 * id, true)));
		this.#bytes = total;
		this.#filling = this.#filled = 0;
		this.#skipFull();
	}
	#fill(bytes, at) {
		const buffer = this.#buffers[this.#filling];
		const step = Math.min(buffer.byteLength - this.#filled, bytes.length - at);
		new Uint8Array(buffer).set(bytes.subarray(at, at + step), this.#filled);
		this.#filled += step;
		this.#skipFull();
		return step;
	}
	#skipFull() {
		const buffers = this.#buffers;
		while (this.#filling < buffers.length && this.#filled === buffers[this.#filling].byteLength) {
			this.#filling++;
			this.#filled = 0;
		}
	}
};
function messageOf(buffers) {
	if (buffers[0].byteLength < 8) throw new NoMessage("a message without a root");
	const message = new Message$1({
		kind: MULTI_SEGMENT,
		buffers
	}, false);
	message._capnp.traversalLimit = TRAVERSAL_MAX;
	return message;
}
/** Return a message as it goes into a stream. */
function framed(message) {
	const { segments } = message._capnp;
	const tableBytes = 4 + 4 * segments.length + 7 & -8;
	const total = segments.reduce((sum, segment) => sum + segment.byteLength, tableBytes);
	if (total > 67108864) throw new NoMessage(`a message of ${total} bytes; at most ${MESSAGE_BYTES_MAX$1} can be sent`);
	const bytes = new Uint8Array(total);
	const view = new DataView(bytes.buffer);
	view.setUint32(0, segments.length - 1, true);
	let at = tableBytes;
	segments.forEach((segment, id) => {
		view.setUint32(4 + 4 * id, segment.byteLength / 8, true);
		bytes.set(new Uint8Array(segment.buffer, 0, segment.byteLength), at);
		at += segment.byteLength;
	});
	return bytes;
}
// src/rpc/served.ts
/** A call that is answered here. */
var Served = class {
	id;
	bytes;
	isForOther;
	params;
	outcome = new Outcome();
	/** Ids of the capabilities in its results, one for each time. */
	exported = [];
	/** Whether its Return was sent. */
	hasReturned = false;
	/** Whether its Finish came. */
	isFinished = false;
	/** Gives up what is done for it elsewhere. */
	onAbort = () => {};
	#controller = null;
	#isAborted = false;
	#held = [];
	#reply = null;
	constructor(id, bytes, isForOther, params) {
		this.id = id;
		this.bytes = bytes;
		this.isForOther = isForOther;
		this.params = params;
	}
	get signal() {
		if (this.#controller === null) {
			this.#controller = new AbortController();
			if (this.#isAborted) this.#controller.abort(new Cancelled());
		}
		return this.#controller.signal;
	}
	/** Nobody waits for it any more. */
	abort() {
		if (this.#isAborted || this.outcome.isSettled) return;
		this.#isAborted = true;
		this.#controller?.abort(new Cancelled());
		this.onAbort();
	}
	/** Begin the message that has the results, and return where they go. */
	place() {
		const message = new Message$1();
		const root = message.initRoot(Message);
		const answer = root._initReturn();
		answer.answerId = this.id;
		answer.releaseParamCaps = false;
		const payload = answer._initResults();
		this.#reply = {
			message,
			root,
			payload
		};
		return payload.content;
	}
	/** The message that has the results. */
	get reply() {
		if (this.#reply === null) this.place();
		return this.#reply;
	}
	/** Let go of what came with the call. */
	releaseParams() {
		const given = this.params;
		this.params = [];
		for (const hook of given) hook?.release();
	}
	/** Hold what is in the results, until `releaseResults`: calls may be made on it. */
	holdResults() {
		const { capTable } = this.reply.message._capnp;
		this.#held = (capTable ?? []).filter((client) => client !== null).map((client) => hookOf(client).keep());
	}
	/** Let go of the results, whether anybody got them or not. */
	releaseResults() {
		const held = this.#held;
		this.#held = [];
		for (const hook of held) hook.release();
	}
};
// src/rpc/tables.ts
var STEPS_MAX = 64;
var EXPORTS_MAX = 65536;
/** The peer broke the protocol. */
var ProtocolError = class extends Error {};
/** Numbers that are free again are given first. */
var Numbers = class {
	#next = 0;
	#free = [];
	take() {
		return this.#free.pop() ?? this.#next++;
	}
	giveBack(number) {
		this.#free.push(number);
	}
};
/** What this side exports. */
var Exports = class {
	#entries = /* @__PURE__ */ new Map();
	#ids = /* @__PURE__ */ new Map();
	#numbers = new Numbers();
	/** Let the peer have a reference to a capability, and return its number. */
	add(hook) {
		const known = this.#ids.get(hook);
		if (known !== void 0) {
			this.#entries.get(known).references++;
			return known;
		}
		if (this.#entries.size >= EXPORTS_MAX) throw new CapabilityError("overloaded", `${EXPORTS_MAX} capabilities are out`);
		const id = this.#numbers.take();
		hook.keep();
		this.#entries.set(id, {
			hook,
			references: 1
		});
		this.#ids.set(hook, id);
		return id;
	}
	get(id) {
		const entry = this.#entries.get(id);
		if (entry === void 0) throw new ProtocolError(`it refers to capability ${id}, which it does not have`);
		return entry.hook;
	}
	/** Take references of the peer's away. */
	release(id, count) {
		const entry = this.#entries.get(id);
		if (entry === void 0 || entry.references < count) throw new ProtocolError("it releases more than it has");
		entry.references -= count;
		if (entry.references > 0) return;
		this.#entries.delete(id);
		this.#ids.delete(entry.hook);
		this.#numbers.giveBack(id);
		entry.hook.release();
	}
	clear() {
		const entries = [...this.#entries.values()];
		this.#entries.clear();
		this.#ids.clear();
		for (const { hook } of entries) hook.release();
	}
};
/** What the peer exports, or promises to. */
var Import = class {
	connection;
	id;
	isPromise;
	/** References that the peer counts. */
	references = 0;
	/** References that this side has given out. */
	handles = 0;
	/** What a promise came to. */
	resolution = null;
	wasCalled = false;
	constructor(connection, id, isPromise) {
		this.connection = connection;
		this.id = id;
		this.isPromise = isPromise;
	}
};
function letGo(lease) {
	if (lease.isReleased) return;
	lease.isReleased = true;
	if (--lease.import.handles === 0) lease.import.connection.drop(lease.import);
}
var FORGOTTEN = new FinalizationRegistry(letGo);
/** One reference to a peer's capability. */
var Remote = class Remote extends Hook {
	#lease;
	constructor(given) {
		super();
		given.handles++;
		this.#lease = {
			import: given,
			isReleased: false
		};
		FORGOTTEN.register(this, this.#lease, this);
	}
	get import() {
		return this.#lease.import;
	}
	get isReleased() {
		return this.#lease.isReleased;
	}
	send(outgoing) {
		if (this.#lease.isReleased) return failed(new CapabilityError("usage", "a call on a capability that was released"));
		const { resolution, connection, id } = this.#lease.import;
		if (resolution !== null) return resolution.send(outgoing);
		this.#lease.import.wasCalled = true;
		return connection.callImport(id, outgoing);
	}
	keep() {
		if (this.#lease.isReleased) return new Broken(new CapabilityError("usage", "the capability was released"));
		return new Remote(this.#lease.import);
	}
	release() {
		FORGOTTEN.unregister(this);
		letGo(this.#lease);
	}
};
/** The imports of one connection. */
var Imports = class {
	#entries = /* @__PURE__ */ new Map();
	/** Take note of one more reference, and return it. */
	add(connection, id, isPromise) {
		let entry = this.#entries.get(id);
		if (entry === void 0) {
			entry = new Import(connection, id, isPromise);
			this.#entries.set(id, entry);
		}
		entry.references++;
		return new Remote(entry);
	}
	get(id) {
		return this.#entries.get(id);
	}
	remove(given) {
		return this.#entries.get(given.id) === given && this.#entries.delete(given.id);
	}
	/** Break all that are promises still. */
	clear() {
		for (const entry of this.#entries.values()) entry.resolution = new Broken(new Disconnected());
		this.#entries.clear();
	}
};
/** Whether calls on a capability go to the peer, in the order in which they are made. */
function isOfPeer(hook) {
	if (hook instanceof Remote) return hook.import.resolution === null || isOfPeer(hook.import.resolution);
	return hook instanceof Broken || hook instanceof Pipelined && hook.outcome instanceof Question;
}
/** Whether a capability came, by what has been resolved so far, to that promise: nobody follows a promise to itself. */
function leadsTo(hook, promise) {
	let found = hook;
	while (found instanceof Remote && found.import !== promise && found.import.resolution !== null) found = found.import.resolution;
	return found instanceof Remote && found.import === promise;
}
/** Return a transform that came in a message. */
function transformOf(steps) {
	if (steps.length > STEPS_MAX) throw new ProtocolError(`a path of ${steps.length} steps`);
	const fields = [];
	for (const step of steps) if (step._isGetPointerField) fields.push(step.getPointerField);
	return fields;
}
/** Return the capabilities of a message. `read` gives each of them. */
function readTable(table, read) {
	if (table.length > 8192) throw new ProtocolError(`${table.length} capabilities in a message`);
	return Array.from({ length: table.length }, (_, place) => read(table.get(place)));
}
/** Say in a message what one of its capabilities is; returns the number of what is exported by that. */
function describe$1(hook, descriptor, connection, exports) {
	let found = hook;
	for (;;) if (found instanceof Remote && found.import.resolution !== null) found = found.import.resolution;
	else if (found instanceof Pipelined && found.outcome.isSettled) found = found.outcome.hookAt(found.transform);
	else break;
	if (found instanceof Broken) return null;
	if (found instanceof Remote && found.import.connection === connection && !found.isReleased) {
		descriptor.receiverHosted = found.import.id;
		return null;
	}
	if (found instanceof Pipelined && found.outcome instanceof Question && found.outcome.isOf(connection)) {
		const answer = descriptor._initReceiverAnswer();
		answer.questionId = found.outcome.id;
		writeTransform(answer, found.transform);
		return null;
	}
	const id = exports.add(found);
	descriptor.senderHosted = id;
	return id;
}
/** Write the path to a capability in an answer. */
function writeTransform(answer, transform) {
	const steps = answer._initTransform(transform.length);
	transform.forEach((field, place) => {
		steps.get(place).getPointerField = field;
	});
}
/** Write the capabilities of a message; returns the numbers of those that are exported by that. */
function writeTable(payload, connection, exports) {
	const { capTable } = payload.segment.message._capnp;
	if (!capTable?.length) return [];
	const table = payload._initCapTable(capTable.length);
	const exported = [];
	capTable.forEach((client, place) => {
		if (client === null) return;
		const id = describe$1(hookOf(client), table.get(place), connection, exports);
		if (id !== null) exported.push(id);
	});
	return exported;
}
// src/rpc/writing.ts
/** That the connection ends, and why. */
function abort(why) {
	return (root) => {
		const said = root._initAbort();
		said.reason = why;
		said.type = 0;
	};
}
function returnOf(id, fill) {
	return (root) => {
		const answer = root._initReturn();
		answer.answerId = id;
		answer.releaseParamCaps = false;
		fill(answer);
	};
}
/** That a call's results are there, for another call. */
function resultsElsewhere(id) {
	return returnOf(id, (answer) => answer.resultsSentElsewhere = true);
}
/** That a call was given up, as its caller wished. */
function cancelledReturn(id) {
	return returnOf(id, (answer) => answer.canceled = true);
}
/** That a call failed. */
function failure(id, error) {
	return returnOf(id, (answer) => {
		const exception = answer._initException();
		exception.reason = encoded(error);
		if (error instanceof Unimplemented) exception.type = 3;
		else exception.type = error instanceof Disconnected ? 2 : 0;
	});
}
/** That nothing more is wanted of a call. */
function finish(id, releaseResultCaps) {
	return (root) => {
		const said = root._initFinish();
		said.questionId = id;
		said.releaseResultCaps = releaseResultCaps;
		said.requireEarlyCancellationWorkaround = false;
	};
}
/** That a capability of the peer's is not referred to any more. */
function releaseOf(id, count) {
	return (root) => {
		const said = root._initRelease();
		said.id = id;
		said.referenceCount = count;
	};
}
/** That calls that went by way of the peer are to be told from later ones. */
function disembargoOf(aim, fill) {
	return (root) => {
		const said = root._initDisembargo();
		aim(said._initTarget());
		fill(said._initContext());
	};
}
/** Write that what is meant is a capability in the results of a call. */
function aimAtAnswer(target, id, transform) {
	const promised = target._initPromisedAnswer();
	promised.questionId = id;
	writeTransform(promised, transform);
}
/** Write which capability of the peer is meant. */
function aimAt(target, hook, connection) {
	if (hook instanceof Remote && hook.import.connection === connection) target.importedCap = hook.import.id;
	else if (hook instanceof Pipelined && hook.outcome instanceof Question) aimAtAnswer(target, hook.outcome.id, hook.transform);
	else throw new ProtocolError("it asks for what went back to it, of something that did not");
}
// src/rpc/connection.ts
var QUESTIONS_MAX = 4096;
var SERVED_MAX = 8192;
var SERVED_BYTES_MAX = 256 << 20;
var LOGGED_MAX = 20;
/** A connection. */
var Connection = class {
	/** Fulfilled with the reason once it is gone; never rejected. */
	closed;
	#stream;
	#reader = new MessageReader();
	#questions = /* @__PURE__ */ new Map();
	#questionNumbers = new Numbers();
	#served = /* @__PURE__ */ new Map();
	#working = /* @__PURE__ */ new Set();
	#servedBytes = 0;
	#exports = new Exports();
	#imports = new Imports();
	#embargoes = /* @__PURE__ */ new Map();
	#embargoNumbers = new Numbers();
	#first;
	#logged = 0;
	#isClosed = false;
	#tellClosed;
	/** `first` is what the peer gets that asks for it: nothing, where nothing is served. */
	constructor(stream, first) {
		this.#first = first;
		this.#stream = stream;
		this.closed = new Promise((resolve) => this.#tellClosed = resolve);
		stream.start(this);
	}
	/** Return the first capability of the peer. */
	bootstrap() {
		return new Pipelined(this.#ask((root, id) => {
			root._initBootstrap().questionId = id;
			return [];
		}), []);
	}
	/** End it: what is under way both ways fails. Idempotent. */
	close(reason = "closed here") {
		if (this.#isClosed) return;
		this.#isClosed = true;
		this.#stream.close(reason);
		for (const question of [...this.#questions.values()]) {
			question.onCancel = () => {};
			question.fail(new Disconnected());
		}
		this.#questions.clear();
		for (const served of this.#working) served.abort();
		for (const served of this.#served.values()) served.releaseResults();
		this.#served.clear();
		this.#imports.clear();
		this.#exports.clear();
		for (const embargoed of this.#embargoes.values()) embargoed.lift();
		this.#tellClosed(reason);
	}
	received(bytes) {
		if (this.#isClosed) return;
		try {
			this.#reader.push(bytes, (message, size) => this.#take(message, size));
		} catch (error) {
			this.#abort(error);
		}
	}
	#abort(error) {
		const why = oneLine(error instanceof Error ? error.message : String(error));
		try {
			this.#send(abort(why));
		} finally {
			this.close(`the peer does not speak Cap'n Proto as expected: ${why}`);
		}
	}
	ended(reason) {
		this.close(reason);
	}
	#take(message, size) {
		if (this.#isClosed) return;
		const root = message.getRoot(Message);
		switch (root.which()) {
			case Message_Which.CALL: return this.#takeCall(root.call, message, size);
			case Message_Which.RETURN: return this.#takeReturn(root.return, message);
			case Message_Which.FINISH: return this.#takeFinish(root.finish);
			case Message_Which.RELEASE: return this.#exports.release(root.release.id, root.release.referenceCount);
			case Message_Which.RESOLVE: return this.#takeResolve(root.resolve);
			case Message_Which.DISEMBARGO: return this.#takeDisembargo(root.disembargo);
			case Message_Which.BOOTSTRAP: return this.#answerBootstrap(root.bootstrap.questionId);
			case Message_Which.ABORT: return this.close(`the peer ended it: ${oneLine(root.abort.reason)}`);
			case Message_Which.UNIMPLEMENTED: throw new ProtocolError("it does not know a message that every peer knows");
			default: return this.#send((answer) => copyPointer(root, answer._initUnimplemented()));
		}
	}
	#answerBootstrap(id) {
		const served = new Served(id, 0, false, []);
		this.#begin(served);
		if (this.#first === void 0) return this.#refuse(served, new CapabilityError("not_found", "this peer exports nothing by itself"));
		const content = served.place();
		utils.setInterfacePointer(content.segment.message.addCap(this.#first), content);
		this.#answer(served, content);
	}
	#begin(served) {
		if (this.#served.has(served.id)) throw new ProtocolError(`call ${served.id} is made twice`);
		if (this.#served.size >= SERVED_MAX) throw new ProtocolError(`more than ${SERVED_MAX} calls are under way`);
		this.#servedBytes += served.bytes;
		if (this.#servedBytes > SERVED_BYTES_MAX) throw new ProtocolError(`calls of more than ${SERVED_BYTES_MAX} bytes are under way`);
		this.#served.set(served.id, served);
		this.#working.add(served);
	}
	#takeCall(call, message, size) {
		const params = call.params;
		const given = this.#readTable(params, message);
		const { sendResultsTo } = call;
		if (sendResultsTo._isThirdParty) throw new ProtocolError("results are to go to a third party");
		const served = new Served(call.questionId, size, sendResultsTo._isYourself, given);
		this.#begin(served);
		const { interfaceId, methodId } = call;
		const deliver = (hook) => this.#deliver(served, hook, interfaceId, methodId, params.content);
		const { target } = call;
		if (target._isImportedCap) return deliver(this.#exports.get(target.importedCap));
		const before = this.#promised(target);
		const transform = transformOf(target.promisedAnswer.transform);
		const forget = before.outcome.whenSettled(() => {
			served.onAbort = () => {};
			deliver(before.outcome.hookAt(transform));
		});
		if (before.outcome.isSettled) return;
		served.onAbort = () => {
			forget();
			this.#refuse(served, new Cancelled());
			if (before.isFinished && before.outcome.waiting === 0) before.abort();
		};
	}
	#promised(target) {
		const id = target.promisedAnswer.questionId;
		const served = this.#served.get(id);
		if (served === void 0) throw new ProtocolError(`it refers to the answer of call ${id}, which is not under way`);
		return served;
	}
	#deliver(served, hook, interfaceId, methodId, params) {
		if (hook instanceof Local) {
			hook.start({
				interfaceId,
				methodId,
				params,
				context: served,
				place: () => served.place()
			}).then((results) => this.#answer(served, results), (error) => this.#refuse(served, error));
			return;
		}
		const outcome = hook.send({
			interfaceId,
			methodId,
			fill: (content) => copyPointer(params, content)
		});
		served.onAbort = () => outcome.cancel();
		outcome.whenSettled(() => {
			if (outcome.failure) return this.#refuse(served, outcome.failure.error);
			const content = served.place();
			copyPointer(outcome.results(), content);
			this.#answer(served, content);
		});
	}
	#answer(served, results) {
		this.#working.delete(served);
		served.releaseParams();
		served.holdResults();
		if (!served.hasReturned && !this.#isClosed) try {
			this.#return(served);
		} catch (error) {
			served.releaseResults();
			return this.#refuse(served, error);
		}
		if (this.#isClosed) served.outcome.fail(new Disconnected());
		else served.outcome.settle(results);
		if (served.isFinished || this.#isClosed) served.releaseResults();
	}
	#return(served) {
		const { message, payload } = served.reply;
		if (served.isForOther) this.#send(resultsElsewhere(served.id));
		else {
			const exported = writeTable(payload, this, this.#exports);
			try {
				this.#stream.write(framed(message));
			} catch (error) {
				for (const id of exported) this.#exports.release(id, 1);
				throw new CapabilityError("overloaded", error instanceof Error ? error.message : "the results cannot be sent");
			}
			served.exported = exported;
		}
		served.hasReturned = true;
	}
	#refuse(served, error) {
		this.#working.delete(served);
		served.releaseParams();
		if (!(error instanceof CapabilityError) && this.#logged++ < LOGGED_MAX) console.error("a call failed here:", error);
		if (!served.hasReturned && !this.#isClosed) {
			served.hasReturned = true;
			this.#send(failure(served.id, error));
		}
		served.outcome.fail(error);
	}
	#takeFinish(said) {
		const served = this.#served.get(said.questionId);
		if (served === void 0) return;
		this.#served.delete(served.id);
		this.#servedBytes -= served.bytes;
		served.isFinished = true;
		if (served.hasReturned) {
			if (said.releaseResultCaps) for (const id of served.exported) this.#exports.release(id, 1);
			return served.releaseResults();
		}
		served.hasReturned = true;
		this.#send(cancelledReturn(served.id));
		if (served.outcome.waiting === 0) served.abort();
	}
	#takeReturn(answer, message) {
		const question = this.#questions.get(answer.answerId);
		if (question === void 0) throw new ProtocolError(`it answers call ${answer.answerId}, which was not made`);
		this.#questions.delete(question.id);
		if (answer.releaseParamCaps) for (const id of question.exported) this.#exports.release(id, 1);
		if (question.isGivenUp) return this.#questionNumbers.giveBack(question.id);
		let settle;
		try {
			settle = this.#outcomeOf(question, answer, message);
		} finally {
			this.#finish(question.id, false);
		}
		this.#questionNumbers.giveBack(question.id);
		settle();
	}
	/** Read what a call came to. What is in there that was called already, and is of this side, is put under embargo. */
	#outcomeOf(question, answer, message) {
		switch (answer.which()) {
			case Return_Which.RESULTS: {
				const payload = answer.results;
				message._capnp.capTable = this.#readTable(payload, message);
				const found = new Outcome();
				found.settle(payload.content);
				for (const transform of question.ahead.values()) this.#embargoResult(question, found, transform, message);
				return () => question.settle(payload.content);
			}
			case Return_Which.EXCEPTION: {
				const error = decoded(answer.exception.type, answer.exception.reason);
				return () => question.fail(error);
			}
			case Return_Which.TAKE_FROM_OTHER_QUESTION: {
				const other = this.#served.get(answer.takeFromOtherQuestion);
				if (other === void 0) throw new ProtocolError("it answers with the results of a call that is not under way");
				return () => question.follow(other.outcome);
			}
			case Return_Which.CANCELED: return () => question.fail(new Cancelled("the peer cancelled the call"));
			default: throw new ProtocolError("it answers in a way that was not asked for");
		}
	}
	#embargoResult(question, found, transform, message) {
		const hook = found.hookAt(transform);
		const place = message._capnp.capTable?.indexOf(hook) ?? -1;
		if (place < 0 || isOfPeer(hook)) return;
		message._capnp.capTable[place] = this.#embargo(hook, (target) => aimAtAnswer(target, question.id, transform));
	}
	#embargo(hook, fill) {
		const id = this.#embargoNumbers.take();
		const embargoed = new Embargoed(hook);
		this.#embargoes.set(id, embargoed);
		this.#send(disembargoOf(fill, (context) => context.senderLoopback = id));
		return embargoed;
	}
	#takeDisembargo(disembargo) {
		const { context, target } = disembargo;
		switch (context.which()) {
			case Disembargo_Context_Which.SENDER_LOOPBACK: {
				const id = context.senderLoopback;
				const hook = target._isImportedCap ? this.#exports.get(target.importedCap) : this.#promised(target).outcome.hookAt(transformOf(target.promisedAnswer.transform));
				const aim = (back) => aimAt(back, hook, this);
				return this.#send(disembargoOf(aim, (said) => said.receiverLoopback = id));
			}
			case Disembargo_Context_Which.RECEIVER_LOOPBACK: {
				const id = context.receiverLoopback;
				const embargoed = this.#embargoes.get(id);
				if (embargoed === void 0) throw new ProtocolError(`it lifts embargo ${id}, which there is not`);
				this.#embargoes.delete(id);
				this.#embargoNumbers.giveBack(id);
				return embargoed.lift();
			}
			default: throw new ProtocolError("it lifts an embargo in a way that was not asked for");
		}
	}
	#takeResolve(resolve) {
		const promise = this.#imports.get(resolve.promiseId);
		if (resolve._isException) {
			const error = decoded(resolve.exception.type, resolve.exception.reason);
			if (promise !== void 0) promise.resolution = new Broken(error);
			return;
		}
		const hook = this.#read(resolve.cap);
		if (promise === void 0 || !promise.isPromise || promise.resolution !== null) return hook.release();
		if (leadsTo(hook, promise)) throw new ProtocolError(`it resolves promise ${promise.id} to itself`);
		promise.resolution = promise.wasCalled && !isOfPeer(hook) ? this.#embargo(hook, (target) => target.importedCap = promise.id) : hook;
	}
	#readTable(payload, message) {
		const table = readTable(payload.capTable, (descriptor) => this.#read(descriptor));
		message._capnp.capTable = table;
		return table;
	}
	#read(descriptor) {
		switch (descriptor.which()) {
			case CapDescriptor_Which.NONE: return new Broken();
			case CapDescriptor_Which.SENDER_HOSTED: return this.#imports.add(this, descriptor.senderHosted, false);
			case CapDescriptor_Which.SENDER_PROMISE: return this.#imports.add(this, descriptor.senderPromise, true);
			case CapDescriptor_Which.RECEIVER_HOSTED: return this.#exports.get(descriptor.receiverHosted).keep();
			case CapDescriptor_Which.RECEIVER_ANSWER: {
				const { questionId, transform } = descriptor.receiverAnswer;
				const served = this.#served.get(questionId);
				if (served === void 0) throw new ProtocolError(`it refers to the answer of call ${questionId}, which is not under way`);
				return new Pipelined(served.outcome, transformOf(transform)).keep();
			}
			case CapDescriptor_Which.THIRD_PARTY_HOSTED: return this.#imports.add(this, descriptor.thirdPartyHosted.vineId, false);
			default: throw new ProtocolError("it sends a capability of a kind that there is not");
		}
	}
	#send(fill) {
		if (this.#isClosed) return;
		const message = new Message$1();
		fill(message.initRoot(Message));
		this.#stream.write(framed(message));
	}
	/** Ask a question. `fill` writes it and returns the numbers of what is exported by that. */
	#ask(fill) {
		if (this.#isClosed) return failed(new Disconnected());
		if (this.#questions.size >= QUESTIONS_MAX) return failed(new CapabilityError("overloaded", `${QUESTIONS_MAX} calls to the peer are under way`));
		const id = this.#questionNumbers.take();
		const question = new Question(this, id);
		let exported = [];
		try {
			const message = new Message$1();
			exported = fill(message.initRoot(Message), id);
			this.#stream.write(framed(message));
		} catch (error) {
			for (const each of exported) this.#exports.release(each, 1);
			this.#questionNumbers.giveBack(id);
			return failed(error);
		}
		question.exported = exported;
		this.#questions.set(id, question);
		return question;
	}
	#call(outgoing, aim) {
		return this.#ask((root, id) => {
			const call = root._initCall();
			call.questionId = id;
			call.interfaceId = outgoing.interfaceId;
			call.methodId = outgoing.methodId;
			aim(call._initTarget());
			const params = call._initParams();
			outgoing.fill(params.content);
			return writeTable(params, this, this.#exports);
		});
	}
	callAhead(question, transform, outgoing) {
		return this.#call(outgoing, (target) => aimAtAnswer(target, question.id, transform));
	}
	callImport(id, outgoing) {
		return this.#call(outgoing, (target) => target.importedCap = id);
	}
	giveUp(question) {
		if (this.#isClosed || this.#questions.get(question.id) !== question) return;
		question.isGivenUp = true;
		this.#finish(question.id, true);
	}
	#finish(id, releaseResultCaps) {
		this.#send(finish(id, releaseResultCaps));
	}
	drop(given) {
		if (!this.#imports.remove(given)) return;
		given.resolution?.release();
		this.#send(releaseOf(given.id, given.references));
	}
};
// src/rpc/websocket.ts
/** Bytes of one message that is sent; longer ones are cut. */
var MESSAGE_BYTES_MAX = 262144;
/** Bytes that may wait for a peer that takes nothing. */
var WAITING_BYTES_MAX = 128 << 20;
/** Of what comes before there are bytes: characters of a text, texts, and bytes that come early. */
var TEXT_MAX = 4096;
var TEXTS_MAX$1 = 4;
var EARLY_BYTES_MAX = 1 << 20;
var TURNS = 8;
var NORMAL = 1e3;
var EXPLAIN_MS = 3e3;
var UPGRADE_REQUIRED = 426;
/** A WebSocket that is open. */
var SocketStream = class SocketStream {
	sentBytes = 0;
	receivedBytes = 0;
	#socket;
	#texts = [];
	#early = [];
	#receiver = null;
	#expecting = null;
	#waiting = [];
	#waitingBytes = 0;
	#ended = null;
	constructor(socket) {
		this.#socket = socket;
		socket.binaryType = "arraybuffer";
		socket.onmessage = (event) => this.#take(event.data);
		socket.onclose = ({ reason, code }) => this.#end(reason ? oneLine(reason) : `the connection was closed (${code})`);
	}
	/** Connect. Rejects with CapabilityError when nothing answers, or the signal gives it up. */
	static open(url, signal) {
		if (typeof WebSocket === "undefined") throw new CapabilityError("usage", `no WebSocket here: expected a browser, Deno, or Node 22 (20: --experimental-websocket)`);
		return new Promise((resolve, reject) => {
			const socket = new WebSocket(url);
			const giveUp = () => {
				reject(new CapabilityError("cancelled", "connecting was given up"));
				socket.close();
			};
			if (signal?.aborted) return giveUp();
			signal?.addEventListener("abort", giveUp, { once: true });
			socket.onerror = () => void whyNot(url).then(reject);
			socket.onopen = () => {
				signal?.removeEventListener("abort", giveUp);
				socket.onerror = null;
				resolve(new SocketStream(socket));
			};
		});
	}
	/** Send a text, before there are bytes. */
	say(text) {
		if (this.#ended === null) this.#socket.send(text);
	}
	/** Return the next text, before there are bytes. */
	hear() {
		return new Promise((resolve, reject) => {
			const text = this.#texts.shift();
			if (text !== void 0) resolve(text);
			else if (this.#ended !== null) reject(new Disconnected(this.#ended));
			else this.#expecting = {
				resolve,
				reject
			};
		});
	}
	start(receiver) {
		this.#receiver = receiver;
		for (const bytes of this.#early.splice(0)) receiver.received(bytes);
		if (this.#ended !== null) receiver.ended(this.#ended);
	}
	write(bytes) {
		if (this.#ended !== null) return;
		if (this.#waiting.length === 0) this.#flushAfter(TURNS);
		this.#waiting.push(bytes);
		this.#waitingBytes += bytes.length;
		if (this.#waitingBytes + this.#socket.bufferedAmount > WAITING_BYTES_MAX) this.close(`the peer takes nothing: ${WAITING_BYTES_MAX} bytes wait for it`);
	}
	close(reason) {
		if (this.#ended !== null) return;
		this.#flush();
		this.#socket.close(NORMAL);
		this.#end(reason);
	}
	#flushAfter(turns) {
		queueMicrotask(() => turns > 0 ? this.#flushAfter(turns - 1) : this.#flush());
	}
	#flush() {
		if (this.#ended !== null || this.#waitingBytes === 0) return;
		const waiting = this.#waiting;
		const bytes = waiting.length === 1 ? waiting[0] : joined(waiting, this.#waitingBytes);
		this.#waiting = [];
		this.#waitingBytes = 0;
		for (let at = 0; at < bytes.length; at += MESSAGE_BYTES_MAX) this.#socket.send(bytes.subarray(at, at + MESSAGE_BYTES_MAX));
		this.sentBytes += bytes.length;
	}
	#take(data) {
		if (this.#ended !== null) return;
		if (typeof data === "string") return this.#takeText(data);
		this.receivedBytes += data.byteLength;
		const bytes = new Uint8Array(data);
		if (this.#receiver !== null) this.#receiver.received(bytes);
		else if (this.receivedBytes > EARLY_BYTES_MAX) this.close("the gateway sends bytes before it was asked");
		else this.#early.push(bytes);
	}
	#takeText(text) {
		if (this.#receiver !== null) return this.close("the gateway sent text where bytes were expected");
		if (text.length > TEXT_MAX || this.#texts.length >= TEXTS_MAX$1) return this.close("the gateway sends too much at first");
		if (this.#expecting === null) {
			this.#texts.push(text);
			return;
		}
		const { resolve } = this.#expecting;
		this.#expecting = null;
		resolve(text);
	}
	#end(reason) {
		if (this.#ended !== null) return;
		this.#ended = reason;
		this.#waiting = [];
		this.#expecting?.reject(new Disconnected(reason));
		this.#expecting = null;
		this.#receiver?.ended(reason);
	}
};
/** Find out why there is no WebSocket: programs are not told, but the same address says so over HTTP. */
async function whyNot(url) {
	let why = "no gateway answers there, or it refuses a WebSocket";
	try {
		const answer = await fetch(url.replace(/^ws/, "http"), { signal: AbortSignal.timeout(EXPLAIN_MS) });
		const { detail, code } = await answer.json();
		if (answer.status !== UPGRADE_REQUIRED && typeof detail === "string" && typeof code === "string") return new CapabilityError(code, oneLine(detail));
	} catch (error) {
		why = reasonOf(error) ?? why;
	}
	return new CapabilityError("peer", `${url}: ${why}`);
}
/** Say why a request failed, where it is known: Deno and Node tell, each in its own way; browsers do not. */
function reasonOf(error) {
	const cause = error instanceof Error ? error.cause : void 0;
	if (!(cause instanceof Error)) return null;
	const { code } = cause;
	const said = `${typeof code === "string" ? code : ""} ${cause.message}`;
	if (/wrong.version.number|InvalidContentType/i.test(said)) return "it speaks no TLS: expected http:// there";
	if (/other side closed|connection closed before/i.test(said)) return "it closes the connection: https:// may be expected there";
	const reason = oneLine(cause.message.replace(/^.*client error \(\w+\): /, ""));
	return /certificate|_CERT_|UNABLE_TO_/i.test(said) ? `its certificate is not trusted (see --ca): ${reason}` : reason;
}
function joined(parts, length) {
	const bytes = new Uint8Array(length);
	let at = 0;
	for (const part of parts) {
		bytes.set(part, at);
		at += part.length;
	}
	return bytes;
}
// src/rpc/link.ts
var PROTOCOL_VERSION = 2;
var TIMEOUT_MS = 1e4;
/** Connect to the /peer of a gateway, prove who this is and that it is the gateway, and say hello. */
async function connectWebSocket(url, identity, options = {}) {
	const limit = AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS);
	const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
	const late = () => limit.aborted && !options.signal?.aborted ? new CapabilityError("peer", `the gateway at ${url} does not answer in time`) : new CapabilityError("cancelled", "connecting was given up");
	let stream;
	try {
		stream = await SocketStream.open(url, signal);
	} catch (error) {
		throw signal.aborted ? late() : error;
	}
	const giveUp = () => stream.close("connecting was given up");
	signal.addEventListener("abort", giveUp);
	if (signal.aborted) giveUp();
	try {
		const gateway = await provedOver(stream, identity, options.gateway);
		const connection = new Connection(stream);
		return linkOf(gateway, connection, await greeted(connection, options), stream);
	} catch (error) {
		stream.close("it was not to be");
		if (signal.aborted) throw late();
		throw error;
	} finally {
		signal.removeEventListener("abort", giveUp);
	}
}
/** What the browser sends as Origin; programs in a terminal send none. */
function originHere() {
	const { location } = globalThis;
	return location?.protocol?.startsWith("http") && location.origin ? location.origin : "";
}
async function provedOver(stream, identity, expected) {
	const origin = originHere();
	const challenge = readChallenge(await stream.hear(), expected);
	const proof = await prove(identity, challenge, origin);
	stream.say(JSON.stringify(proof));
	await checkWelcome(await stream.hear(), challenge, proof, origin);
	return challenge.gateway;
}
async function greeted(connection, options) {
	const namespace = options.namespace ?? "ww";
	const vat = new Vat.Client(connection.bootstrap());
	const answer = await answered(vat.hello((params) => {
		params.version = PROTOCOL_VERSION;
		params.namespace = namespace;
		params.ticket = options.ticket ?? "";
	})).catch((error) => {
		if (!(error instanceof Disconnected)) throw error;
		throw new CapabilityError("peer", "the gateway closed the connection at hello");
	});
	release(vat);
	if (answer.version !== PROTOCOL_VERSION) {
		const older = answer.version < PROTOCOL_VERSION ? "the gateway" : "this page or program";
		throw new CapabilityError("protocol_mismatch", `the gateway speaks protocol version ${answer.version}, this speaks ${PROTOCOL_VERSION}: update ${older}`);
	}
	if (answer.refused) throw new CapabilityError(answer.namespace !== namespace ? "protocol_mismatch" : "not_admitted", oneLine(answer.refused));
	if (isNull(answer.exports)) throw new CapabilityError("protocol_mismatch", "the gateway exports nothing");
	return answer.exports;
}
function linkOf(peerId, connection, exports, traffic) {
	return {
		peerId,
		closed: connection.closed,
		traffic,
		async connect(name, kind) {
			const answer = await answered(exports.connect((params) => params.name = name));
			const capability = hookOf(clientAt(answer.capability)).keep();
			release(answer);
			return new kind.Client(capability);
		},
		close: (reason) => connection.close(reason)
	};
}
// src/schema/channel.ts
var Facet_Present$Params = class extends Struct {
	static _capnp = {
		displayName: "present$Params",
		id: "c94d628809b40ab9",
		size: new ObjectSize(0, 1)
	};
	_adoptNonce(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownNonce() {
		return utils.disown(this.nonce);
	}
	get nonce() {
		return utils.getData(0, this);
	}
	_hasNonce() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initNonce(length) {
		return utils.initData(0, length, this);
	}
	set nonce(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	toString() {
		return "Facet_Present$Params_" + super.toString();
	}
};
var Facet_Present$Results = class extends Struct {
	static _capnp = {
		displayName: "present$Results",
		id: "bfa8d645ac7c4e99",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Facet_Present$Results_" + super.toString();
	}
};
var Facet_Present$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Facet_Select$Params = class Facet_Select$Params extends Struct {
	static _capnp = {
		displayName: "select$Params",
		id: "9de3d00f525e0cd9",
		size: new ObjectSize(8, 1)
	};
	static _Cases;
	_adoptCases(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownCases() {
		return utils.disown(this.cases);
	}
	get cases() {
		return utils.getList(0, Facet_Select$Params._Cases, this);
	}
	_hasCases() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initCases(length) {
		return utils.initList(0, Facet_Select$Params._Cases, length, this);
	}
	set cases(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	get mayWait() {
		return utils.getBit(0, this);
	}
	set mayWait(value) {
		utils.setBit(0, value, this);
	}
	toString() {
		return "Facet_Select$Params_" + super.toString();
	}
};
var Facet_Select$Results = class extends Struct {
	static _capnp = {
		displayName: "select$Results",
		id: "a0f6eaefe79d39ac",
		size: new ObjectSize(8, 2)
	};
	get index() {
		return utils.getInt32(0, this);
	}
	set index(value) {
		utils.setInt32(0, value, this);
	}
	_adoptValue(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownValue() {
		return utils.disown(this.value);
	}
	get value() {
		return utils.getPointer(0, this);
	}
	_hasValue() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	set value(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	_adoptCapability(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownCapability() {
		return utils.disown(this.capability);
	}
	get capability() {
		return utils.getPointer(1, this);
	}
	_hasCapability() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	set capability(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	toString() {
		return "Facet_Select$Results_" + super.toString();
	}
};
var Facet_Select$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Facet$Client = class Facet$Client {
	client;
	static interfaceId = 11485794997869290863n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Facet_Present$Params,
		ResultsClass: Facet_Present$Results,
		interfaceId: Facet$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/channel.capnp:Facet",
		methodName: "present"
	}, {
		ParamsClass: Facet_Select$Params,
		ResultsClass: Facet_Select$Results,
		interfaceId: Facet$Client.interfaceId,
		methodId: 1,
		interfaceName: "schema/channel.capnp:Facet",
		methodName: "select"
	}];
	/**
	* Tell the vat where the channel lives that the caller holds this facet; part of select, which calls it there, and
	* holds the call until it is over. A reference that passes calls on must not pass on this one.
	*
	*/
	present(paramsFunc) {
		return new Facet_Present$Results$Promise(new Pipeline(Facet_Present$Results, this.client.call({
			method: Facet$Client.methods[0],
			paramsFunc
		})));
	}
	/**
	* Do one of the cases, whichever can be done first; index says which, and what follows is what it received. When none
	* can be done and the caller may not wait, index is -1. The channels must live where this facet does.
	* Failures: channel_closed when the case that was chosen met a closed channel, usage.
	*
	*/
	select(paramsFunc) {
		return new Facet_Select$Results$Promise(new Pipeline(Facet_Select$Results, this.client.call({
			method: Facet$Client.methods[1],
			paramsFunc
		})));
	}
};
Registry$1.register(Facet$Client.interfaceId, Facet$Client);
var Facet$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Facet$Client.methods[0],
			impl: target.present
		}, {
			...Facet$Client.methods[1],
			impl: target.select
		}]);
		this.target = target;
	}
	client() {
		return new Facet$Client(this);
	}
};
var Facet = class extends Interface {
	static Client = Facet$Client;
	static Server = Facet$Server;
	static _capnp = {
		displayName: "Facet",
		id: "9f65bdb23af5256f",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Facet_" + super.toString();
	}
};
var Case_Send = class extends Struct {
	static _capnp = {
		displayName: "send",
		id: "902390e0a3da3857",
		size: new ObjectSize(8, 3)
	};
	get sender() {
		return new Sender$Client(utils.getInterfaceClientOrNullAt(0, this));
	}
	set sender(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(0, this));
	}
	_adoptValue(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownValue() {
		return utils.disown(this.value);
	}
	get value() {
		return utils.getPointer(1, this);
	}
	_hasValue() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	set value(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	_adoptCapability(value) {
		utils.adopt(value, utils.getPointer(2, this));
	}
	_disownCapability() {
		return utils.disown(this.capability);
	}
	get capability() {
		return utils.getPointer(2, this);
	}
	_hasCapability() {
		return !utils.isNull(utils.getPointer(2, this));
	}
	set capability(value) {
		utils.copyFrom(value, utils.getPointer(2, this));
	}
	toString() {
		return "Case_Send_" + super.toString();
	}
};
var Case_Which = {
	SEND: 0,
	RECEIVE: 1
};
var Case = class extends Struct {
	static SEND = Case_Which.SEND;
	static RECEIVE = Case_Which.RECEIVE;
	static _capnp = {
		displayName: "Case",
		id: "f71ea50c1156f4e4",
		size: new ObjectSize(8, 3)
	};
	get send() {
		utils.testWhich("send", utils.getUint16(0, this), 0, this);
		return utils.getAs(Case_Send, this);
	}
	_initSend() {
		utils.setUint16(0, 0, this);
		return utils.getAs(Case_Send, this);
	}
	get _isSend() {
		return utils.getUint16(0, this) === 0;
	}
	set send(_) {
		utils.setUint16(0, 0, this);
	}
	get receive() {
		utils.testWhich("receive", utils.getUint16(0, this), 1, this);
		return new Receiver$Client(utils.getInterfaceClientOrNullAt(0, this));
	}
	get _isReceive() {
		return utils.getUint16(0, this) === 1;
	}
	set receive(value) {
		utils.setUint16(0, 1, this);
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(0, this));
	}
	toString() {
		return "Case_" + super.toString();
	}
	which() {
		return utils.getUint16(0, this);
	}
};
var Sender_Send$Params = class extends Struct {
	static _capnp = {
		displayName: "send$Params",
		id: "93e3c2bb6686d90e",
		size: new ObjectSize(0, 2)
	};
	_adoptValue(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownValue() {
		return utils.disown(this.value);
	}
	get value() {
		return utils.getPointer(0, this);
	}
	_hasValue() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	set value(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	_adoptCapability(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownCapability() {
		return utils.disown(this.capability);
	}
	get capability() {
		return utils.getPointer(1, this);
	}
	_hasCapability() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	set capability(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	toString() {
		return "Sender_Send$Params_" + super.toString();
	}
};
var Sender_Send$Results = class extends Struct {
	static _capnp = {
		displayName: "send$Results",
		id: "95c11cf9c4db65be",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Sender_Send$Results_" + super.toString();
	}
};
var Sender_Send$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Sender$Client = class Sender$Client {
	client;
	static interfaceId = 14216555380875158227n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Sender_Send$Params,
		ResultsClass: Sender_Send$Results,
		interfaceId: Sender$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/channel.capnp:Sender",
		methodName: "send"
	}];
	/**
	* Answers when a receiver took the value, or it was buffered. Cancelling the call, or losing the connection, withdraws
	* the value if nobody took it yet. Failures: channel_closed, overloaded.
	*
	*/
	send(paramsFunc) {
		return new Sender_Send$Results$Promise(new Pipeline(Sender_Send$Results, this.client.call({
			method: Sender$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Sender$Client.interfaceId, Sender$Client);
var Sender$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Sender$Client.methods[0],
			impl: target.send
		}]);
		this.target = target;
	}
	client() {
		return new Sender$Client(this);
	}
};
var Sender = class extends Interface {
	static Client = Sender$Client;
	static Server = Sender$Server;
	static _capnp = {
		displayName: "Sender",
		id: "c54b59cbdebb62d3",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Sender_" + super.toString();
	}
};
var Receiver_Receive$Params = class extends Struct {
	static _capnp = {
		displayName: "receive$Params",
		id: "f2f7da9ff674662e",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Receiver_Receive$Params_" + super.toString();
	}
};
var Receiver_Receive$Results = class extends Struct {
	static _capnp = {
		displayName: "receive$Results",
		id: "c1e0d8363e107fcc",
		size: new ObjectSize(0, 2)
	};
	_adoptValue(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownValue() {
		return utils.disown(this.value);
	}
	get value() {
		return utils.getPointer(0, this);
	}
	_hasValue() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	set value(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	_adoptCapability(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownCapability() {
		return utils.disown(this.capability);
	}
	get capability() {
		return utils.getPointer(1, this);
	}
	_hasCapability() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	set capability(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	toString() {
		return "Receiver_Receive$Results_" + super.toString();
	}
};
var Receiver_Receive$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Receiver$Client = class Receiver$Client {
	client;
	static interfaceId = 12946838836833536556n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Receiver_Receive$Params,
		ResultsClass: Receiver_Receive$Results,
		interfaceId: Receiver$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/channel.capnp:Receiver",
		methodName: "receive"
	}];
	/**
	* Answers with the oldest value. Cancelling the call, or losing the connection before the value is handed over, consumes
	* nothing. Failures: channel_closed, overloaded.
	*
	*/
	receive(paramsFunc) {
		return new Receiver_Receive$Results$Promise(new Pipeline(Receiver_Receive$Results, this.client.call({
			method: Receiver$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Receiver$Client.interfaceId, Receiver$Client);
var Receiver$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Receiver$Client.methods[0],
			impl: target.receive
		}]);
		this.target = target;
	}
	client() {
		return new Receiver$Client(this);
	}
};
var Receiver = class extends Interface {
	static Client = Receiver$Client;
	static Server = Receiver$Server;
	static _capnp = {
		displayName: "Receiver",
		id: "b3ac6953a9b1ca2c",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Receiver_" + super.toString();
	}
};
var Closer_Close$Params = class extends Struct {
	static _capnp = {
		displayName: "close$Params",
		id: "a526798237ba4c50",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Closer_Close$Params_" + super.toString();
	}
};
var Closer_Close$Results = class extends Struct {
	static _capnp = {
		displayName: "close$Results",
		id: "914c5b2037adf314",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Closer_Close$Results_" + super.toString();
	}
};
var Closer_Close$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Closer$Client = class Closer$Client {
	client;
	static interfaceId = 15172412315949654849n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Closer_Close$Params,
		ResultsClass: Closer_Close$Results,
		interfaceId: Closer$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/channel.capnp:Closer",
		methodName: "close"
	}];
	/**
	* Let nothing be sent any more; what is buffered can still be received. Closing twice is fine.
	*
	*/
	close(paramsFunc) {
		return new Closer_Close$Results$Promise(new Pipeline(Closer_Close$Results, this.client.call({
			method: Closer$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Closer$Client.interfaceId, Closer$Client);
var Closer$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Closer$Client.methods[0],
			impl: target.close
		}]);
		this.target = target;
	}
	client() {
		return new Closer$Client(this);
	}
};
var Closer = class extends Interface {
	static Client = Closer$Client;
	static Server = Closer$Server;
	static _capnp = {
		displayName: "Closer",
		id: "d28f3c9d4df0e341",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Closer_" + super.toString();
	}
};
var SendReceiver$Client = class {
	client;
	static interfaceId = 14810091888735508240n;
	constructor(client) {
		this.client = client;
	}
	static methods = [];
};
Registry$1.register(SendReceiver$Client.interfaceId, SendReceiver$Client);
var SendReceiver$Server = class extends Server {
	target;
	constructor(target) {
		super(target, []);
		this.target = target;
	}
	client() {
		return new SendReceiver$Client(this);
	}
};
var SendReceiver = class extends Interface {
	static Client = SendReceiver$Client;
	static Server = SendReceiver$Server;
	static _capnp = {
		displayName: "SendReceiver",
		id: "cd88041b06f95710",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "SendReceiver_" + super.toString();
	}
};
var SendCloser$Client = class {
	client;
	static interfaceId = 16910022769836244392n;
	constructor(client) {
		this.client = client;
	}
	static methods = [];
};
Registry$1.register(SendCloser$Client.interfaceId, SendCloser$Client);
var SendCloser$Server = class extends Server {
	target;
	constructor(target) {
		super(target, []);
		this.target = target;
	}
	client() {
		return new SendCloser$Client(this);
	}
};
var SendCloser = class extends Interface {
	static Client = SendCloser$Client;
	static Server = SendCloser$Server;
	static _capnp = {
		displayName: "SendCloser",
		id: "eaac781db3db3da8",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "SendCloser_" + super.toString();
	}
};
var ReceiveCloser$Client = class {
	client;
	static interfaceId = 11631282843347530429n;
	constructor(client) {
		this.client = client;
	}
	static methods = [];
};
Registry$1.register(ReceiveCloser$Client.interfaceId, ReceiveCloser$Client);
var ReceiveCloser$Server = class extends Server {
	target;
	constructor(target) {
		super(target, []);
		this.target = target;
	}
	client() {
		return new ReceiveCloser$Client(this);
	}
};
var ReceiveCloser = class extends Interface {
	static Client = ReceiveCloser$Client;
	static Server = ReceiveCloser$Server;
	static _capnp = {
		displayName: "ReceiveCloser",
		id: "a16a9e1eefd332bd",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "ReceiveCloser_" + super.toString();
	}
};
var Whole$Client = class {
	client;
	static interfaceId = 11248177266977452851n;
	constructor(client) {
		this.client = client;
	}
	static methods = [];
};
Registry$1.register(Whole$Client.interfaceId, Whole$Client);
var Whole$Server = class extends Server {
	target;
	constructor(target) {
		super(target, []);
		this.target = target;
	}
	client() {
		return new Whole$Client(this);
	}
};
/**
* Combinations, for whoever may do several of these.
*
*/
var Whole = class extends Interface {
	static Client = Whole$Client;
	static Server = Whole$Server;
	static _capnp = {
		displayName: "Whole",
		id: "9c198da100d0b333",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Whole_" + super.toString();
	}
};
Facet_Select$Params._Cases = CompositeList(Case);
// src/schema/worker.ts
var KeyValue = class extends Struct {
	static _capnp = {
		displayName: "KeyValue",
		id: "c91fbe875ef05000",
		size: new ObjectSize(0, 2)
	};
	get key() {
		return utils.getText(0, this);
	}
	set key(value) {
		utils.setText(0, value, this);
	}
	get value() {
		return utils.getText(1, this);
	}
	set value(value) {
		utils.setText(1, value, this);
	}
	toString() {
		return "KeyValue_" + super.toString();
	}
};
/**
* Claims, not facts: the gateway shows them and schedules by them, but trusts none of them.
*
*/
var WorkerInfo = class WorkerInfo extends Struct {
	static _capnp = {
		displayName: "WorkerInfo",
		id: "c57437fd006af296",
		size: new ObjectSize(24, 4)
	};
	static _Labels;
	/**
	* "native" for a Python worker, else what runs it: "browser", "deno", "node"
	*
	*/
	get kind() {
		return utils.getText(0, this);
	}
	set kind(value) {
		utils.setText(0, value, this);
	}
	/**
	* how many runs at once
	*
	*/
	get slots() {
		return utils.getUint32(0, this);
	}
	set slots(value) {
		utils.setUint32(0, value, this);
	}
	get cpus() {
		return utils.getFloat64(8, this);
	}
	set cpus(value) {
		utils.setFloat64(8, value, this);
	}
	get memoryBytes() {
		return utils.getUint64(16, this);
	}
	set memoryBytes(value) {
		utils.setUint64(16, value, this);
	}
	_adoptLabels(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownLabels() {
		return utils.disown(this.labels);
	}
	get labels() {
		return utils.getList(1, WorkerInfo._Labels, this);
	}
	_hasLabels() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	_initLabels(length) {
		return utils.initList(1, WorkerInfo._Labels, length, this);
	}
	set labels(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	get host() {
		return utils.getText(2, this);
	}
	set host(value) {
		utils.setText(2, value, this);
	}
	_adoptLacks(value) {
		utils.adopt(value, utils.getPointer(3, this));
	}
	_disownLacks() {
		return utils.disown(this.lacks);
	}
	/**
	* What it cannot do for a run, of: reactor component python (kinds of guests), fuel, cpu (a limit of processor time),
	* files (a file system). It gets no run that needs any of these.
	*
	*/
	get lacks() {
		return utils.getList(3, TextList, this);
	}
	_hasLacks() {
		return !utils.isNull(utils.getPointer(3, this));
	}
	_initLacks(length) {
		return utils.initList(3, TextList, length, this);
	}
	set lacks(value) {
		utils.copyFrom(value, utils.getPointer(3, this));
	}
	toString() {
		return "WorkerInfo_" + super.toString();
	}
};
var Pulse_Beat$Params = class extends Struct {
	static _capnp = {
		displayName: "beat$Params",
		id: "e71d35c0f4fae3ff",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Pulse_Beat$Params_" + super.toString();
	}
};
var Pulse_Beat$Results = class extends Struct {
	static _capnp = {
		displayName: "beat$Results",
		id: "c5301aee8ad7ce10",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Pulse_Beat$Results_" + super.toString();
	}
};
var Pulse_Beat$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Pulse$Client = class Pulse$Client {
	client;
	static interfaceId = 9852707794045288802n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Pulse_Beat$Params,
		ResultsClass: Pulse_Beat$Results,
		interfaceId: Pulse$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Pulse",
		methodName: "beat"
	}];
	/**
	* Answers at once. A worker that does not, within the gateway's patience, is disconnected.
	*
	*/
	beat(paramsFunc) {
		return new Pulse_Beat$Results$Promise(new Pipeline(Pulse_Beat$Results, this.client.call({
			method: Pulse$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Pulse$Client.interfaceId, Pulse$Client);
var Pulse$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Pulse$Client.methods[0],
			impl: target.beat
		}]);
		this.target = target;
	}
	client() {
		return new Pulse$Client(this);
	}
};
/**
* Proof that a worker lives, where the connection proves nothing: a browser answers for a tab that is frozen.
*
*/
var Pulse = class extends Interface {
	static Client = Pulse$Client;
	static Server = Pulse$Server;
	static _capnp = {
		displayName: "Pulse",
		id: "88bbd9896bcac162",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Pulse_" + super.toString();
	}
};
var Registry_Register$Params = class extends Struct {
	static _capnp = {
		displayName: "register$Params",
		id: "bf35a4b9998f0a76",
		size: new ObjectSize(0, 2)
	};
	_adoptInfo(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownInfo() {
		return utils.disown(this.info);
	}
	get info() {
		return utils.getStruct(0, WorkerInfo, this);
	}
	_hasInfo() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initInfo() {
		return utils.initStructAt(0, WorkerInfo, this);
	}
	set info(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	get pulse() {
		return new Pulse$Client(utils.getInterfaceClientOrNullAt(1, this));
	}
	set pulse(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(1, this));
	}
	toString() {
		return "Registry_Register$Params_" + super.toString();
	}
};
var Registry_Register$Results = class extends Struct {
	static _capnp = {
		displayName: "register$Results",
		id: "fed52b5abb57880a",
		size: new ObjectSize(0, 1)
	};
	get registration() {
		return new Registration$Client(utils.getInterfaceClientOrNullAt(0, this));
	}
	set registration(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(0, this));
	}
	toString() {
		return "Registry_Register$Results_" + super.toString();
	}
};
var Registry_Register$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	getRegistration() {
		return new Registration$Client(this.pipeline.getPipeline(Registration, 0).client());
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Registry$Client = class Registry$Client {
	client;
	static interfaceId = 17178154149462385407n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Registry_Register$Params,
		ResultsClass: Registry_Register$Results,
		interfaceId: Registry$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Registry",
		methodName: "register"
	}];
	/**
	* At most one registration per connection. Dropping it, or losing the connection, ends it. pulse may be null: then only
	* the connection tells that the worker lives.
	*
	*/
	register(paramsFunc) {
		return new Registry_Register$Results$Promise(new Pipeline(Registry_Register$Results, this.client.call({
			method: Registry$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Registry$Client.interfaceId, Registry$Client);
var Registry$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Registry$Client.methods[0],
			impl: target.register
		}]);
		this.target = target;
	}
	client() {
		return new Registry$Client(this);
	}
};
/**
* What a gateway exports as "registry".
*
*/
var Registry = class extends Interface {
	static Client = Registry$Client;
	static Server = Registry$Server;
	static _capnp = {
		displayName: "Registry",
		id: "ee65102f679ba2ff",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Registry_" + super.toString();
	}
};
var Registration_Leave$Params = class extends Struct {
	static _capnp = {
		displayName: "leave$Params",
		id: "f21fa1ce44f1c848",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Registration_Leave$Params_" + super.toString();
	}
};
var Registration_Leave$Results = class extends Struct {
	static _capnp = {
		displayName: "leave$Results",
		id: "e5245c9f7a0d1593",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Registration_Leave$Results_" + super.toString();
	}
};
var Registration_Leave$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Registration$Client = class Registration$Client {
	client;
	static interfaceId = 13476536715544415306n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Registration_Leave$Params,
		ResultsClass: Registration_Leave$Results,
		interfaceId: Registration$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Registration",
		methodName: "leave"
	}];
	/**
	* Say goodbye: no further offers will come. Runs under way may still finish.
	*
	*/
	leave(paramsFunc) {
		return new Registration_Leave$Results$Promise(new Pipeline(Registration_Leave$Results, this.client.call({
			method: Registration$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Registration$Client.interfaceId, Registration$Client);
var Registration$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Registration$Client.methods[0],
			impl: target.leave
		}]);
		this.target = target;
	}
	client() {
		return new Registration$Client(this);
	}
};
var Registration = class extends Interface {
	static Client = Registration$Client;
	static Server = Registration$Server;
	static _capnp = {
		displayName: "Registration",
		id: "bb0646bdb488cc4a",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Registration_" + super.toString();
	}
};
/**
* What travels through the gateway's channel: a lease on one slot.
*
*/
var Offer = class extends Struct {
	static _capnp = {
		displayName: "Offer",
		id: "e50abad9d57b39db",
		size: new ObjectSize(8, 1)
	};
	get worker() {
		return new Worker$Client(utils.getInterfaceClientOrNullAt(0, this));
	}
	set worker(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(0, this));
	}
	/**
	* The least depth of a run that it takes. 0 on a slot of its own; more on one that is lent by a run that waits for
	* calls of its own, which are one deeper than it: so nothing can wait for what waits for it.
	*
	*/
	get depth() {
		return utils.getUint32(0, this);
	}
	set depth(value) {
		utils.setUint32(0, value, this);
	}
	toString() {
		return "Offer_" + super.toString();
	}
};
var Worker_Load$Params = class extends Struct {
	static _capnp = {
		displayName: "load$Params",
		id: "d9946bc5f18f9abc",
		size: new ObjectSize(8, 2)
	};
	_adoptDigest(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownDigest() {
		return utils.disown(this.digest);
	}
	get digest() {
		return utils.getData(0, this);
	}
	_hasDigest() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initDigest(length) {
		return utils.initData(0, length, this);
	}
	set digest(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	get blob() {
		return new Blob$Client(utils.getInterfaceClientOrNullAt(1, this));
	}
	set blob(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(1, this));
	}
	get metered() {
		return utils.getBit(0, this);
	}
	set metered(value) {
		utils.setBit(0, value, this);
	}
	toString() {
		return "Worker_Load$Params_" + super.toString();
	}
};
var Worker_Load$Results = class extends Struct {
	static _capnp = {
		displayName: "load$Results",
		id: "8df3704dcf024471",
		size: new ObjectSize(0, 1)
	};
	get program() {
		return new Program$Client(utils.getInterfaceClientOrNullAt(0, this));
	}
	set program(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(0, this));
	}
	toString() {
		return "Worker_Load$Results_" + super.toString();
	}
};
var Worker_Load$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	getProgram() {
		return new Program$Client(this.pipeline.getPipeline(Program, 0).client());
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Worker$Client = class Worker$Client {
	client;
	static interfaceId = 17370088423005906490n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Worker_Load$Params,
		ResultsClass: Worker_Load$Results,
		interfaceId: Worker$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Worker",
		methodName: "load"
	}];
	/**
	* Make the module with this sha256 (32 bytes) ready to run. The bytes are read from blob only when the worker does
	* not have them. metered says that its runs will be given fuel, or be deterministic, which takes another code. Failures: bad_module when the bytes do not hash to digest.
	*
	*/
	load(paramsFunc) {
		return new Worker_Load$Results$Promise(new Pipeline(Worker_Load$Results, this.client.call({
			method: Worker$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Worker$Client.interfaceId, Worker$Client);
var Worker$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Worker$Client.methods[0],
			impl: target.load
		}]);
		this.target = target;
	}
	client() {
		return new Worker$Client(this);
	}
};
/**
* Good for one slot. Dropping it gives the slot back; runs on it go one after the other.
*
*/
var Worker$1 = class extends Interface {
	static Client = Worker$Client;
	static Server = Worker$Server;
	static _capnp = {
		displayName: "Worker",
		id: "f10ef363da64663a",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Worker_" + super.toString();
	}
};
var Program_Task$Params = class extends Struct {
	static _capnp = {
		displayName: "task$Params",
		id: "f5367c81379a6100",
		size: new ObjectSize(0, 1)
	};
	_adoptInvocation(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownInvocation() {
		return utils.disown(this.invocation);
	}
	get invocation() {
		return utils.getStruct(0, Invocation, this);
	}
	_hasInvocation() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initInvocation() {
		return utils.initStructAt(0, Invocation, this);
	}
	set invocation(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	toString() {
		return "Program_Task$Params_" + super.toString();
	}
};
var Program_Task$Results = class extends Struct {
	static _capnp = {
		displayName: "task$Results",
		id: "a4f6625b6a4931e7",
		size: new ObjectSize(0, 1)
	};
	get runs() {
		return new Runs$Client(utils.getInterfaceClientOrNullAt(0, this));
	}
	set runs(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(0, this));
	}
	toString() {
		return "Program_Task$Results_" + super.toString();
	}
};
var Program_Task$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	getRuns() {
		return new Runs$Client(this.pipeline.getPipeline(Runs, 0).client());
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Program_Run$Params = class extends Struct {
	static _capnp = {
		displayName: "run$Params",
		id: "e300c43c05501c40",
		size: new ObjectSize(0, 2)
	};
	_adoptInvocation(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownInvocation() {
		return utils.disown(this.invocation);
	}
	get invocation() {
		return utils.getStruct(0, Invocation, this);
	}
	_hasInvocation() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initInvocation() {
		return utils.initStructAt(0, Invocation, this);
	}
	set invocation(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	get calls() {
		return new Calls$Client(utils.getInterfaceClientOrNullAt(1, this));
	}
	set calls(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(1, this));
	}
	toString() {
		return "Program_Run$Params_" + super.toString();
	}
};
var Program_Run$Results = class extends Struct {
	static _capnp = {
		displayName: "run$Results",
		id: "d0adec86e030eeec",
		size: new ObjectSize(8, 3)
	};
	_adoptOutcomes(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownOutcomes() {
		return utils.disown(this.outcomes);
	}
	get outcomes() {
		return utils.getData(0, this);
	}
	_hasOutcomes() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initOutcomes(length) {
		return utils.initData(0, length, this);
	}
	set outcomes(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	_adoptLarge(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownLarge() {
		return utils.disown(this.large);
	}
	get large() {
		return utils.getList(1, InterfaceList, this);
	}
	_hasLarge() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	_initLarge(length) {
		return utils.initList(1, InterfaceList, length, this);
	}
	set large(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	get ended() {
		return utils.getBit(0, this);
	}
	set ended(value) {
		utils.setBit(0, value, this);
	}
	get group() {
		return new Group$Client(utils.getInterfaceClientOrNullAt(2, this));
	}
	set group(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(2, this));
	}
	toString() {
		return "Program_Run$Results_" + super.toString();
	}
};
var Program_Run$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	getGroup() {
		return new Group$Client(this.pipeline.getPipeline(Group, 2).client());
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Program$Client = class Program$Client {
	client;
	static interfaceId = 11565479413879703482n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Program_Task$Params,
		ResultsClass: Program_Task$Results,
		interfaceId: Program$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Program",
		methodName: "task"
	}, {
		ParamsClass: Program_Run$Params,
		ResultsClass: Program_Run$Results,
		interfaceId: Program$Client.interfaceId,
		methodId: 1,
		interfaceName: "schema/worker.capnp:Program",
		methodName: "run"
	}];
	/**
	* Say what all runs of one task have in common. Failures: usage when it is nothing that a guest could be given.
	*
	*/
	task(paramsFunc) {
		return new Program_Task$Results$Promise(new Pipeline(Program_Task$Results, this.client.call({
			method: Program$Client.methods[0],
			paramsFunc
		})));
	}
	/**
	* task, and start of the Runs that it gives, in one: for a task's only run, which differs in nothing from it.
	*
	*/
	run(paramsFunc) {
		return new Program_Run$Results$Promise(new Pipeline(Program_Run$Results, this.client.call({
			method: Program$Client.methods[1],
			paramsFunc
		})));
	}
};
Registry$1.register(Program$Client.interfaceId, Program$Client);
var Program$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Program$Client.methods[0],
			impl: target.task
		}, {
			...Program$Client.methods[1],
			impl: target.run
		}]);
		this.target = target;
	}
	client() {
		return new Program$Client(this);
	}
};
var Program = class extends Interface {
	static Client = Program$Client;
	static Server = Program$Server;
	static _capnp = {
		displayName: "Program",
		id: "a080d640196487ba",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Program_" + super.toString();
	}
};
var Runs_Start$Params = class extends Struct {
	static _capnp = {
		displayName: "start$Params",
		id: "a98445af2ad0b508",
		size: new ObjectSize(0, 3)
	};
	_adoptInputs(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownInputs() {
		return utils.disown(this.inputs);
	}
	get inputs() {
		return utils.getData(0, this);
	}
	_hasInputs() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initInputs(length) {
		return utils.initData(0, length, this);
	}
	set inputs(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	_adoptLarge(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownLarge() {
		return utils.disown(this.large);
	}
	get large() {
		return utils.getList(1, InterfaceList, this);
	}
	_hasLarge() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	_initLarge(length) {
		return utils.initList(1, InterfaceList, length, this);
	}
	set large(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	get calls() {
		return new Calls$Client(utils.getInterfaceClientOrNullAt(2, this));
	}
	set calls(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(2, this));
	}
	toString() {
		return "Runs_Start$Params_" + super.toString();
	}
};
var Runs_Start$Results = class extends Struct {
	static _capnp = {
		displayName: "start$Results",
		id: "e27a610d8f002c3e",
		size: new ObjectSize(8, 3)
	};
	_adoptOutcomes(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownOutcomes() {
		return utils.disown(this.outcomes);
	}
	get outcomes() {
		return utils.getData(0, this);
	}
	_hasOutcomes() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initOutcomes(length) {
		return utils.initData(0, length, this);
	}
	set outcomes(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	_adoptLarge(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownLarge() {
		return utils.disown(this.large);
	}
	get large() {
		return utils.getList(1, InterfaceList, this);
	}
	_hasLarge() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	_initLarge(length) {
		return utils.initList(1, InterfaceList, length, this);
	}
	set large(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	get ended() {
		return utils.getBit(0, this);
	}
	set ended(value) {
		utils.setBit(0, value, this);
	}
	get group() {
		return new Group$Client(utils.getInterfaceClientOrNullAt(2, this));
	}
	set group(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(2, this));
	}
	toString() {
		return "Runs_Start$Results_" + super.toString();
	}
};
var Runs_Start$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	getGroup() {
		return new Group$Client(this.pipeline.getPipeline(Group, 2).client());
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Runs$Client = class Runs$Client {
	client;
	static interfaceId = 9539840761298329426n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Runs_Start$Params,
		ResultsClass: Runs_Start$Results,
		interfaceId: Runs$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Runs",
		methodName: "start"
	}];
	/**
	* Run a group: one run for each input record, one after the other, each in a fresh instance. See Records below. A group
	* is transport alone: each run has its own limits, end and outcome. Groups of one slot run in the order in which they
	* came. Answers within milliseconds with the outcomes there are; ended says that they are all, and otherwise group
	* gives the others. Failures: draining when the worker is stopping, overloaded, usage. calls is what the guest may ask
	* of the cluster while it runs; a group that has it is one run.
	*
	*/
	start(paramsFunc) {
		return new Runs_Start$Results$Promise(new Pipeline(Runs_Start$Results, this.client.call({
			method: Runs$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Runs$Client.interfaceId, Runs$Client);
var Runs$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Runs$Client.methods[0],
			impl: target.start
		}]);
		this.target = target;
	}
	client() {
		return new Runs$Client(this);
	}
};
var Runs = class extends Interface {
	static Client = Runs$Client;
	static Server = Runs$Server;
	static _capnp = {
		displayName: "Runs",
		id: "846452a0cefa9f52",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Runs_" + super.toString();
	}
};
var Calls_Call$Params = class extends Struct {
	static _capnp = {
		displayName: "call$Params",
		id: "b8af60311687eb8c",
		size: new ObjectSize(0, 3)
	};
	get name() {
		return utils.getText(0, this);
	}
	set name(value) {
		utils.setText(0, value, this);
	}
	_adoptRequests(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownRequests() {
		return utils.disown(this.requests);
	}
	get requests() {
		return utils.getData(1, this);
	}
	_hasRequests() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	_initRequests(length) {
		return utils.initData(1, length, this);
	}
	set requests(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	get large() {
		return new Blob$Client(utils.getInterfaceClientOrNullAt(2, this));
	}
	set large(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(2, this));
	}
	toString() {
		return "Calls_Call$Params_" + super.toString();
	}
};
var Calls_Call$Results = class extends Struct {
	static _capnp = {
		displayName: "call$Results",
		id: "a80fb7735a4907a1",
		size: new ObjectSize(0, 2)
	};
	_adoptAnswers(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownAnswers() {
		return utils.disown(this.answers);
	}
	get answers() {
		return utils.getData(0, this);
	}
	_hasAnswers() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initAnswers(length) {
		return utils.initData(0, length, this);
	}
	set answers(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	get large() {
		return new Blob$Client(utils.getInterfaceClientOrNullAt(1, this));
	}
	set large(value) {
		utils.setInterfacePointer(this.segment.message.addCap(value.client), utils.getPointer(1, this));
	}
	toString() {
		return "Calls_Call$Results_" + super.toString();
	}
};
var Calls_Call$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	getLarge() {
		return new Blob$Client(this.pipeline.getPipeline(Blob, 1).client());
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Calls$Client = class Calls$Client {
	client;
	static interfaceId = 13418277224641781553n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Calls_Call$Params,
		ResultsClass: Calls_Call$Results,
		interfaceId: Calls$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Calls",
		methodName: "call"
	}];
	/**
	* Requests and answers as in ww/python/request.py, those above 1 MiB as a blob instead. Answers when all calls have
	* ended, however they did.
	*
	*/
	call(paramsFunc) {
		return new Calls_Call$Results$Promise(new Pipeline(Calls_Call$Results, this.client.call({
			method: Calls$Client.methods[0],
			paramsFunc
		})));
	}
};
Registry$1.register(Calls$Client.interfaceId, Calls$Client);
var Calls$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Calls$Client.methods[0],
			impl: target.call
		}]);
		this.target = target;
	}
	client() {
		return new Calls$Client(this);
	}
};
/**
* What one run was granted: calls of functions by name. Dropping it cancels those under way.
*
*/
var Calls = class extends Interface {
	static Client = Calls$Client;
	static Server = Calls$Server;
	static _capnp = {
		displayName: "Calls",
		id: "ba374c0af07cdf31",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Calls_" + super.toString();
	}
};
var Group_More$Params = class extends Struct {
	static _capnp = {
		displayName: "more$Params",
		id: "ebc92081c1ef9135",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Group_More$Params_" + super.toString();
	}
};
var Group_More$Results = class extends Struct {
	static _capnp = {
		displayName: "more$Results",
		id: "e70c4b5e547a51cb",
		size: new ObjectSize(8, 2)
	};
	_adoptOutcomes(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownOutcomes() {
		return utils.disown(this.outcomes);
	}
	get outcomes() {
		return utils.getData(0, this);
	}
	_hasOutcomes() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initOutcomes(length) {
		return utils.initData(0, length, this);
	}
	set outcomes(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	_adoptLarge(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownLarge() {
		return utils.disown(this.large);
	}
	get large() {
		return utils.getList(1, InterfaceList, this);
	}
	_hasLarge() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	_initLarge(length) {
		return utils.initList(1, InterfaceList, length, this);
	}
	set large(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	get ended() {
		return utils.getBit(0, this);
	}
	set ended(value) {
		utils.setBit(0, value, this);
	}
	toString() {
		return "Group_More$Results_" + super.toString();
	}
};
var Group_More$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Group_Cancel$Params = class extends Struct {
	static _capnp = {
		displayName: "cancel$Params",
		id: "95b0f0200efc09fb",
		size: new ObjectSize(0, 1)
	};
	_adoptRuns(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownRuns() {
		return utils.disown(this.runs);
	}
	get runs() {
		return utils.getData(0, this);
	}
	_hasRuns() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initRuns(length) {
		return utils.initData(0, length, this);
	}
	set runs(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	toString() {
		return "Group_Cancel$Params_" + super.toString();
	}
};
var Group_Cancel$Results = class extends Struct {
	static _capnp = {
		displayName: "cancel$Results",
		id: "ec00fd12d1787a01",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Group_Cancel$Results_" + super.toString();
	}
};
var Group_Cancel$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Group$Client = class Group$Client {
	client;
	static interfaceId = 17423587432466538627n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Group_More$Params,
		ResultsClass: Group_More$Results,
		interfaceId: Group$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Group",
		methodName: "more"
	}, {
		ParamsClass: Group_Cancel$Params,
		ResultsClass: Group_Cancel$Results,
		interfaceId: Group$Client.interfaceId,
		methodId: 1,
		interfaceName: "schema/worker.capnp:Group",
		methodName: "cancel"
	}];
	/**
	* Answers once further runs have ended, however they ended, with their outcomes. A guest's failure is an outcome,
	* never an error of this call. Called again when it has answered, until ended.
	*
	*/
	more(paramsFunc) {
		return new Group_More$Results$Promise(new Pipeline(Group_More$Results, this.client.call({
			method: Group$Client.methods[0],
			paramsFunc
		})));
	}
	/**
	* Stop runs, by their places in the group: uint32 each, little-endian; none: all. Their outcomes then have the reason
	* cancelled. Those that have ended are left as they are.
	*
	*/
	cancel(paramsFunc) {
		return new Group_Cancel$Results$Promise(new Pipeline(Group_Cancel$Results, this.client.call({
			method: Group$Client.methods[1],
			paramsFunc
		})));
	}
};
Registry$1.register(Group$Client.interfaceId, Group$Client);
var Group$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Group$Client.methods[0],
			impl: target.more
		}, {
			...Group$Client.methods[1],
			impl: target.cancel
		}]);
		this.target = target;
	}
	client() {
		return new Group$Client(this);
	}
};
/**
* Runs under way. When nobody holds it any more, nobody could learn their outcomes, and they are stopped.
*
*/
var Group = class extends Interface {
	static Client = Group$Client;
	static Server = Group$Server;
	static _capnp = {
		displayName: "Group",
		id: "f1cd0474a920e083",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Group_" + super.toString();
	}
};
var Blob_Size$Params = class extends Struct {
	static _capnp = {
		displayName: "size$Params",
		id: "c8c5aeaae79437bd",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Blob_Size$Params_" + super.toString();
	}
};
var Blob_Size$Results = class extends Struct {
	static _capnp = {
		displayName: "size$Results",
		id: "a3e7688c5a206997",
		size: new ObjectSize(8, 0)
	};
	get bytes() {
		return utils.getUint64(0, this);
	}
	set bytes(value) {
		utils.setUint64(0, value, this);
	}
	toString() {
		return "Blob_Size$Results_" + super.toString();
	}
};
var Blob_Size$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Blob_Read$Params = class extends Struct {
	static _capnp = {
		displayName: "read$Params",
		id: "de9480d74b722fdd",
		size: new ObjectSize(16, 0)
	};
	get offset() {
		return utils.getUint64(0, this);
	}
	set offset(value) {
		utils.setUint64(0, value, this);
	}
	get count() {
		return utils.getUint32(8, this);
	}
	set count(value) {
		utils.setUint32(8, value, this);
	}
	toString() {
		return "Blob_Read$Params_" + super.toString();
	}
};
var Blob_Read$Results = class extends Struct {
	static _capnp = {
		displayName: "read$Results",
		id: "80538c69120e8a41",
		size: new ObjectSize(0, 1)
	};
	_adoptData(value) {
		utils.adopt(value, utils.getPointer(0, this));
	}
	_disownData() {
		return utils.disown(this.data);
	}
	get data() {
		return utils.getData(0, this);
	}
	_hasData() {
		return !utils.isNull(utils.getPointer(0, this));
	}
	_initData(length) {
		return utils.initData(0, length, this);
	}
	set data(value) {
		utils.copyFrom(value, utils.getPointer(0, this));
	}
	toString() {
		return "Blob_Read$Results_" + super.toString();
	}
};
var Blob_Read$Results$Promise = class {
	pipeline;
	constructor(pipeline) {
		this.pipeline = pipeline;
	}
	async promise() {
		return await this.pipeline.struct();
	}
};
var Blob$Client = class Blob$Client {
	client;
	static interfaceId = 17592197827797557580n;
	constructor(client) {
		this.client = client;
	}
	static methods = [{
		ParamsClass: Blob_Size$Params,
		ResultsClass: Blob_Size$Results,
		interfaceId: Blob$Client.interfaceId,
		methodId: 0,
		interfaceName: "schema/worker.capnp:Blob",
		methodName: "size"
	}, {
		ParamsClass: Blob_Read$Params,
		ResultsClass: Blob_Read$Results,
		interfaceId: Blob$Client.interfaceId,
		methodId: 1,
		interfaceName: "schema/worker.capnp:Blob",
		methodName: "read"
	}];
	size(paramsFunc) {
		return new Blob_Size$Results$Promise(new Pipeline(Blob_Size$Results, this.client.call({
			method: Blob$Client.methods[0],
			paramsFunc
		})));
	}
	/**
	* Up to count bytes from offset; fewer only at the end. At most 1 MiB a call.
	*
	*/
	read(paramsFunc) {
		return new Blob_Read$Results$Promise(new Pipeline(Blob_Read$Results, this.client.call({
			method: Blob$Client.methods[1],
			paramsFunc
		})));
	}
};
Registry$1.register(Blob$Client.interfaceId, Blob$Client);
var Blob$Server = class extends Server {
	target;
	constructor(target) {
		super(target, [{
			...Blob$Client.methods[0],
			impl: target.size
		}, {
			...Blob$Client.methods[1],
			impl: target.read
		}]);
		this.target = target;
	}
	client() {
		return new Blob$Client(this);
	}
};
/**
* Bytes that are read by the one who needs them.
*
*/
var Blob = class extends Interface {
	static Client = Blob$Client;
	static Server = Blob$Server;
	static _capnp = {
		displayName: "Blob",
		id: "f4240ab78845a14c",
		size: new ObjectSize(0, 0)
	};
	toString() {
		return "Blob_" + super.toString();
	}
};
/**
* 0 means the worker's default; more than the worker's maximum means the maximum.
*
*/
var Limits = class extends Struct {
	static _capnp = {
		displayName: "Limits",
		id: "a137b6e55ace5c18",
		size: new ObjectSize(56, 0)
	};
	/**
	* wall clock of one run
	*
	*/
	get durationSeconds() {
		return utils.getFloat64(0, this);
	}
	set durationSeconds(value) {
		utils.setFloat64(0, value, this);
	}
	/**
	* linear memory
	*
	*/
	get memoryBytes() {
		return utils.getUint64(8, this);
	}
	set memoryBytes(value) {
		utils.setUint64(8, value, this);
	}
	/**
	* of stdout and of stderr, each
	*
	*/
	get outputBytes() {
		return utils.getUint64(16, this);
	}
	set outputBytes(value) {
		utils.setUint64(16, value, this);
	}
	/**
	* processor time; 0: as long as the run may take
	*
	*/
	get cpuSeconds() {
		return utils.getFloat64(24, this);
	}
	set cpuSeconds(value) {
		utils.setFloat64(24, value, this);
	}
	/**
	* WebAssembly instructions, roughly; 0: not counted
	*
	*/
	get fuel() {
		return utils.getUint64(32, this);
	}
	set fuel(value) {
		utils.setUint64(32, value, this);
	}
	/**
	* the guest's file system, with what was unpacked into it
	*
	*/
	get filesBytes() {
		return utils.getUint64(40, this);
	}
	set filesBytes(value) {
		utils.setUint64(40, value, this);
	}
	/**
	* all artifacts, before they are compressed
	*
	*/
	get artifactBytes() {
		return utils.getUint64(48, this);
	}
	set artifactBytes(value) {
		utils.setUint64(48, value, this);
	}
	toString() {
		return "Limits_" + super.toString();
	}
};
/**
* One run's input. entry is the exported function to call with arguments; empty means the WASI command's _start.
*
*/
var Invocation = class Invocation extends Struct {
	static _capnp = {
		displayName: "Invocation",
		id: "f548303431c50a35",
		size: new ObjectSize(16, 11)
	};
	static _Env;
	get entry() {
		return utils.getText(0, this);
	}
	set entry(value) {
		utils.setText(0, value, this);
	}
	_adoptArguments(value) {
		utils.adopt(value, utils.getPointer(1, this));
	}
	_disownArguments() {
		return utils.disown(this.arguments);
	}
	/**
	* for a parameter of i32 or i64 its value, for f32 or f64 the bits of a Float64
	*
	*/
	get arguments() {
		return utils.getList(1, Int64List, this);
	}
	_hasArguments() {
		return !utils.isNull(utils.getPointer(1, this));
	}
	_initArguments(length) {
		return utils.initList(1, Int64List, length, this);
	}
	set arguments(value) {
		utils.copyFrom(value, utils.getPointer(1, this));
	}
	_adoptArgs(value) {
		utils.adopt(value, utils.getPointer(2, this));
	}
	_disownArgs() {
		return utils.disown(this.args);
	}
	/**
	* argv[1..]; argv[0] is given by the worker
	*
	*/
	get args() {
		return utils.getList(2, TextList, this);
	}
	_hasArgs() {
		return !utils.isNull(utils.getPointer(2, this));
	}
	_initArgs(length) {
		return utils.initList(2, TextList, length, this);
	}
	set args(value) {
		utils.copyFrom(value, utils.getPointer(2, this));
	}
	_adoptEnv(value) {
		utils.adopt(value, utils.getPointer(3, this));
	}
	_disownEnv() {
		return utils.disown(this.env);
	}
	get env() {
		return utils.getList(3, Invocation._Env, this);
	}
	_hasEnv() {
		return !utils.isNull(utils.getPointer(3, this));
	}
	_initEnv(length) {
		return utils.initList(3, Invocation._Env, length, this);
	}
	set env(value) {
		utils.copyFrom(value, utils.getPointer(3, this));
	}
	_adoptStdin(value) {
		utils.adopt(value, utils.getPointer(4, this));
	}
	_disownStdin() {
		return utils.disown(this.stdin);
	}
	get stdin() {
		return utils.getData(4, this);
	}
	_hasStdin() {
		return !utils.isNull(utils.getPointer(4, this));
	}
	_initStdin(length) {
		return utils.initData(4, length, this);
	}
	set stdin(value) {
		utils.copyFrom(value, utils.getPointer(4, this));
	}
	_adoptLimits(value) {
		utils.adopt(value, utils.getPointer(5, this));
	}
	_disownLimits() {
		return utils.disown(this.limits);
	}
	get limits() {
		return utils.getStruct(5, Limits, this);
	}
	_hasLimits() {
		return !utils.isNull(utils.getPointer(5, this));
	}
	_initLimits() {
		return utils.initStructAt(5, Limits, this);
	}
	set limits(value) {
		utils.copyFrom(value, utils.getPointer(5, this));
	}
	_adoptFiles(value) {
		utils.adopt(value, utils.getPointer(6, this));
	}
	_disownFiles() {
		return utils.disown(this.files);
	}
	/**
	* a zip, unpacked into the guest's file system; none: no file system, see below
	*
	*/
	get files() {
		return utils.getData(6, this);
	}
	_hasFiles() {
		return !utils.isNull(utils.getPointer(6, this));
	}
	_initFiles(length) {
		return utils.initData(6, length, this);
	}
	set files(value) {
		utils.copyFrom(value, utils.getPointer(6, this));
	}
	_adoptArtifacts(value) {
		utils.adopt(value, utils.getPointer(7, this));
	}
	_disownArtifacts() {
		return utils.disown(this.artifacts);
	}
	/**
	* paths in it to bring back, files or folders
	*
	*/
	get artifacts() {
		return utils.getList(7, TextList, this);
	}
	_hasArtifacts() {
		return !utils.isNull(utils.getPointer(7, this));
	}
	_initArtifacts(length) {
		return utils.initList(7, TextList, length, this);
	}
	set artifacts(value) {
		utils.copyFrom(value, utils.getPointer(7, this));
	}
	_adoptDirs(value) {
		utils.adopt(value, utils.getPointer(8, this));
	}
	_disownDirs() {
		return utils.disown(this.dirs);
	}
	/**
	* what the guest may open of it, each under its own name; empty: all of it, as "/"
	* The guest has a file system, of its own and empty but for files, if any of these three is given.
	*
	*/
	get dirs() {
		return utils.getList(8, TextList, this);
	}
	_hasDirs() {
		return !utils.isNull(utils.getPointer(8, this));
	}
	_initDirs(length) {
		return utils.initList(8, TextList, length, this);
	}
	set dirs(value) {
		utils.copyFrom(value, utils.getPointer(8, this));
	}
	/**
	* the same invocation gives the same outcome on every worker
	*
	*/
	get deterministic() {
		return utils.getBit(0, this);
	}
	set deterministic(value) {
		utils.setBit(0, value, this);
	}
	/**
	* of the random numbers of a deterministic run
	*
	*/
	get seed() {
		return utils.getUint64(8, this);
	}
	set seed(value) {
		utils.setUint64(8, value, this);
	}
	_adoptContext(value) {
		utils.adopt(value, utils.getPointer(9, this));
	}
	_disownContext() {
		return utils.disown(this.context);
	}
	/**
	* a reactor's instance serves invocations of one context only; empty: a fresh one
	*
	*/
	get context() {
		return utils.getData(9, this);
	}
	_hasContext() {
		return !utils.isNull(utils.getPointer(9, this));
	}
	_initContext(length) {
		return utils.initData(9, length, this);
	}
	set context(value) {
		utils.copyFrom(value, utils.getPointer(9, this));
	}
	_adoptCode(value) {
		utils.adopt(value, utils.getPointer(10, this));
	}
	_disownCode() {
		return utils.disown(this.code);
	}
	/**
	* of a Python guest: a zip of the sources that args[0], module:qualname, is in
	*
	*/
	get code() {
		return utils.getData(10, this);
	}
	_hasCode() {
		return !utils.isNull(utils.getPointer(10, this));
	}
	_initCode(length) {
		return utils.initData(10, length, this);
	}
	set code(value) {
		utils.copyFrom(value, utils.getPointer(10, this));
	}
	/**
	* how many runs wait for this one, one for the other
	*
	*/
	get depth() {
		return utils.getUint32(4, this);
	}
	set depth(value) {
		utils.setUint32(4, value, this);
	}
	toString() {
		return "Invocation_" + super.toString();
	}
};
WorkerInfo._Labels = CompositeList(KeyValue);
Invocation._Env = CompositeList(KeyValue);
// src/worker/backoff.ts
/** Grows with every try that failed, up to a limit, with jitter: those that were cut off together come back apart. */
var Backoff = class {
	#firstS;
	#mostS;
	#random;
	#nextS;
	constructor(firstS = .1, mostS = 5, random = Math.random) {
		this.#firstS = this.#nextS = firstS;
		this.#mostS = mostS;
		this.#random = random;
	}
	/** Seconds to wait now. */
	next() {
		const nowS = this.#nextS;
		this.#nextS = Math.min(this.#mostS, 2 * nowS);
		return nowS * (.5 + this.#random() / 2);
	}
	/** Begins anew: it worked. */
	reset() {
		this.#nextS = this.#firstS;
	}
};
// src/worker/blob.ts
var READ_BYTES_MAX = 1 << 20;
var PIECE_BYTES = 262144;
/** Reads under way at once, so that a round trip costs no bandwidth. */
var WINDOW = 4;
var SERVED_TIMES_MAX = 2;
/** Returns how many bytes a blob says it has. */
async function sizeOf(blob, signal) {
	const size = (await answered(blob.size(), signal)).bytes;
	if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new CapabilityError("usage", `a blob of ${size} bytes: nobody takes as many`);
	return Number(size);
}
/**
* Yields a remote blob's bytes in order. Throws "usage" when it has more than bytesMax, "peer" when less than it said.
* The signal gives it up.
*/
async function* fetchBlob(blob, bytesMax, signal) {
	const size = await sizeOf(blob, signal);
	if (size > bytesMax) throw new CapabilityError("usage", `a blob of ${size} bytes: at most ${bytesMax} are taken`);
	const stop = new AbortController();
	const over = signal ? AbortSignal.any([stop.signal, signal]) : stop.signal;
	const underWay = [];
	let asked = 0;
	try {
		while (asked < size || underWay.length) {
			while (asked < size && underWay.length < WINDOW) {
				const count = Math.min(PIECE_BYTES, size - asked);
				const piece = read(blob, asked, count, over);
				piece.catch(() => void 0);
				underWay.push({
					count,
					piece
				});
				asked += count;
			}
			const { count, piece } = underWay.shift();
			const data = await piece;
			if (data.length !== count) throw new CapabilityError("peer", `a blob ended early: ${data.length} bytes came where ${count} were asked for`);
			yield data;
		}
	} finally {
		stop.abort();
	}
}
async function read(blob, offset, count, signal) {
	const data = (await answered(blob.read((params) => {
		params.offset = BigInt(offset);
		params.count = count;
	}), signal)).data.toUint8Array();
	return data.buffer.byteLength > 2 * data.length ? data.slice() : data;
}
/** Serves bytes in memory, for as long as somebody holds it; onReleased when nobody does. */
function serveBytes(data, onReleased) {
	let servedBytes = 0;
	return serve(Blob, {
		size(_, results) {
			results.bytes = BigInt(data.length);
		},
		read(params, results) {
			const { count } = params;
			if (count > READ_BYTES_MAX) throw new CapabilityError("usage", `a read of ${count} bytes: at most ${READ_BYTES_MAX} a call`);
			const offset = params.offset < BigInt(data.length) ? Number(params.offset) : data.length;
			const piece = data.subarray(offset, offset + count);
			servedBytes += piece.length;
			if (servedBytes > SERVED_TIMES_MAX * data.length + READ_BYTES_MAX) throw new CapabilityError("overloaded", "this blob was read over and over: ask for it anew");
			results._initData(piece.length).copyBuffer(piece);
		},
		released: onReleased
	});
}
// src/worker/crossing.ts
/** Does something of the sandbox's; its failures cross the connection as what they are. */
async function crossing(work) {
	try {
		return await work();
	} catch (error) {
		throw error instanceof Failure ? new CapabilityError(error.code, error.message) : error;
	}
}
/** Throws when nobody waits for a call's results any more. */
function checkWanted(call) {
	if (call.signal.aborted) throw new Cancelled();
}
// src/worker/group.ts
/** How long the answer to a group waits for its end. */
var ANSWER_WITHIN_MS = 30;
/** Outcomes of a group wait that long for others. */
var LINGER_MS = 5;
var GROUP_MAX$1 = 256;
/** Answers the start of a group, once it has ended or soon. */
async function answerStart(lease, group, results, call, onEnd = () => void 0) {
	const following = new Following(lease, group, onEnd);
	try {
		await group.over(ANSWER_WITHIN_MS);
		checkWanted(call);
		if (!await following.answer(results)) results.group = serveGroup(following);
	} catch (error) {
		following.close();
		throw error;
	}
}
function serveGroup(following) {
	const { group } = following;
	return serve(Group, {
		async more(_, results) {
			await following.room();
			await group.wait();
			if (!group.hasEnded) await group.over(LINGER_MS);
			await following.answer(results);
		},
		cancel(params) {
			group.cancel(placesOf(params.runs.toUint8Array()));
		},
		released: () => following.close()
	});
}
/** A group, and what of its outcomes the gateway holds here. */
var Following = class {
	group;
	#bytesMax;
	#onEnd;
	#heldBytes = 0;
	#freed = () => void 0;
	constructor(lease, group, onEnd) {
		this.group = group;
		this.#onEnd = [onEnd, lease.hold()];
		this.#bytesMax = lease.host.limits.heldBytesMax;
	}
	/** Waits until the gateway holds less: it asks for more once it has read what there was. */
	async room() {
		while (this.#heldBytes > this.#bytesMax) await new Promise((resolve) => this.#freed = resolve);
	}
	/** Writes what has ended into an answer; returns whether that is all. */
	async answer(results) {
		const { outcomes, large, ended } = await crossing(() => this.group.take());
		results._initOutcomes(outcomes.length).copyBuffer(outcomes);
		if (large.length) setCapabilities(results._initLarge(large.length), large.map((record) => this.#hold(record)));
		results.ended = ended;
		if (ended) this.#end();
		return ended;
	}
	/** Stops what is under way. Idempotent. */
	close() {
		this.group.close();
		this.#end();
	}
	#end() {
		this.#onEnd.splice(0).forEach((end) => end());
	}
	#hold(record) {
		let size = record.length;
		this.#heldBytes += size;
		return serveBytes(record, () => {
			this.#heldBytes -= size;
			size = 0;
			this.#freed();
		});
	}
};
/** Reads uint32 each, little-endian. */
function placesOf(data) {
	if (data.length % 4 || data.length > 4 * GROUP_MAX$1) throw new CapabilityError("usage", "runs: expected uint32 each, no more than a group has");
	const view = new DataView(data.buffer, data.byteOffset, data.length);
	return Array.from({ length: data.length / 4 }, (_, index) => view.getUint32(4 * index, true));
}
// src/worker/invocation.ts
var ARGUMENTS_MAX = 1e3;
var TEXTS_MAX = 65536;
/** Reads an Invocation. Throws "usage" when it is none that a guest could be given. */
function readInvocation(message) {
	const { limits } = message;
	return {
		entry: message.entry,
		arguments: listed("arguments", message.arguments, ARGUMENTS_MAX),
		args: listed("args", message.args, TEXTS_MAX),
		env: listed("env", message.env, TEXTS_MAX).map(({ key, value }) => [key, value]),
		stdin: message.stdin.toUint8Array().slice(),
		limits: {
			durationSeconds: limits.durationSeconds,
			memoryBytes: Number(limits.memoryBytes),
			outputBytes: Number(limits.outputBytes),
			cpuSeconds: limits.cpuSeconds,
			fuel: Number(limits.fuel)
		},
		deterministic: message.deterministic,
		seed: message.seed,
		files: message.files.toUint8Array().slice(0, 1),
		artifacts: listed("artifacts", message.artifacts, TEXTS_MAX),
		dirs: listed("dirs", message.dirs, TEXTS_MAX),
		code: message.code.toUint8Array().slice(0, 1)
	};
}
/** Refuses runs that are granted calls: only Python guests make any, which this worker lacks. */
function refuseCalls(params) {
	if (!isNull(params.calls)) throw new CapabilityError("usage", "calls: this worker runs no guests that make any");
}
/** Returns roughly what a task's invocation takes while it is kept. */
function sizeOfInvocation(invocation) {
	const texts = [...invocation.args, ...invocation.env.flat()];
	return 1024 + invocation.stdin.length + texts.reduce((size, text) => size + 2 * text.length + 32, 0);
}
/** Returns a message's list, of at most `most` elements. Elements may have no size on the wire, so they are counted first. */
function listed(what, list, most) {
	const { length } = list;
	if (length > most) throw new CapabilityError("usage", `${what}: ${length} are given, at most ${most} are taken`);
	return Array.from({ length }, (_, index) => list.get(index));
}
// src/worker/runs.ts
var GROUP_MAX = 256;
function serveRuns(lease, program, task) {
	const forget = lease.keepTask(task);
	const drop = lease.hold();
	return serve(Runs, {
		async start(params, results, call) {
			refuseCalls(params);
			const large = largeOf(params);
			const over = new AbortController();
			const letGo = () => {
				over.abort();
				large.splice(0).forEach((blob) => release(blob));
			};
			try {
				const inputs = params.inputs.toUint8Array().slice();
				await answerStart(lease, await lease.start(program, task, inputs, large.map((blob) => inputOf(blob, over.signal))), results, call, letGo);
			} catch (error) {
				letGo();
				throw error;
			}
		},
		released() {
			forget();
			drop();
		}
	});
}
function largeOf(params) {
	const { length } = params.large;
	if (length > GROUP_MAX) throw new CapabilityError("usage", `large: ${length} are given, at most ${GROUP_MAX} are taken`);
	return capabilitiesOf(params.large, Blob).map((blob) => keep(blob));
}
/** A group whose input never comes, and is given up, may not hold up those behind it. */
function inputOf(blob, signal) {
	return {
		size: () => sizeOf(blob, signal),
		bytes: () => fetchBlob(blob, Number.MAX_SAFE_INTEGER, signal)
	};
}
// src/worker/lease.ts
/** Tasks whose input a lease may keep here, each as large as a run's input may be. */
var TASKS_MAX = 16;
/** The input record of a run that differs in nothing. */
var NOTHING = Uint8Array.of(1, 0, 0, 0, 0);
/** One slot, while a gateway has it. */
var Lease = class {
	/** What goes into the Offer. */
	worker;
	/** Settles when the gateway has dropped all that came of it. */
	ended;
	host;
	#slot;
	#end = () => void 0;
	#held = 0;
	#tasksBytes = 0;
	constructor(host, slot) {
		this.host = host;
		this.#slot = slot;
		this.ended = new Promise((resolve) => this.#end = resolve);
		this.worker = serve(Worker$1, {
			load: (params, results, call) => this.#load(params, results, call),
			released: this.hold()
		});
	}
	/** Keeps the lease until what is returned is called, however often that is. */
	hold() {
		let isHeld = true;
		this.#held += 1;
		return () => {
			this.#held -= isHeld ? 1 : 0;
			isHeld = false;
			if (this.#held === 0) this.#end();
		};
	}
	/** Begins runs, which go when those before them have ended. Throws what the gateway is to hear. */
	async start(program, task, inputs, large) {
		if (this.host.isDraining) throw new CapabilityError("draining", "this worker is stopping");
		const { prepared, compileS } = program;
		program.compileS = 0;
		return await crossing(() => this.#slot.start({
			program: prepared,
			task,
			inputs,
			large,
			compileS
		}));
	}
	/** Keeps a task's input until what is returned is called. Throws "overloaded" when there is too much of that. */
	keepTask(task) {
		const most = TASKS_MAX * this.host.limits.inputBytesMax;
		if (this.#tasksBytes > most) throw new CapabilityError("overloaded", `the tasks on a slot may have ${most} bytes, they have ${this.#tasksBytes}`);
		let size = sizeOfInvocation(task);
		this.#tasksBytes += size;
		return () => {
			this.#tasksBytes -= size;
			size = 0;
		};
	}
	async #load(params, results, call) {
		const digest = params.digest.toUint8Array().slice();
		const { blob, metered } = params;
		const bytes = () => fetchBlob(blob, this.host.limits.moduleBytesMax, call.signal);
		const prepared = await crossing(() => this.host.sandbox.prepare(digest, bytes, metered));
		checkWanted(call);
		results.program = serveProgram(this, {
			prepared,
			compileS: prepared.compileS
		});
	}
};
function serveProgram(lease, program) {
	return serve(Program, {
		task(params, results) {
			results.runs = serveRuns(lease, program, readInvocation(params.invocation));
		},
		async run(params, results, call) {
			refuseCalls(params);
			await answerStart(lease, await lease.start(program, readInvocation(params.invocation), NOTHING, []), results, call);
		},
		released: lease.hold()
	});
}
// src/worker/join.ts
/** What somebody has to change before trying again can help. */
var FOR_PEOPLE = /* @__PURE__ */ new Set([
	"not_admitted",
	"peer_mismatch",
	"protocol_mismatch",
	"not_allowed"
]);
var REFUSED_S = 30;
var OFFER_AGAIN_S = 5;
/** How long a gateway may take to answer who registers. */
var BEGIN_S = 30;
/** What guests of this worker cannot have: words of WorkerInfo.lacks. */
var LACKS = [
	"reactor",
	"component",
	"python",
	"fuel",
	"cpu",
	"files"
];
/** One worker, from `serve` until it has left. */
var Joining = class {
	sandbox;
	limits;
	#identity;
	#config;
	#hear;
	#slots;
	#draining = new AbortController();
	#stopped = new AbortController();
	#taken = /* @__PURE__ */ new Set();
	#link = null;
	#gateway;
	#sentBytes = 0;
	#receivedBytes = 0;
	constructor(identity, sandbox, config, hear) {
		this.#identity = identity;
		this.sandbox = sandbox;
		this.#config = config;
		this.#hear = hear;
		this.limits = config.limits;
		this.#slots = Array.from({ length: config.slots }, () => sandbox.newSlot());
	}
	get isDraining() {
		return this.#draining.signal.aborted;
	}
	/** Who it is, or was, joined to. */
	get gateway() {
		return this.#gateway;
	}
	/** How many bytes have crossed, over all connections. */
	get traffic() {
		const { sentBytes = 0, receivedBytes = 0 } = this.#link?.traffic ?? {};
		return {
			sentBytes: this.#sentBytes + sentBytes,
			receivedBytes: this.#receivedBytes + receivedBytes
		};
	}
	/** Takes nothing new, lets running guests finish for a while, and makes `serve` return. */
	drain() {
		this.#draining.abort();
	}
	/** Makes `serve` return at once. */
	stop() {
		this.#draining.abort();
		this.#stopped.abort();
	}
	/** Works for the gateway, and again whenever it comes back, until told to leave. */
	async serve() {
		const backoff = new Backoff();
		try {
			while (!this.isDraining) await this.#attempt(backoff);
		} finally {
			this.#slots.forEach((slot) => slot.close());
			this.#hear("left");
		}
	}
	async #attempt(backoff) {
		this.#hear("connecting");
		let waitS = 0;
		try {
			const link = await this.#connect();
			const why = await this.#workOver(link, backoff);
			if (this.isDraining) return;
			this.#hear("offline", why);
			waitS = backoff.next();
		} catch (error) {
			const isForPeople = error instanceof CapabilityError && FOR_PEOPLE.has(error.code);
			if (this.isDraining) return;
			this.#hear(isForPeople ? "refused" : "offline", error instanceof Error ? error.message : "it failed");
			waitS = isForPeople ? REFUSED_S * (.5 + Math.random() / 2) : backoff.next();
		}
		await aborted([this.#draining.signal], waitS);
	}
	#connect() {
		const { url, ticket, gateway, namespace } = this.#config;
		return connectWebSocket(url, this.#identity, {
			ticket,
			gateway,
			namespace,
			signal: this.#draining.signal
		});
	}
	/** Serves over one connection until it breaks or draining is done; returns why it ended. */
	async #workOver(link, backoff) {
		this.#link = link;
		const closed = new AbortController();
		const why = link.closed.then((reason) => {
			closed.abort();
			return reason;
		});
		try {
			const { registration, sender } = await this.#begin(link);
			backoff.reset();
			this.#gateway = link.peerId;
			this.#hear("joined");
			const offering = this.#slots.map((slot) => this.#offerForEver(slot, sender, closed.signal));
			await aborted([this.#draining.signal, closed.signal]);
			if (!closed.signal.aborted) await this.#leave(registration, offering, closed.signal);
		} finally {
			this.#sentBytes += link.traffic.sentBytes;
			this.#receivedBytes += link.traffic.receivedBytes;
			this.#link = null;
			link.close();
		}
		return await why;
	}
	/** Registers, and gets where offers go. A gateway that does not answer, or is not wanted any more, is hung up on. */
	async #begin(link) {
		const over = new AbortController();
		aborted([this.#draining.signal, over.signal], BEGIN_S).then(() => {
			if (!over.signal.aborted) link.close("the gateway does not answer a registration in time");
		});
		try {
			return {
				registration: await this.#register(link),
				sender: await link.connect("channel", Sender)
			};
		} catch (error) {
			throw error instanceof Disconnected ? new CapabilityError("peer", await link.closed) : error;
		} finally {
			over.abort();
		}
	}
	async #register(link) {
		return (await answered((await link.connect("registry", Registry)).register((params) => {
			describe(params._initInfo(), this.#config);
			params.pulse = serve(Pulse, { beat: () => void 0 });
		}))).registration;
	}
	/** Says goodbye, then waits for the slots in use to be given back. */
	async #leave(registration, offering, closed) {
		this.#hear("leaving", this.#taken.size ? `slots in use: ${this.#taken.size}` : void 0);
		const over = [closed, this.#stopped.signal];
		try {
			await answered(registration.leave(), AbortSignal.any([...over, AbortSignal.timeout(1e3 * this.#config.graceS)]));
		} catch {
			return;
		}
		if (this.#taken.size) {
			const finished = new AbortController();
			Promise.all(offering).then(() => finished.abort());
			await aborted([...over, finished.signal], this.#config.graceS);
		}
	}
	/** Sends an offer, waits for the slot to be given back, and so on until draining or the connection's end. */
	async #offerForEver(slot, sender, closed) {
		const over = AbortSignal.any([this.#draining.signal, closed]);
		while (!over.aborted) try {
			const lease = await this.#offer(slot, sender, over);
			this.#taken.add(slot);
			await lease.ended;
		} catch (error) {
			if (over.aborted || error instanceof Disconnected) return;
			this.#hear("joined", `the gateway does not take an offer: ${error instanceof Error ? error.message : ""}`);
			await aborted([over], OFFER_AGAIN_S);
		} finally {
			this.#taken.delete(slot);
		}
	}
	async #offer(slot, sender, over) {
		const lease = new Lease(this, slot);
		release(await answered(sender.send((params) => {
			const offer = initAs(Offer, params.value);
			offer.depth = 0;
			offer.worker = lease.worker;
		}), over));
		return lease;
	}
};
function describe(info, config) {
	info.kind = config.kind;
	info.slots = config.slots;
	info.cpus = config.cpus;
	info.memoryBytes = BigInt(config.memoryBytes);
	info.host = config.host;
	const labels = [...new Map([...config.labels, ["kind", config.kind]])];
	const list = info._initLabels(labels.length);
	labels.forEach(([key, value], index) => {
		const label = list.get(index);
		label.key = key;
		label.value = value;
	});
	const lacks = info._initLacks(LACKS.length);
	LACKS.forEach((word, index) => lacks.set(index, word));
}
/** Waits until one of them is aborted, and with a time no longer than that. */
function aborted(signals, withinS) {
	return new Promise((resolve) => {
		let timer;
		const end = () => {
			clearTimeout(timer);
			signals.forEach((signal) => signal.removeEventListener("abort", end));
			resolve();
		};
		signals.forEach((signal) => signal.addEventListener("abort", end));
		if (withinS !== void 0) timer = setTimeout(end, 1e3 * withinS);
		if (signals.some((signal) => signal.aborted)) end();
	});
}
// src/worker/ticket.ts
/** Reads a ticket alone, or .../p2p/PEER_ID/ticket/TICKET; null when it is neither. */
function parseTicket(text) {
	const match = /^(?:(?:\/\S*)?\/p2p\/(\w+)\/ticket\/)?(wwt1-[\w-]+)$/.exec(text.trim());
	return match && {
		ticket: match[2],
		gateway: match[1] ?? null
	};
}
// src/terminal/arguments.ts
var LEVELS = [
	"debug",
	"info",
	"warning",
	"error"
];
var SLOTS_MAX = 1024;
var LABELS_MAX = 32;
/** A command line that nothing can be done with, in one line. */
var WrongUsage = class extends Error {};
var HELP = `usage: worker.mjs URL [OPTIONS]

Offer this machine's slots to the gateway at URL, http(s)://HOST:PORT, and run there what it sends. Comes back when the
gateway goes away. The first ctrl-C lets running guests finish, the second stops at once.

  --slots N            runs at once (one per core)
  --dial PEER_ID       the gateway's peer id: nobody else is joined
  --key FILE           file of the key pair (a new key each start)
  --key-held           it is locked already, by a descriptor that this has inherited
  --ticket-file FILE   what ww ticket create printed; or the variable WW_TICKET
  --meta KEY=VALUE     label, what to say of this worker; repeatable
  --ns NAME            namespace (ww)
  --grace N            seconds running guests may take to finish when stopping (30)
  --log LEVEL          debug, info, warning or error (info)
  --log-json           log one JSON object a line
  --module-max N, --memory-max N, --duration-max N, --output-max N, --input-max N, --held-max N
                       as of ww worker: bytes, and seconds of one run
`;
var READ = new Map([
	["--slots", (value, options) => options.slots = whole(value, SLOTS_MAX)],
	["--dial", (value, options) => options.dial = peerId(value)],
	["--key", (value, options) => options.key = value],
	["--ticket-file", (value, options) => options.ticketFile = value],
	["--meta", (value, options) => label(value, options.labels)],
	["--ns", (value, options) => options.namespace = value],
	["--grace", (value, options) => options.graceS = seconds(value)],
	["--log", (value, options) => options.log = level(value)],
	["--duration-max", (value, options) => options.limits.durationMaxS = above0(seconds(value))],
	...[
		["--module-max", "moduleBytesMax"],
		["--memory-max", "memoryBytesMax"],
		["--output-max", "outputBytesMax"],
		["--input-max", "inputBytesMax"],
		["--held-max", "heldBytesMax"]
	].map(([flag, name]) => [flag, (value, options) => options.limits[name] = size(value)])
]);
/** Reads a command line; null when it asks for help. Throws WrongUsage. */
function readArguments(argv) {
	const words = [];
	const options = defaults();
	for (let at = 0; at < argv.length; at += 1) {
		const word = argv[at];
		if (word === "--help" || word === "-h") return null;
		if (!word.startsWith("-")) {
			words.push(word);
			continue;
		}
		const equals = word.indexOf("=");
		const flag = equals < 0 ? word : word.slice(0, equals);
		if (flag === "--log-json" && equals < 0) {
			options.logJson = true;
			continue;
		}
		if (flag === "--key-held" && equals < 0) {
			options.isKeyHeld = true;
			continue;
		}
		const read = READ.get(flag);
		const value = equals < 0 ? argv[at += 1] : word.slice(equals + 1);
		if (!read) throw new WrongUsage(`unrecognized argument ${shown(flag)}`);
		if (value === void 0) throw new WrongUsage(`argument ${flag}: expected a value`);
		readOne(flag, read, value, options);
	}
	if (words.length !== 1) throw new WrongUsage(`${words.length ? "one address too many" : "which gateway?"}: expected http://HOST:PORT, once`);
	options.gateway = httpUrl(words[0]);
	return options;
}
/** Returns where a gateway takes peers. */
function peerUrl(gateway) {
	return `${gateway.protocol === "https:" ? "wss" : "ws"}://${gateway.host}/peer`;
}
/** Reads what `ww ticket create` printed. */
function readTicket(text) {
	const ticket = parseTicket(text);
	if (!ticket) throw new WrongUsage("that is no ticket: expected one, as ww ticket create prints it");
	return ticket;
}
function defaults() {
	return {
		gateway: new URL("http://127.0.0.1:8080"),
		slots: null,
		dial: null,
		key: null,
		isKeyHeld: false,
		ticketFile: null,
		labels: /* @__PURE__ */ new Map(),
		namespace: "ww",
		graceS: 30,
		log: "info",
		logJson: false,
		limits: {}
	};
}
function readOne(flag, read, value, options) {
	try {
		read(value, options);
	} catch (error) {
		throw error instanceof WrongUsage ? new WrongUsage(`argument ${flag}: ${error.message}`) : error;
	}
}
function shown(text) {
	return JSON.stringify(text.slice(0, 80));
}
function httpUrl(text) {
	const url = URL.canParse(text) ? new URL(text) : null;
	if (!(url && (url.protocol === "http:" || url.protocol === "https:") && url.pathname === "/") || url.search || url.hash || url.username || url.password) throw new WrongUsage(`${shown(text)} is no address of a gateway: expected http://HOST:PORT`);
	if (url.protocol === "http:" && !isLoopback(url.hostname)) throw new WrongUsage(`${shown(text)}: another machine is not spoken with in the open: expected https://`);
	return url;
}
function isLoopback(host) {
	return host === "localhost" || host === "[::1]" || host.endsWith(".localhost") || /^127(\.\d+){3}$/.test(host);
}
function whole(text, most) {
	const number = /^\d{1,15}$/.test(text) ? Number(text) : 0;
	if (number < 1 || number > most) throw new WrongUsage(`${shown(text)}: expected a whole number from 1 to ${most}`);
	return number;
}
function seconds(text) {
	const match = /^(\d{1,9}(?:\.\d{1,6})?)([smhd]?)$/.exec(text);
	if (!match) throw new WrongUsage(`${shown(text)} is no time: expected seconds, or a number with s, m, h or d`);
	return Number(match[1]) * {
		"": 1,
		s: 1,
		m: 60,
		h: 3600,
		d: 86400
	}[match[2]];
}
function above0(timeS) {
	if (!timeS) throw new WrongUsage("expected a time above 0");
	return timeS;
}
function size(text) {
	const match = /^(\d{1,15})([KMGT]?)(?:iB|B)?$/.exec(text);
	const bytes = match ? Number(match[1]) * 1024 ** " KMGT".indexOf(match[2] || " ") : 0;
	if (!bytes) throw new WrongUsage(`${shown(text)} is no size: expected bytes, or a number with K, M, G or T`);
	return bytes;
}
function peerId(text) {
	if (!/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/.test(text)) throw new WrongUsage(`${shown(text)} is no peer id: expected 12D3KooW...`);
	return text;
}
function label(text, labels) {
	const match = /^([A-Za-z0-9][A-Za-z0-9._/-]{0,63})=([^\p{C}\p{Zl}\p{Zp}]{0,256})$/u.exec(text);
	if (!match) throw new WrongUsage(`${shown(text)} is not KEY=VALUE, with a key of letters, digits and . _ / -`);
	if (match[1] === "kind") throw new WrongUsage(`${shown(text)}: kind is said of every worker already`);
	labels.set(match[1], match[2]);
	if (labels.size > LABELS_MAX) throw new WrongUsage(`at most ${LABELS_MAX} are taken`);
}
function level(text) {
	if (!LEVELS.includes(text)) throw new WrongUsage(`${shown(text)} is not debug, info, warning or error`);
	return text;
}
// src/terminal/log.ts
var ORDER = [
	"debug",
	"info",
	"warning",
	"error"
];
var Log = class {
	#least;
	#asJson;
	#write;
	constructor(least, asJson, write = console.error) {
		this.#least = ORDER.indexOf(least);
		this.#asJson = asJson;
		this.#write = write;
	}
	info(message) {
		this.#log("info", message);
	}
	warning(message) {
		this.#log("warning", message);
	}
	#log(level, message) {
		if (ORDER.indexOf(level) < this.#least) return;
		const line = message.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ");
		this.#write(this.#asJson ? asJson(level, line) : `${clock(/* @__PURE__ */ new Date())} ${level.toUpperCase().padEnd(7)} ${line}`);
	}
};
function asJson(level, message) {
	const time = (/* @__PURE__ */ new Date()).toISOString().replace("Z", "+00:00");
	return JSON.stringify({
		time,
		level,
		logger: "ww.worker",
		message
	});
}
function clock(now) {
	return [
		now.getHours(),
		now.getMinutes(),
		now.getSeconds()
	].map((part) => String(part).padStart(2, "0")).join(":");
}
// src/worker/threads.ts
/** Makes a slot's end of a Web Worker. */
function portOf(worker) {
	return {
		post: (message, transfer) => worker.postMessage(message, transfer ?? []),
		onMessage: (hear) => {
			worker.onmessage = (event) => hear(event.data);
		},
		onError: (hear) => {
			worker.onerror = (event) => {
				event.preventDefault();
				hear(event.message || "its thread ended");
			};
			worker.onmessageerror = () => hear("its thread said what nobody can read");
		},
		terminate: () => worker.terminate()
	};
}
// src/terminal/machine.ts
var deno = globalThis.Deno;
var KIND = deno ? "deno" : "node";
/** Where the machine's may not be asked for: as much as a tab claims. */
var MEMORY_BYTES_CLAIMED = 4 * 2 ** 30;
/** Beside this file, wherever that was loaded from. Not a literal: it is built on its own. */
var here = import.meta.url;
var slotUrl = () => new URL("./slot.mjs", here);
/** Returns what starts a slot's thread. */
async function slotSpawner() {
	if (deno) return () => portOf(new Worker(slotUrl(), { type: "module" }));
	const { Worker: Thread } = await __vitePreload(async () => {
		const { Worker: Thread } = await import("node:worker_threads");
		return { Worker: Thread };
	}, []);
	return () => {
		const thread = new Thread(slotUrl());
		return {
			post: (message, transfer) => thread.postMessage(message, transfer ?? []),
			onMessage: (hear) => thread.on("message", hear),
			onError: (hear) => {
				thread.on("error", (error) => hear(error.message || "its thread failed"));
				thread.on("messageerror", () => hear("its thread said what nobody can read"));
				thread.on("exit", () => hear("its thread ended"));
			},
			terminate: () => {
				thread.removeAllListeners();
				thread.on("error", () => void 0);
				thread.terminate();
			}
		};
	};
}
var cores = () => deno ? navigator.hardwareConcurrency : availableParallelism();
/** Never 0: no run that says what memory it needs would come here. */
var memoryBytes = () => isGranted("systemMemoryInfo") ? totalmem() : MEMORY_BYTES_CLAIMED;
var hostName = () => isGranted("hostname") ? hostname() : "";
/** Returns a variable of the environment, where that may be read, and reads as little as that. */
function variable(name) {
	if (deno && deno.permissions.querySync({
		name: "env",
		variable: name
	}).state !== "granted") return;
	return process.env[name];
}
function isGranted(kind) {
	return !deno || deno.permissions.querySync({
		name: "sys",
		kind
	}).state === "granted";
}
// src/terminal/worker.ts
var NAME = "worker.mjs";
var FILE_BYTES_MAX = 4096;
async function main(argv) {
	const options = readArguments(argv);
	if (!options) {
		console.log(HELP.trimEnd());
		return 0;
	}
	if (typeof WebSocket === "undefined") throw new Error("this Node has no WebSocket: expected Node 22, or node --experimental-websocket");
	const log = new Log(options.log, options.logJson);
	const limits = {
		...DEFAULTS,
		...options.limits
	};
	const config = configOf(options, limits);
	const identity = await terminalIdentity(options.key ?? void 0, options.isKeyHeld);
	const sandbox = new Sandbox(await slotSpawner(), new MemoryStore(), limits);
	log.info(`worker ${identity.peerId}`);
	const joining = new Joining(identity, sandbox, config, said(log, config, () => joining.gateway));
	onStopSignals([() => joining.drain(), () => process.exit(130)]);
	await joining.serve();
	identity.close();
	return 0;
}
function configOf(options, limits) {
	const ticket = ticketOf(options);
	if (ticket?.gateway && options.dial && ticket.gateway !== options.dial) throw new WrongUsage(`argument --dial: the ticket is of ${ticket.gateway}`);
	const slots = options.slots ?? cores();
	return {
		url: peerUrl(options.gateway),
		slots,
		ticket: ticket?.ticket,
		gateway: options.dial ?? ticket?.gateway ?? void 0,
		namespace: options.namespace,
		kind: KIND,
		labels: options.labels,
		cpus: Math.max(slots, cores()),
		memoryBytes: memoryBytes(),
		host: hostName(),
		limits,
		graceS: options.graceS
	};
}
function ticketOf(options) {
	const path = options.ticketFile;
	if (path === null) {
		const text = variable("WW_TICKET");
		return text ? readTicket(text) : null;
	}
	let text;
	try {
		const { mode, size } = statSync(path);
		if (mode & 63 || size > FILE_BYTES_MAX) throw new WrongUsage("argument --ticket-file: expected a file of mode 0600 that holds one ticket");
		text = readFileSync(path, "utf-8");
	} catch (error) {
		throw error instanceof WrongUsage ? error : new WrongUsage("argument --ticket-file: that file cannot be read");
	}
	return readTicket(text);
}
/** Logs what becomes of the worker; what was said last is not said again. */
function said(log, config, gateway) {
	let last = "";
	return (state, detail) => {
		if (state === "joined" && detail === void 0) {
			last = "";
			log.info(`joined gateway ${gateway() ?? ""} with ${config.slots} slots`);
		} else if (state === "leaving") log.info(detail ? `stopping: ${detail}, waiting up to ${config.graceS} s` : "stopping");
		else if (detail !== void 0 && detail !== last) {
			last = detail;
			log.warning(state === "joined" ? detail : `${detail}; trying again`);
		}
	};
}
/** Does the first thing at the first SIGINT or SIGTERM, and the next one at the next. */
function onStopSignals(steps) {
	for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => steps.shift()?.());
}
try {
	process.exit(await main(process.argv.slice(2)));
} catch (error) {
	const line = error instanceof Error ? error.message : String(error);
	console.error(error instanceof WrongUsage ? `${NAME}: ${line} (see ${NAME} --help)` : `${NAME}: ${line}`);
	process.exit(error instanceof WrongUsage ? 2 : 1);
}
