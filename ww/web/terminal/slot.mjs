import { A as abool, C as PAGE_BYTES, F as checkOpts, H as u32, I as clean, L as createHasher, M as aexists, N as anumber, O as lineOf, P as aoutput, S as Writer, T as WASI_MODULE, V as swap32IfBE, W as split, _ as writeOutcome, b as newResult, c as Stream, d as MEMORY_NAME, h as readInput, j as abytes, k as oneLine, l as WASI, n as Control, o as Input, s as Output, t as __vitePreload, u as WASIProcExit, w as WASI_FUNCTIONS, z as oidNist } from "./preload-helper.mjs";
// src/sandbox/memory.ts
/** What is larger costs more to clear than to make anew. */
var REUSED_BYTES_MAX = 4 << 20;
/** Tries to make one, and how long is waited after the first; then twice as long, and so on: half a second in all. */
var TRIES_MAX = 9;
var PAUSE_MS = 1;
var Memories = class {
	#make;
	#pause;
	#spare = null;
	#bounds = {
		initial: 0,
		maximum: 0
	};
	constructor(make = (bounds) => new WebAssembly.Memory(bounds), pause = pauseThread) {
		this.#make = make;
		this.#pause = pause;
	}
	/**
	* Returns an empty memory for a run that may have so many bytes; the caller has seen that it begins with no more.
	* Throws RangeError when the engine has none.
	*/
	take({ memory }, bytesMax) {
		if (!memory) return null;
		const bounds = {
			initial: memory.minimum,
			maximum: Math.min(memory.maximum, Math.floor(bytesMax / PAGE_BYTES))
		};
		const spare = this.#spare;
		this.#spare = null;
		this.#bounds = bounds;
		if (spare && spare.bounds.initial === bounds.initial && spare.bounds.maximum === bounds.maximum) return spare.memory;
		return this.#made(bounds);
	}
	/** Keeps the memory that was taken last for the next run, cleared, when that is worth it. Its run has ended. */
	giveBack(memory) {
		const bytes = this.#bounds.initial * PAGE_BYTES;
		if (bytes <= REUSED_BYTES_MAX && memory.buffer.byteLength === bytes) {
			new Uint8Array(memory.buffer).fill(0);
			this.#spare = {
				memory,
				bounds: this.#bounds
			};
		}
	}
	#made(bounds) {
		for (let tries = 1;; tries++) try {
			return this.#make(bounds);
		} catch (error) {
			if (!(error instanceof RangeError) || tries >= TRIES_MAX) throw error;
			this.#pause(PAUSE_MS * 2 ** (tries - 1));
		}
	}
};
/** Holds this thread up, which runs guests and nothing else. */
function pauseThread(milliseconds) {
	if (typeof SharedArrayBuffer !== "undefined") {
		Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
		return;
	}
	const endMs = performance.now() + milliseconds;
	while (performance.now() < endMs);
}
// node_modules/@noble/hashes/sha3.js
/**
* SHA3 (keccak) hash function, based on a new "Sponge function" design.
* Different from older hashes, the internal state is bigger than output size.
*
* Check out
* {@link https://nvlpubs.nist.gov/nistpubs/FIPS/NIST.FIPS.202.pdf | FIPS-202},
* {@link https://keccak.team/keccak.html | Website}, and
* {@link https://crypto.stackexchange.com/q/15727 | the differences between
* SHA-3 and Keccak}.
*
* Check out `sha3-addons` module for cSHAKE, k12, and others.
* @module
*/
var _0n = BigInt(0);
var _1n = BigInt(1);
var _2n = BigInt(2);
var _7n = BigInt(7);
var _256n = BigInt(256);
var _0x71n = BigInt(113);
var SHA3_PI = [];
var SHA3_ROTL = [];
var _SHA3_IOTA = [];
for (let round = 0, R = _1n, x = 1, y = 0; round < 24; round++) {
	[x, y] = [y, (2 * x + 3 * y) % 5];
	SHA3_PI.push(2 * (5 * y + x));
	SHA3_ROTL.push((round + 1) * (round + 2) / 2 % 64);
	let t = _0n;
	for (let j = 0; j < 7; j++) {
		R = (R << _1n ^ (R >> _7n) * _0x71n) % _256n;
		if (R & _2n) t ^= _1n << (_1n << BigInt(j)) - _1n;
	}
	_SHA3_IOTA.push(t);
}
var IOTAS = split(_SHA3_IOTA, true);
var SHA3_IOTA_H = IOTAS[0];
var SHA3_IOTA_L = IOTAS[1];
var rotlSH = (h, l, s) => h << s | l >>> 32 - s;
var rotlSL = (h, l, s) => l << s | h >>> 32 - s;
var rotlBH = (h, l, s) => l << s - 32 | h >>> 64 - s;
var rotlBL = (h, l, s) => h << s - 32 | l >>> 64 - s;
var rotlH = (h, l, s) => s > 32 ? rotlBH(h, l, s) : rotlSH(h, l, s);
var rotlL = (h, l, s) => s > 32 ? rotlBL(h, l, s) : rotlSL(h, l, s);
var B = /* @__PURE__ */ new Uint32Array(10);
/**
* `keccakf1600` internal permutation, additionally allows adjusting the round count.
* @param s - 5x5 Keccak state encoded as 25 lanes split into 50 uint32 words
*   in this file's local little-endian lane-word order
* @param rounds - number of rounds to execute
* @throws On wrong argument types. {@link TypeError}
* @throws On wrong argument ranges or values. {@link RangeError}
* @throws If `rounds` is outside the supported `1..24` range. {@link Error}
* @example
* Permute a Keccak state with the default 24 rounds.
* ```ts
* keccakP(new Uint32Array(50));
* ```
*/
function keccakP(s, rounds = 24) {
	if (!(s instanceof Uint32Array)) throw new TypeError("\"s\" expected Uint32Array(50), got type=" + typeof s);
	if (s.length !== 50) throw new RangeError("\"s\" expected Uint32Array(50), got length=" + s.length);
	anumber(rounds, "rounds");
	if (rounds < 1 || rounds > 24) throw new Error("\"rounds\" expected integer 1..24");
	for (let round = 24 - rounds; round < 24; round++) {
		for (let x = 0; x < 10; x++) B[x] = s[x] ^ s[x + 10] ^ s[x + 20] ^ s[x + 30] ^ s[x + 40];
		for (let x = 0; x < 10; x += 2) {
			const idx1 = (x + 8) % 10;
			const idx0 = (x + 2) % 10;
			const B0 = B[idx0];
			const B1 = B[idx0 + 1];
			const Th = rotlH(B0, B1, 1) ^ B[idx1];
			const Tl = rotlL(B0, B1, 1) ^ B[idx1 + 1];
			for (let y = 0; y < 50; y += 10) {
				s[x + y] ^= Th;
				s[x + y + 1] ^= Tl;
			}
		}
		let curH = s[2];
		let curL = s[3];
		for (let t = 0; t < 24; t++) {
			const shift = SHA3_ROTL[t];
			const Th = rotlH(curH, curL, shift);
			const Tl = rotlL(curH, curL, shift);
			const PI = SHA3_PI[t];
			curH = s[PI];
			curL = s[PI + 1];
			s[PI] = Th;
			s[PI + 1] = Tl;
		}
		for (let y = 0; y < 50; y += 10) {
			const b0 = s[y], b1 = s[y + 1], b2 = s[y + 2], b3 = s[y + 3];
			s[y] ^= ~s[y + 2] & s[y + 4];
			s[y + 1] ^= ~s[y + 3] & s[y + 5];
			s[y + 2] ^= ~s[y + 4] & s[y + 6];
			s[y + 3] ^= ~s[y + 5] & s[y + 7];
			s[y + 4] ^= ~s[y + 6] & s[y + 8];
			s[y + 5] ^= ~s[y + 7] & s[y + 9];
			s[y + 6] ^= ~s[y + 8] & b0;
			s[y + 7] ^= ~s[y + 9] & b1;
			s[y + 8] ^= ~b0 & b2;
			s[y + 9] ^= ~b1 & b3;
		}
		s[0] ^= SHA3_IOTA_H[round];
		s[1] ^= SHA3_IOTA_L[round];
	}
	clean(B);
}
/**
* Keccak sponge function.
* @param blockLen - absorb/squeeze rate in bytes
* @param suffix - domain separation suffix byte
* @param outputLen - default digest length in bytes. This base sponge only
*   requires a non-negative integer; wrappers that need positive output
*   lengths must enforce that themselves.
* @param enableXOF - whether XOF output is allowed
* @param rounds - number of Keccak-f rounds
* @example
* Build a sponge state, absorb bytes, then finalize a digest.
* ```ts
* const hash = new Keccak(136, 0x06, 32);
* hash.update(new Uint8Array([1, 2, 3]));
* hash.digest();
* ```
*/
var Keccak = class Keccak {
	state;
	pos = 0;
	posOut = 0;
	finished = false;
	state32;
	destroyed = false;
	blockLen;
	suffix;
	outputLen;
	canXOF;
	enableXOF = false;
	rounds;
	constructor(blockLen, suffix, outputLen, enableXOF = false, rounds = 24) {
		anumber(blockLen, "blockLen");
		anumber(suffix, "suffix");
		anumber(rounds, "rounds");
		abool(enableXOF, "enableXOF");
		this.blockLen = blockLen;
		this.suffix = suffix;
		this.outputLen = outputLen;
		this.enableXOF = enableXOF;
		this.canXOF = enableXOF;
		this.rounds = rounds;
		anumber(outputLen, "outputLen");
		if (!(0 < blockLen && blockLen < 200)) throw new Error("\"blockLen\" must be 1..199");
		this.state = /* @__PURE__ */ new Uint8Array(200);
		this.state32 = u32(this.state);
	}
	clone() {
		return this._cloneInto();
	}
	keccak() {
		swap32IfBE(this.state32);
		keccakP(this.state32, this.rounds);
		swap32IfBE(this.state32);
		this.posOut = 0;
		this.pos = 0;
	}
	update(data) {
		aexists(this);
		abytes(data);
		const { blockLen, state, state32 } = this;
		const len = data.length;
		const canUseU32 = blockLen % 4 === 0 && data.byteOffset % 4 === 0;
		const blockLen32 = blockLen / 4;
		const data32 = canUseU32 && len >= blockLen ? u32(data) : void 0;
		for (let pos = 0; pos < len;) {
			if (data32 !== void 0 && this.pos === 0 && pos % 4 === 0 && len - pos >= blockLen) {
				for (let i = 0, o = pos / 4; i < blockLen32; i++) state32[i] ^= data32[o + i];
				pos += blockLen;
				this.pos = blockLen;
				this.keccak();
				continue;
			}
			const take = Math.min(blockLen - this.pos, len - pos);
			for (let i = 0; i < take; i++) state[this.pos++] ^= data[pos++];
			if (this.pos === blockLen) this.keccak();
		}
		return this;
	}
	finish() {
		if (this.finished) return;
		this.finished = true;
		const { state, suffix, pos, blockLen } = this;
		state[pos] ^= suffix;
		if ((suffix & 128) !== 0 && pos === blockLen - 1) this.keccak();
		state[blockLen - 1] ^= 128;
		this.keccak();
	}
	writeInto(out) {
		aexists(this, false);
		abytes(out);
		this.finish();
		const bufferOut = this.state;
		const { blockLen } = this;
		for (let pos = 0, len = out.length; pos < len;) {
			if (this.posOut >= blockLen) this.keccak();
			const take = Math.min(blockLen - this.posOut, len - pos);
			out.set(bufferOut.subarray(this.posOut, this.posOut + take), pos);
			this.posOut += take;
			pos += take;
		}
		return out;
	}
	xofInto(out) {
		if (!this.enableXOF) throw new Error("XOF is not enabled");
		return this.writeInto(out);
	}
	xof(bytes) {
		anumber(bytes);
		return this.xofInto(new Uint8Array(bytes));
	}
	digestInto(out) {
		aoutput(out, this);
		if (this.finished) throw new Error("digest() was already called");
		this.writeInto(out.length === this.outputLen ? out : out.subarray(0, this.outputLen));
		this.destroy();
	}
	digest() {
		const out = new Uint8Array(this.outputLen);
		this.digestInto(out);
		return out;
	}
	destroy() {
		this.destroyed = true;
		clean(this.state);
	}
	_cloneInto(to) {
		const { blockLen, suffix, outputLen, rounds, enableXOF } = this;
		to ||= new Keccak(blockLen, suffix, outputLen, enableXOF, rounds);
		to.blockLen = blockLen;
		to.state32.set(this.state32);
		to.pos = this.pos;
		to.posOut = this.posOut;
		to.finished = this.finished;
		to.rounds = rounds;
		to.suffix = suffix;
		to.outputLen = outputLen;
		to.enableXOF = enableXOF;
		to.canXOF = this.canXOF;
		to.destroyed = this.destroyed;
		return to;
	}
};
var genShake = (suffix, blockLen, outputLen, info = {}) => createHasher((opts = {}) => {
	opts = checkOpts({}, opts);
	return new Keccak(blockLen, suffix, opts.dkLen === void 0 ? outputLen : opts.dkLen, true);
}, info);
/**
* SHAKE256 XOF with 256-bit security and a 32-byte default output.
* @param msg - message bytes to hash
* @param opts - Optional output-length override. See {@link ShakeOpts}.
* @returns Digest bytes.
* @example
* Hash a message with SHAKE256.
* ```ts
* shake256(new Uint8Array([97, 98, 99]), { dkLen: 64 });
* ```
*/
var shake256 = /* @__PURE__ */ genShake(31, 136, 32, /* @__PURE__ */ oidNist(12));
// src/sandbox/determinism.ts
/** When every deterministic run begins: 2020-01-01T00:00:00Z, in nanoseconds since 1970. */
var START_NS = 1577836800n * 1000000000n;
/** What one reading of a clock takes, so that a loop that waits for a time to come ends. */
var STEP_NS = 10000n;
/** Nothing sleeps for longer than this after START_NS, so that sums stay within 64 bits. */
var END_NS = 1n << 62n;
var BLOCK_BYTES = 1024;
/** A clock that goes on when it is read, and when somebody would sleep. */
var VirtualClock = class {
	/** Since the run began. */
	elapsedNs = 0n;
	/** Returns the time since the run began, never zero and never the same again. */
	readNs() {
		this.elapsedNs += STEP_NS;
		return this.elapsedNs;
	}
	/** Is there at once; never goes back. */
	sleepUntil(timeNs) {
		const until = timeNs < END_NS ? timeNs : END_NS;
		if (until > this.elapsedNs) this.elapsedNs = until;
	}
};
/**
* Random bytes by seed: SHAKE256 in counter mode (FIPS 202). Block i, of 1,024 bytes, is
* SHAKE256("ww random" || seed || i), both numbers as 8 bytes, little-endian. How it is cut into reads changes nothing.
*/
var RandomStream = class {
	#name = /* @__PURE__ */ new Uint8Array(25);
	#numbers = new DataView(this.#name.buffer);
	#counter = 0n;
	#block = /* @__PURE__ */ new Uint8Array(0);
	/** seed counts modulo 2**64. */
	constructor(seed) {
		this.#name.set(new TextEncoder().encode("ww random"));
		this.#numbers.setBigUint64(9, BigInt.asUintN(64, seed), true);
	}
	/** Fills target with the next bytes of the stream. */
	fill(target) {
		for (let at = 0; at < target.length;) {
			if (!this.#block.length) {
				this.#numbers.setBigUint64(17, this.#counter++, true);
				this.#block = shake256(this.#name, { dkLen: BLOCK_BYTES });
			}
			const part = this.#block.subarray(0, target.length - at);
			target.set(part, at);
			at += part.length;
			this.#block = this.#block.subarray(part.length);
		}
	}
};
// src/sandbox/trap.ts
/** Thrown by a function of ours to end the guest by a trap. */
var GuestEnd = class {
	detail;
	constructor(detail) {
		this.detail = detail;
	}
};
/**
* V8 says of a call by table one thing where wasmtime has two, until version 13, and so of a float that is no integer:
* what is more common of the two stands here.
*/
var TRAPS = [
	[/unreachable/i, "unreachable"],
	[/call stack|too much recursion|stack overflow/i, "stack_overflow"],
	[/(divide|remainder|division|modulo).*zero/i, "integer_division_by_zero"],
	[/divide result unrepresentable|integer overflow|division.*overflow/i, "integer_overflow"],
	[/invalid conversion to integer/i, "bad_conversion_to_integer"],
	[/float unrepresentable|out of bounds trunc|out-of-range/i, "integer_overflow"],
	[/null function|indirect call to null|null table entry|null entry/i, "indirect_call_to_null"],
	[/signature/i, "bad_signature"],
	[/(table|element).*(out of bounds|out of range)|out of bounds.*(table|call_indirect)/i, "table_out_of_bounds"],
	[/(memory|data).*out of bounds|out of bounds.*memory|index out of bounds/i, "memory_out_of_bounds"]
];
/** Returns what a trap of the engine is called. */
function trapOf(error) {
	const said = error instanceof Error ? error.message : String(error);
	return TRAPS.find(([pattern]) => pattern.test(said))?.[1] ?? oneLine(said);
}
/** Whether what was thrown says that the stack was at its end, which the guest's own calls or ours may have met. */
function isStackOverflow(error) {
	return (error instanceof RangeError || error instanceof Error && error.name === "InternalError") && /call stack|too much recursion/i.test(error.message);
}
// src/sandbox/guest_memory.ts
var GuestMemory = class {
	#memory = null;
	#buffer = null;
	#view = /* @__PURE__ */ new DataView(/* @__PURE__ */ new ArrayBuffer(0));
	#bytes = /* @__PURE__ */ new Uint8Array(0);
	/** The memory of the next run; null: it shows none. */
	begin(memory) {
		this.#memory = memory;
		this.#buffer = null;
	}
	get isThere() {
		return this.#memory !== null;
	}
	#look() {
		const buffer = this.#memory.buffer;
		if (buffer !== this.#buffer) {
			this.#view = new DataView(buffer);
			this.#bytes = new Uint8Array(buffer);
			this.#buffer = buffer;
		}
	}
	get view() {
		this.#look();
		return this.#view;
	}
	/** Returns that part of it. Ends the guest when it is not all there, or not aligned. */
	part(start, size, alignment = 1) {
		this.check(start, size, alignment);
		return this.#bytes.subarray(start, start + size);
	}
	check(start, size, alignment = 1) {
		this.#look();
		if (start + size > this.#bytes.length) throw new GuestEnd(`Pointer out of bounds: ${region(start, size)}`);
		if (start % alignment) throw new GuestEnd(`Pointer not aligned to ${alignment}: ${region(start, size)}`);
	}
	/** Does the same for a function that wasmtime lends us the place of, in whose name it then speaks. */
	checkFor(name, start, size, alignment = 1) {
		this.#look();
		if (start + size > this.#bytes.length) throw new GuestEnd(`${name}: pointer out of bounds`);
		if (start % alignment) throw new GuestEnd(`${name}: pointer not aligned`);
	}
	setUint32(at, value) {
		this.check(at, 4, 4);
		this.#view.setUint32(at, value, true);
	}
	setUint64(at, value) {
		this.check(at, 8, 8);
		this.#view.setBigUint64(at, value, true);
	}
	/**
	* Returns the first part that is not empty of those that `count` of the guest's vectors name, read at `at`. All are
	* looked at, and none kept: a guest may have millions.
	*/
	firstVector(at, count) {
		let start = 0;
		let size = 0;
		for (let index = 0; index < count; index++) {
			const vector = at + 8 * index;
			this.check(vector, 4, 4);
			this.check(vector + 4, 4, 4);
			if (!size) {
				start = this.#view.getUint32(vector, true);
				size = this.#view.getUint32(vector + 4, true);
			}
		}
		return size ? [start, size] : [0, 0];
	}
};
function region(start, size) {
	return `Region { start: ${start}, len: ${size} }`;
}
// src/sandbox/poll.ts
var SUBSCRIPTION_BYTES = 48;
var EVENT_BYTES = 32;
var SUBSCRIPTIONS_MAX = 512;
/** What a timer of 32 bits can hold, in milliseconds. */
var WAIT_MAX_MS = 2 ** 31 - 1;
/** Sleeps in this thread without using the processor, where the page may. */
function sleepMs(milliseconds) {
	if (typeof SharedArrayBuffer !== "undefined") {
		Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
		return;
	}
	for (const end = performance.now() + milliseconds; performance.now() < end;);
}
function hostNowNs(host) {
	return host.clock ? host.clock.elapsedNs : BigInt(Math.round(performance.now() * 1e6));
}
function pollOneoff(host, given, out, count, result) {
	if (count === 0) return 28;
	if (count > SUBSCRIPTIONS_MAX) return 48;
	const { memory } = host;
	memory.checkFor("poll_oneoff", given, SUBSCRIPTION_BYTES * count, 8);
	memory.checkFor("poll_oneoff", out, EVENT_BYTES * count, 8);
	memory.checkFor("poll_oneoff", result, 4, 4);
	const waiting = [];
	const elapsedNs = hostNowNs(host);
	for (let index = 0; index < count; index++) {
		const read = subscription(host, given + SUBSCRIPTION_BYTES * index, elapsedNs);
		if (typeof read === "number") return read;
		waiting.push(read);
	}
	const events = happened(host, waiting);
	events.forEach((event, index) => writeEvent(memory.view, out + EVENT_BYTES * index, event));
	memory.view.setUint32(result, events.length, true);
	return 0;
}
/** Reads what the guest waits for, or returns an errno. */
function subscription(host, at, elapsedNs) {
	const { view } = host.memory;
	const userdata = view.getBigUint64(at, true);
	const type = view.getUint8(at + 8);
	const subject = view.getUint32(at + 16, true);
	if (type > 2) return 28;
	if (type !== 0) return host.isOpen(subject, type === 1) ? {
		userdata,
		type,
		dueNs: null
	} : 8;
	const timeoutNs = view.getBigUint64(at + 24, true);
	const flags = view.getUint16(at + 40, true);
	if (subject > 1 || flags > 1) return 28;
	if (!flags) return {
		userdata,
		type,
		dueNs: elapsedNs + timeoutNs
	};
	const started = host.guestNowNs(subject);
	return {
		userdata,
		type,
		dueNs: hostNowNs(host) + timeoutNs - started
	};
}
/** Waits for the first of them, and returns all that there are: descriptors are always ready. */
function happened(host, waiting) {
	const clocks = waiting.flatMap(({ dueNs }) => dueNs === null ? [] : [dueNs]);
	if (clocks.length === waiting.length) waitUntil(host, clocks.reduce((first, due) => due < first ? due : first));
	const elapsedNs = hostNowNs(host);
	return waiting.filter(({ dueNs }) => dueNs === null || dueNs <= elapsedNs);
}
function waitUntil(host, dueNs) {
	if (host.clock) {
		host.clock.sleepUntil(dueNs);
		return;
	}
	for (let leftNs = dueNs - hostNowNs(host); leftNs > 0n; leftNs = dueNs - hostNowNs(host)) sleepMs(Math.min(Number(leftNs) / 1e6, WAIT_MAX_MS));
}
function writeEvent(view, at, event) {
	const isClock = event.type === 0;
	view.setBigUint64(at, event.userdata, true);
	view.setUint16(at + 8, 0, true);
	view.setUint8(at + 10, event.type);
	for (let padding = 11; padding < 16; padding++) view.setUint8(at + padding, 0);
	view.setBigUint64(at + 16, isClock ? 0n : 1n, true);
	view.setBigUint64(at + 24, 0n, true);
}
// src/sandbox/preview1.ts
var CLOCKS = 4;
/** Between guest and host in one call. */
var COPIED_BYTES_MAX = 64 << 20;
/** What crypto.getRandomValues gives at a time. */
var RANDOM_PIECE_BYTES = 65536;
var VECTORS_MAX = 1 << 24;
var SIGNALS = 31;
var RIGHTS_MASK = (1n << 30n) - 1n;
var PROGRAM_NAME = "main.wasm";
var ENCODER = new TextEncoder();
var UTF8 = new TextDecoder("utf-8", { fatal: true });
var Preview1 = class extends WASI {
	memory = new GuestMemory();
	clock = null;
	#random = null;
	#texts = {
		args: [],
		env: []
	};
	#given = {};
	constructor() {
		super([], [], []);
		const ours = {
			...this.#process(),
			...this.#time(),
			...this.#streams(),
			...this.#descriptors(),
			...this.#none()
		};
		for (const name of Object.keys(WASI_FUNCTIONS)) this.wasiImport[name] = this.#guarded(name, ours[name]);
	}
	/** Begins a run. */
	begin(world) {
		this.fds = [...world.streams];
		this.memory.begin(world.memory);
		this.clock = world.seed === null ? null : new VirtualClock();
		this.#random = world.seed === null ? null : new RandomStream(world.seed);
		if (this.#given.args !== world.args) this.#texts.args = [PROGRAM_NAME, ...world.args].map((text) => ENCODER.encode(`${text}\0`));
		if (this.#given.env !== world.env) this.#texts.env = world.env.map(([name, value]) => ENCODER.encode(`${name}=${value}\0`));
		this.#given = {
			args: world.args,
			env: world.env
		};
	}
	/** Returns the function as a guest may call it: with unsigned numbers, and with nothing thrown but its end. */
	#guarded(name, call) {
		if (!call) throw new Error(`no ${name}`);
		const needsMemory = name !== "proc_exit";
		return (...given) => {
			try {
				if (needsMemory && !this.memory.isThere) throw new GuestEnd(name === "poll_oneoff" ? "poll_oneoff: exports no memory" : "missing required memory export");
				for (let index = 0; index < given.length; index++) {
					const value = given[index];
					if (typeof value === "number") given[index] = value >>> 0;
				}
				return call(...given);
			} catch (error) {
				if (error instanceof GuestEnd || error instanceof WASIProcExit || isStackOverflow(error)) throw error;
				throw new GuestEnd("host function failed");
			}
		};
	}
	#process() {
		const write = (which, pointers, data) => {
			for (const text of this.#texts[which]) {
				this.memory.setUint32(pointers, data);
				this.memory.check(data, text.length - 1);
				this.memory.check(data + text.length - 1, 1);
				this.memory.part(data, text.length).set(text);
				pointers += 4;
				data += text.length;
			}
			return 0;
		};
		const sizes = (which, count, size) => {
			const texts = this.#texts[which];
			this.memory.setUint32(count, texts.length);
			this.memory.setUint32(size, texts.reduce((sum, text) => sum + text.length, 0));
			return 0;
		};
		return {
			args_get: (pointers, data) => write("args", pointers, data),
			args_sizes_get: (count, size) => sizes("args", count, size),
			environ_get: (pointers, data) => write("env", pointers, data),
			environ_sizes_get: (count, size) => sizes("env", count, size),
			proc_exit: (code) => {
				throw new WASIProcExit(code);
			},
			proc_raise: (signal) => known("enum", "Signal", signal < SIGNALS, 58),
			sched_yield: () => 0
		};
	}
	#time() {
		return {
			clock_res_get: (id, at) => this.#tell("clock_res_get", id, at, () => this.clock ? STEP_NS : 1000n),
			clock_time_get: (id, _precision, at) => {
				const read = () => this.clock ? this.clock.readNs() + this.#startNs(id) : this.guestNowNs(id);
				return this.#tell("clock_time_get", id, at, read);
			},
			poll_oneoff: (given, out, count, result) => pollOneoff(this, given, out, count, result),
			random_get: (at, size) => this.#randomGet(at, size)
		};
	}
	#tell(name, id, at, read) {
		if (this.clock) this.memory.checkFor(name, at, 8, 8);
		else known("enum", "Clockid", id < CLOCKS);
		if (id > 1) return id < CLOCKS ? 8 : 28;
		this.memory.setUint64(at, read());
		return 0;
	}
	#startNs(id) {
		return id === 0 ? START_NS : 0n;
	}
	guestNowNs(id) {
		if (this.clock) return this.clock.elapsedNs + this.#startNs(id);
		const now = performance.now();
		if (id === 1) return BigInt(Math.round(now * 1e6));
		return BigInt(Date.now()) * 1000000n;
	}
	#randomGet(at, size) {
		if (this.#random) {
			this.memory.checkFor("random_get", at, size);
			this.#random.fill(this.memory.part(at, size));
			return 0;
		}
		if (size > COPIED_BYTES_MAX) throw new GuestEnd(`requested len ${size} exceeds limit ${COPIED_BYTES_MAX}`);
		const target = this.memory.part(at, size);
		for (let done = 0; done < size; done += RANDOM_PIECE_BYTES) crypto.getRandomValues(target.subarray(done, done + RANDOM_PIECE_BYTES));
		return 0;
	}
	#stream(fd) {
		const found = this.fds[fd];
		return found instanceof Stream ? found : void 0;
	}
	isOpen(fd, isInput) {
		return this.#stream(fd)?.isInput === isInput;
	}
	/** Returns what the shim does with a descriptor that there is, and the errno of none otherwise. */
	#of(fd, use) {
		const stream = this.#stream(fd);
		return stream ? use(stream) : 8;
	}
	#streams() {
		return {
			fd_read: (fd, at, count, result) => this.#read(fd, at, count, result),
			fd_write: (fd, at, count, result) => this.#write(fd, at, count, result),
			fd_pread: (fd, at, count) => this.#transfer(fd, true, at, count, () => 70),
			fd_pwrite: (fd, at, count) => this.#transfer(fd, false, at, count, () => 70),
			fd_seek: (fd, _offset, whence) => {
				known("enum", "Whence", whence < 3);
				return this.#of(fd, () => 70);
			},
			fd_tell: (fd) => this.#of(fd, () => 70)
		};
	}
	/** Uses the first part that is not empty, as wasmtime has it, of a stream that is the right way round. */
	#transfer(fd, isInput, at, count, use) {
		if (count > VECTORS_MAX) return 48;
		const [start, size] = this.memory.firstVector(at, count);
		const stream = this.#stream(fd);
		if (stream?.isInput !== isInput) return 8;
		return size > COPIED_BYTES_MAX ? 48 : use(stream, this.memory.part(start, size));
	}
	#read(fd, at, count, result) {
		return this.#transfer(fd, true, at, count, (stream, into) => {
			if (count === 0) return 27;
			const { data } = stream.fd_read(into.length);
			into.set(data);
			this.memory.setUint32(result, data.length);
			return 0;
		});
	}
	#write(fd, at, count, result) {
		return this.#transfer(fd, false, at, count, (stream, data) => {
			this.memory.setUint32(result, data.length ? stream.fd_write(data).nwritten : 0);
			return 0;
		});
	}
	#descriptors() {
		const isNoSocket = (fd) => this.#of(fd, () => 57);
		return {
			fd_close: (fd) => this.#of(fd, () => (delete this.fds[fd], 0)),
			fd_fdstat_get: (fd, at) => this.#of(fd, (stream) => {
				this.memory.check(at, 1);
				this.memory.check(at + 2, 2, 2);
				this.memory.part(at, 24, 8).fill(0);
				stream.fd_fdstat_get().fdstat.write_bytes(this.memory.view, at);
				return 0;
			}),
			fd_filestat_get: (fd, at) => {
				this.#checkFirst("fd_filestat_get", [
					at,
					64,
					8
				]);
				return this.#of(fd, () => {
					this.memory.check(at, 8, 8);
					this.memory.part(at, 64, 8).fill(0);
					return 0;
				});
			},
			fd_prestat_dir_name: (fd) => this.#of(fd, () => 54),
			fd_renumber: (from, to) => this.#of(from, (stream) => {
				if (!this.#stream(to)) return 8;
				delete this.fds[from];
				this.fds[to] = stream;
				return 0;
			}),
			sock_accept: (fd, flags) => known("flag", "Fdflags", flags < 32, isNoSocket(fd)),
			sock_recv: (fd, _at, _count, flags) => known("flag", "Riflags", flags < 4, isNoSocket(fd)),
			sock_send: isNoSocket,
			sock_shutdown: (fd, how) => known("flag", "Sdflags", how < 4, isNoSocket(fd))
		};
	}
	/** Looks at pointers before all else where a deterministic run's functions are not wasmtime's own. */
	#checkFirst(name, ...regions) {
		if (this.clock) regions.forEach((region) => this.memory.checkFor(name, ...region));
	}
	#pathError(at, size) {
		const path = this.memory.part(at, size);
		try {
			UTF8.decode(path);
			return 0;
		} catch {
			return 25;
		}
	}
	/** What is of files alone, of which there is none: nothing that a descriptor is can do it. */
	#none() {
		const none = () => 8;
		const flagged = (kind, at, most) => (given) => known("flag", kind, given[at] < most);
		const lookup = (at) => flagged("Lookupflags", at, 2);
		const path = (given) => this.#pathError(given[2], given[3]);
		const times = (at) => (given) => given[at] & given[at] >> 1 & 5 ? 28 : 0;
		const checked = (...checks) => (...given) => {
			for (const check of checks) {
				const error = check(given);
				if (error) return error;
			}
			return 8;
		};
		const rights = (at) => (given) => known("flag", "Rights", (BigInt(given[at]) & ~RIGHTS_MASK & 2n ** 64n - 1n) === 0n);
		return {
			fd_advise: checked((given) => known("enum", "Advice", given[3] < 6)),
			fd_allocate: none,
			fd_datasync: none,
			fd_fdstat_set_flags: checked(flagged("Fdflags", 1, 32)),
			fd_fdstat_set_rights: checked(rights(1), rights(2)),
			fd_filestat_set_size: none,
			fd_filestat_set_times: checked(flagged("Fstflags", 3, 16)),
			fd_prestat_get: none,
			fd_readdir: (_fd, at, size, _cookie, result) => {
				this.#checkFirst("fd_readdir", [at, size], [
					result,
					4,
					4
				]);
				return 8;
			},
			fd_sync: none,
			path_create_directory: none,
			path_filestat_get: checked((given) => {
				this.#checkFirst("path_filestat_get", [given[2], given[3]], [
					given[4],
					64,
					8
				]);
				return 0;
			}, lookup(1)),
			path_filestat_set_times: checked(lookup(1), flagged("Fstflags", 6, 16), times(6)),
			path_link: checked(lookup(1)),
			path_open: checked(lookup(1), flagged("Oflags", 4, 16), rights(5), rights(6), flagged("Fdflags", 7, 32), path),
			path_readlink: none,
			path_remove_directory: (_fd, at, size) => {
				this.memory.checkFor("path_remove_directory", at, size);
				return 8;
			},
			path_rename: none,
			path_symlink: none,
			path_unlink_file: none
		};
	}
};
/** Ends the guest when a number is not one of those that there are; returns result otherwise. */
function known(form, what, isKnown, result = 0) {
	if (!isKnown) throw new GuestEnd(`Invalid ${form} value ${what}`);
	return result;
}
// src/sandbox/trampoline.ts
var I64 = 126;
var TYPES = {
	i32: 127,
	i64: I64,
	f32: 125,
	f64: 124
};
/** From the form of Invocation.arguments, an i64, to each type, and back. */
var INTO = {
	i32: [167],
	i64: [],
	f32: [191, 182],
	f64: [191]
};
var OUT_OF = {
	i32: [172],
	i64: [],
	f32: [187, 189],
	f64: [189]
};
var made = /* @__PURE__ */ new Map();
var MADE_MAX = 64;
/** Whether a function's numbers have to go by their bits. */
function needsTrampoline(callable) {
	return [...callable.parameters, callable.result ?? ""].some((type) => type.startsWith("f"));
}
/** Returns a function like the guest's own, of i64 alone. */
function throughTrampoline(callable, entry) {
	const key = `${callable.parameters.join()}:${callable.result}`;
	let module = made.get(key);
	if (!module) {
		if (made.size >= MADE_MAX) made.clear();
		module = new WebAssembly.Module(trampoline(callable));
		made.set(key, module);
	}
	return new WebAssembly.Instance(module, { ww: { entry } }).exports.entry;
}
function trampoline({ parameters, result }) {
	const out = new Writer();
	out.bytes([
		0,
		97,
		115,
		109,
		1,
		0,
		0,
		0
	]);
	const types = section(1, (body) => {
		body.number(2);
		for (const typeOf of [(type) => TYPES[type], () => I64]) {
			body.byte(96);
			body.sized(Uint8Array.from(parameters, typeOf));
			body.sized(Uint8Array.from(result ? [typeOf(result)] : []));
		}
	});
	const imports = section(2, (body) => {
		body.number(1);
		body.name("ww");
		body.name("entry");
		body.bytes([0, 0]);
	});
	const functions = section(3, (body) => body.bytes([1, 1]));
	const exports = section(7, (body) => {
		body.number(1);
		body.name("entry");
		body.bytes([0, 1]);
	});
	const code = section(10, (body) => {
		body.number(1);
		body.sized(bodyOf(parameters, result));
	});
	for (const each of [
		types,
		imports,
		functions,
		exports,
		code
	]) out.bytes(each.taken());
	return out.taken();
}
function section(id, write) {
	const body = new Writer();
	write(body);
	const whole = new Writer();
	whole.section(id, body);
	return whole;
}
function bodyOf(parameters, result) {
	const body = new Writer();
	body.number(0);
	parameters.forEach((type, index) => {
		body.byte(32);
		body.number(index);
		body.bytes(INTO[type]);
	});
	body.bytes([16, 0]);
	body.bytes(result ? OUT_OF[result] : []);
	body.byte(11);
	return body.taken();
}
// src/sandbox/program.ts
/** How a run ended otherwise than well. */
var GuestFault = class {
	reason;
	detail;
	constructor(reason, detail) {
		this.reason = reason;
		this.detail = detail;
	}
};
/** A module that is compiled, and what is known of it. */
var Program = class {
	about;
	#module;
	#wasi;
	#memories = new Memories();
	constructor(module, about) {
		this.#module = module;
		this.about = about;
		this.#wasi = about.needsWasi ? new Preview1() : null;
	}
	/** Runs it in a fresh instance; returns how it ended. */
	run(order, outputs) {
		const result = newResult();
		const startMs = performance.now();
		try {
			new Run(this.#module, this.about, this.#wasi, this.#memories, order, outputs, result).go();
		} catch (error) {
			if (!(error instanceof GuestFault)) throw error;
			result.reason = error.reason;
			result.detail = error.detail;
		}
		if (this.about.needsWasi) {
			result.stdout = outputs.stdout.taken();
			result.stderr = outputs.stderr.taken();
			result.stdoutCut = outputs.stdout.isCut;
			result.stderrCut = outputs.stderr.isCut;
		}
		result.wallS = (performance.now() - startMs) / 1e3;
		result.cpuS = result.wallS;
		return result;
	}
};
var Run = class {
	#module;
	#about;
	#wasi;
	#memories;
	#task;
	#given;
	#limits;
	#outputs;
	#result;
	#memory = null;
	#exports = {};
	constructor(module, about, wasi, memories, order, outputs, result) {
		this.#module = module;
		this.#about = about;
		this.#wasi = wasi;
		this.#memories = memories;
		this.#task = order.task;
		this.#given = order.given;
		this.#limits = order.limits;
		this.#outputs = outputs;
		this.#result = result;
	}
	go() {
		const about = this.#about;
		if (about.fault) throw new GuestFault(about.fault.reason, this.#said(about.fault));
		const name = this.#task.entry || "_start";
		const callable = about.callables.get(name);
		if (!callable) throw new GuestFault("compile", `exports no function '${oneLine(name, 80)}' that takes and returns i32, i64, f32 or f64`);
		const given = this.#task.entry ? this.#fitted(name, callable.parameters) : [];
		try {
			if (this.#open()) this.#run(name, callable, given);
		} finally {
			if (this.#memory) this.#memories.giveBack(this.#memory);
		}
	}
	#run(name, callable, given) {
		try {
			this.#call(name, callable, given);
		} finally {
			this.#measure();
		}
	}
	#said(fault) {
		return fault.reason === "memory" ? `${fault.detail}; it may have ${this.#limits.memoryBytes} bytes` : fault.detail;
	}
	/** Returns the arguments, integers as two's complement, if they are as many as there are parameters. */
	#fitted(name, parameters) {
		const given = this.#given.arguments ?? this.#task.arguments;
		if (given.length !== parameters.length) throw new GuestFault("compile", `'${oneLine(name, 80)}' takes ${parameters.length} arguments, ${given.length} are given`);
		return given.map((value, index) => {
			if (parameters[index] === "i32" && (value < -(1n << 31n) || value >= 1n << 32n)) throw new GuestFault("trap", `the argument ${value} does not fit into i32`);
			return value;
		});
	}
	/** Makes an instance, and has its start section run; returns whether there is anything to go on with. */
	#open() {
		const { memory } = this.#about;
		if (memory && memory.minimum * 65536 > this.#limits.memoryBytes) {
			const detail = `memory minimum size of ${memory.minimum} pages exceeds memory limits`;
			throw new GuestFault("memory", this.#said({
				reason: "memory",
				detail
			}));
		}
		const startMs = performance.now();
		try {
			this.#memory = this.#memories.take(this.#about, this.#limits.memoryBytes);
			this.#beginWorld();
			const imports = {};
			if (this.#memory) imports["ww"] = { [MEMORY_NAME]: this.#memory };
			if (this.#wasi) imports[WASI_MODULE] = this.#wasi.wasiImport;
			this.#exports = new WebAssembly.Instance(this.#module, imports).exports;
		} catch (error) {
			this.#judge(error, true);
			return false;
		}
		this.#result.instantiateS = (performance.now() - startMs) / 1e3;
		return true;
	}
	#beginWorld() {
		const { stdout, stderr } = this.#outputs;
		const task = this.#task;
		stdout.begin(this.#limits.outputBytes);
		stderr.begin(this.#limits.outputBytes);
		this.#wasi?.begin({
			args: this.#given.args ?? task.args,
			env: this.#given.env ?? task.env,
			seed: task.deterministic ? this.#given.seed ?? task.seed : null,
			memory: this.#about.showsMemory ? this.#memory : null,
			streams: [
				new Input(this.#given.stdin ?? task.stdin),
				new Output(stdout),
				new Output(stderr)
			]
		});
	}
	#call(name, callable, given) {
		const result = this.#result;
		const entry = this.#exports[name];
		const { initializer } = this.#about;
		try {
			if (!this.#task.entry) {
				entry();
				result.exitCode = 0;
				return;
			}
			if (initializer && initializer !== name) this.#exports[initializer]();
			const { parameters, result: type } = callable;
			const returned = needsTrampoline(callable) ? throughTrampoline(callable, entry)(...given) : entry(...given.map((value, index) => parameters[index] === "i32" ? Number(value) : value));
			result.value = type === null ? null : BigInt(returned);
			result.isFloat = type?.startsWith("f") ?? false;
		} catch (error) {
			this.#judge(error, false);
		}
	}
	/** Returns when the guest exited with 0; otherwise throws what its end means. */
	#judge(error, isStarting) {
		if (error instanceof WASIProcExit) {
			this.#result.exitCode = error.code;
			if (error.code) throw new GuestFault("exit", `exit code ${error.code}`);
			return;
		}
		if (error instanceof GuestEnd) throw new GuestFault("trap", oneLine(error.detail));
		if (error instanceof WebAssembly.RuntimeError || isStackOverflow(error)) throw new GuestFault("trap", trapOf(error));
		if (error instanceof RangeError && isStarting) throw new GuestFault("memory", this.#said({
			reason: "memory",
			detail: lineOf(error)
		}));
		throw new GuestFault(isStarting ? "compile" : "trap", lineOf(error));
	}
	#measure() {
		const { memoryBytes, showsMemory } = this.#about;
		if (memoryBytes !== null) this.#result.memoryBytes = memoryBytes;
		else if (showsMemory && this.#memory) this.#result.memoryBytes = this.#memory.buffer.byteLength;
	}
};
// src/sandbox/executor.ts
/** Outcomes wait that long for others, so that short runs share a message. */
var FLUSH_AFTER_MS = 5;
/** Runs what comes, for as long as the thread lives. */
function serve(port) {
	const executor = new Executor(port);
	port.onMessage((message) => executor.hear(message));
}
/** Where output is kept, and how much of each stream there. */
var Place = class {
	bytes;
	outputs;
	constructor(bytes, outputs = null) {
		this.bytes = bytes;
		this.outputs = outputs;
	}
};
var Executor = class {
	#port;
	#programs = /* @__PURE__ */ new Map();
	#control = Control.fresh();
	#isShared = false;
	#task = null;
	/** Where output outlives this thread, and where it goes that is too large for that. */
	#shared = new Place(0);
	#own = new Place(0);
	/** Since when outcomes are in the log that nobody was told of; 0: there are none. */
	#unsaidSinceMs = 0;
	constructor(port) {
		this.#port = port;
	}
	#say(message, transfer = []) {
		this.#port.post(message, transfer);
	}
	hear(message) {
		switch (message.type) {
			case "begin":
				if (message.control) {
					this.#control = new Control(message.control);
					this.#isShared = true;
					this.#own = new Place(0);
				}
				this.#say({
					type: "ready",
					nowMs: performance.now()
				});
				break;
			case "module":
				this.#programs.set(message.key, new Program(message.module, message.about));
				break;
			case "forget":
				this.#programs.delete(message.key);
				break;
			case "task":
				this.#task = message;
				break;
			case "outputs":
				this.#shared = new Place(message.buffer.byteLength / 2, this.#control.outputs(message.buffer));
				break;
			case "batch": this.#answer(message);
		}
	}
	#answer(batch) {
		let inputs;
		try {
			const at = batch.spans;
			inputs = Array.from(batch.places, (_, index) => readInput(batch.records, at[2 * index], at[2 * index + 1]));
		} catch (error) {
			this.#say({
				type: "refused",
				message: lineOf(error)
			});
			return;
		}
		this.#runAll(batch, inputs);
		this.#control.rest();
		this.#unsaidSinceMs = 0;
		this.#say({ type: "done" });
	}
	#runAll(batch, inputs) {
		const control = this.#control;
		const { task, limits } = this.#task;
		const program = this.#programs.get(batch.module);
		const outputs = this.#outputsFor(limits);
		const beganMs = performance.now() - 1e3 * batch.waitedS;
		let compileS = batch.compileS;
		inputs.forEach((given, index) => {
			const place = batch.places[index];
			control.rest();
			control.waitWhilePaused();
			if (control.isMarked(place)) {
				this.#add(writeOutcome(place, CANCELLED, {
					memoryLimitBytes: limits.memoryBytes,
					queueS: 0,
					compileS: 0
				}));
				return;
			}
			control.enter(place, performance.now());
			const result = program.run({
				task,
				given,
				limits
			}, outputs);
			const queueS = Math.max(0, (performance.now() - beganMs) / 1e3 - result.wallS);
			this.#add(writeOutcome(place, result, {
				memoryLimitBytes: limits.memoryBytes,
				queueS,
				compileS
			}));
			compileS = 0;
		});
	}
	#outputsFor({ outputBytes }) {
		if (this.#shared.outputs && outputBytes <= this.#shared.bytes) return this.#shared.outputs;
		if (outputBytes > this.#own.bytes || !this.#own.outputs) this.#own = new Place(outputBytes, this.#control.outputs(/* @__PURE__ */ new ArrayBuffer(2 * outputBytes)));
		return this.#own.outputs;
	}
	#add(record) {
		if (!this.#isShared || record.length > 65536) {
			this.#say({
				type: "outcome",
				record
			}, [record.buffer]);
			return;
		}
		const nowMs = performance.now();
		const isFirst = this.#unsaidSinceMs === 0;
		this.#control.append(record, () => this.#flush());
		this.#unsaidSinceMs ||= nowMs;
		if (isFirst || nowMs - this.#unsaidSinceMs > FLUSH_AFTER_MS) {
			this.#flush();
			this.#unsaidSinceMs = nowMs;
		}
	}
	#flush() {
		this.#say({ type: "logged" });
	}
};
var CANCELLED = newResult("cancelled");
// src/terminal/slot.ts
if ("Deno" in globalThis) serve({
	post: (message, transfer) => postMessage(message, { transfer: transfer ?? [] }),
	onMessage: (hear) => {
		onmessage = (event) => hear(event.data);
	}
});
else {
	const { parentPort } = await __vitePreload(async () => {
		const { parentPort } = await import("node:worker_threads");
		return { parentPort };
	}, []);
	serve({
		post: (message, transfer) => parentPort?.postMessage(message, transfer ?? []),
		onMessage: (hear) => parentPort?.on("message", hear)
	});
}
