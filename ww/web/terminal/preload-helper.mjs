// node_modules/@noble/hashes/_u64.js
var U32_MASK64 = /* @__PURE__ */ (() => BigInt(2 ** 32 - 1))();
var _32n = /* @__PURE__ */ BigInt(32);
function fromBig(n, le = false) {
	if (le) return {
		h: Number(n & U32_MASK64),
		l: Number(n >> _32n & U32_MASK64)
	};
	return {
		h: Number(n >> _32n & U32_MASK64) | 0,
		l: Number(n & U32_MASK64) | 0
	};
}
function split(lst, le = false) {
	const len = lst.length;
	let Ah = new Uint32Array(len);
	let Al = new Uint32Array(len);
	for (let i = 0; i < len; i++) {
		const { h, l } = fromBig(lst[i], le);
		[Ah[i], Al[i]] = [h, l];
	}
	return [Ah, Al];
}
var fromNumH = (n) => n / 2 ** 32 | 0;
var fromNumL = (n) => n >>> 0;
function setU64FromNum(view, byteOffset, n, isLE) {
	const h = fromNumH(n);
	const l = fromNumL(n);
	view.setUint32(byteOffset, isLE ? l : h, isLE);
	view.setUint32(byteOffset + 4, isLE ? h : l, isLE);
}
// node_modules/@noble/hashes/utils.js
/**
* Checks if something is Uint8Array. Be careful: nodejs Buffer will return true.
* @param a - value to test
* @returns `true` when the value is a Uint8Array-compatible view.
* @example
* Check whether a value is a Uint8Array-compatible view.
* ```ts
* isBytes(new Uint8Array([1, 2, 3]));
* ```
*/
function isBytes(a) {
	return a instanceof Uint8Array || ArrayBuffer.isView(a) && a.constructor.name === "Uint8Array" && "BYTES_PER_ELEMENT" in a && a.BYTES_PER_ELEMENT === 1;
}
var atitle = (title) => title ? `"${title}" ` : "";
/**
* Asserts something is a non-negative integer.
* @param n - number to validate
* @param title - label included in thrown errors
* @returns The validated number.
* @throws On wrong argument types. {@link TypeError}
* @throws On wrong argument ranges or values. {@link RangeError}
* @example
* Validate a non-negative integer option.
* ```ts
* anumber(32, 'length');
* ```
*/
function anumber(n, title = "") {
	if (typeof n !== "number") throw new TypeError(atitle(title) + "expected number, got " + typeof n);
	if (!Number.isSafeInteger(n) || n < 0) throw new RangeError(atitle(title) + "expected integer >= 0, got " + n);
	return n;
}
/**
* Asserts something is a boolean.
* @param value - value to validate
* @param title - label included in thrown errors
* @returns The validated boolean.
* @throws On wrong argument types. {@link TypeError}
* @example
* Validate a boolean option.
* ```ts
* abool(true, 'enableXOF');
* ```
*/
function abool(value, title = "") {
	if (typeof value !== "boolean") throw new TypeError(atitle(title) + "expected boolean, got type=" + typeof value);
	return value;
}
/**
* Asserts something is Uint8Array.
* @param value - value to validate
* @param length - optional exact length constraint
* @param title - label included in thrown errors
* @returns The validated byte array.
* @throws On wrong argument types. {@link TypeError}
* @throws On wrong argument ranges or values. {@link RangeError}
* @example
* Validate that a value is a byte array.
* ```ts
* abytes(new Uint8Array([1, 2, 3]));
* ```
*/
function abytes(value, length, title = "") {
	if (isBytes(value) && (length === void 0 || value.length === length)) return value;
	if (length !== void 0) anumber(length, "length");
	const bytes = isBytes(value);
	const ofLen = length !== void 0 ? ` of length ${length}` : "";
	const got = bytes ? `length=${value.length}` : `type=${typeof value}`;
	const message = atitle(title) + "expected Uint8Array" + ofLen + ", got " + got;
	if (!bytes) throw new TypeError(message);
	throw new RangeError(message);
}
var aobject = (value, label) => {
	if (value === null || typeof value !== "object" || Array.isArray(value)) throw new TypeError((label === "object" ? "" : `"${label}" `) + "expected object, got type=" + typeof value);
};
var aopts = (value, label) => {
	aobject(value, label);
	const proto = Object.getPrototypeOf(value);
	if (proto !== Object.prototype && proto !== null) throw new TypeError(`"${label}" expected plain object`);
	if (Object.hasOwn(value, "__proto__")) throw new TypeError(`"${label}.__proto__" is not allowed`);
};
/**
* Asserts a hash instance has not been destroyed or finished.
* @param instance - hash instance to validate
* @param checkFinished - whether to reject finalized instances
* @throws If the hash instance has already been destroyed or finalized. {@link Error}
* @example
* Validate that a hash instance is still usable.
* ```ts
* import { aexists } from '@noble/hashes/utils.js';
* import { sha256 } from '@noble/hashes/sha2.js';
* const hash = sha256.create();
* aexists(hash);
* ```
*/
function aexists(instance, checkFinished = true) {
	if (instance.destroyed) throw new Error("hash was destroyed");
	if (checkFinished && instance.finished) throw new Error("digest() was already called");
}
/**
* Asserts output is a sufficiently-sized byte array.
* @param out - destination buffer
* @param instance - hash instance providing output length
* Oversized buffers are allowed; downstream code only promises to fill the first `outputLen` bytes.
* @throws On wrong argument types. {@link TypeError}
* @throws On wrong argument ranges or values. {@link RangeError}
* @example
* Validate a caller-provided digest buffer.
* ```ts
* import { aoutput } from '@noble/hashes/utils.js';
* import { sha256 } from '@noble/hashes/sha2.js';
* const hash = sha256.create();
* aoutput(new Uint8Array(hash.outputLen), hash);
* ```
*/
function aoutput(out, instance) {
	abytes(out, void 0, "output");
	const min = instance.outputLen;
	if (!(out.length >= min)) throw new RangeError("\"output\" expected length >= " + min);
}
/**
* Casts a typed array view to Uint32Array.
* `arr.byteOffset` must already be 4-byte aligned or the platform
* Uint32Array constructor will throw.
* @param arr - source typed array
* @returns Uint32Array view over the same buffer.
* @example
* Reinterpret a byte array as 32-bit words.
* ```ts
* u32(new Uint8Array(8));
* ```
*/
function u32(arr) {
	return new Uint32Array(arr.buffer, arr.byteOffset, Math.floor(arr.byteLength / 4));
}
/**
* Zeroizes typed arrays in place. Warning: JS provides no guarantees.
* @param arrays - arrays to overwrite with zeros
* @example
* Zeroize sensitive buffers in place.
* ```ts
* clean(new Uint8Array([1, 2, 3]));
* ```
*/
function clean(...arrays) {
	for (let i = 0; i < arrays.length; i++) arrays[i].fill(0);
}
/**
* Creates a DataView for byte-level manipulation.
* @param arr - source typed array
* @returns DataView over the same buffer region.
* @example
* Create a DataView over an existing buffer.
* ```ts
* createView(new Uint8Array(4));
* ```
*/
function createView(arr) {
	return new DataView(arr.buffer, arr.byteOffset, arr.byteLength);
}
/**
* Rotate-right operation for uint32 values.
* @param word - source word
* @param shift - shift amount in bits
* @returns Rotated word.
* @example
* Rotate a 32-bit word to the right.
* ```ts
* rotr(0x12345678, 8);
* ```
*/
function rotr(word, shift) {
	return word << 32 - shift | word >>> shift;
}
/** Whether the current platform is little-endian. */
var isLE = /* @__PURE__ */ (() => new Uint8Array(new Uint32Array([287454020]).buffer)[0] === 68)();
/**
* Byte-swap operation for uint32 values.
* @param word - source word
* @returns Word with reversed byte order.
* @example
* Reverse the byte order of a 32-bit word.
* ```ts
* byteSwap(0x11223344);
* ```
*/
function byteSwap(word) {
	return word << 24 & 4278190080 | word << 8 & 16711680 | word >>> 8 & 65280 | word >>> 24 & 255;
}
/**
* Byte-swaps every word of a Uint32Array in place.
* @param arr - array to mutate
* @returns The same array after mutation; callers pass live state arrays here.
* @example
* Reverse the byte order of every word in place.
* ```ts
* byteSwap32(new Uint32Array([0x11223344]));
* ```
*/
function byteSwap32(arr) {
	for (let i = 0; i < arr.length; i++) arr[i] = byteSwap(arr[i]);
	return arr;
}
/**
* Conditionally byte-swaps a Uint32Array on big-endian platforms.
* @param u - array to normalize for host endianness
* @returns Original or byte-swapped array depending on platform endianness.
*   On big-endian runtimes this mutates `u` in place via `byteSwap32(...)`.
* @example
* Normalize a word array for host endianness.
* ```ts
* swap32IfBE(new Uint32Array([0x11223344]));
* ```
*/
var swap32IfBE = isLE ? (u) => u : byteSwap32;
/**
* Merges default options and passed options.
* @param defaults - base option object
* @param opts - user overrides
* @param title - label included in thrown override errors
* @returns Fresh merged option object with a null prototype.
* @throws On wrong argument types. {@link TypeError}
* @example
* Merge user overrides onto default options.
* ```ts
* checkOpts({ dkLen: 32 }, { asyncTick: 10 });
* ```
*/
function checkOpts(defaults, opts, title = "opts") {
	aopts(defaults, "defaults");
	if (opts !== void 0) aopts(opts, title);
	return Object.assign(Object.create(null), defaults, opts);
}
/**
* Creates a callable hash function from a stateful class constructor.
* @param hashCons - hash constructor or factory
* @param info - optional metadata such as DER OID
* @returns Frozen callable hash wrapper with `.create()`.
*   Wrapper construction eagerly calls `hashCons(undefined)` once to read
*   `outputLen` / `blockLen`, so constructor side effects happen at module
*   init time.
* @throws On wrong argument types. {@link TypeError}
* @example
* Wrap a stateful hash constructor into a callable helper.
* ```ts
* import { createHasher } from '@noble/hashes/utils.js';
* import { sha256 } from '@noble/hashes/sha2.js';
* const wrapped = createHasher(sha256.create, { oid: sha256.oid });
* wrapped(new Uint8Array([1]));
* ```
*/
function createHasher(hashCons, info = {}) {
	if (typeof hashCons !== "function") throw new TypeError("\"hashCons\" expected function, got type=" + typeof hashCons);
	info = checkOpts({}, info, "info");
	const hashC = (msg, opts) => hashCons(opts).update(msg).digest();
	const tmp = hashCons(void 0);
	hashC.outputLen = tmp.outputLen;
	hashC.blockLen = tmp.blockLen;
	hashC.canXOF = tmp.canXOF;
	hashC.create = (opts) => hashCons(opts);
	Object.assign(hashC, info);
	return Object.freeze(hashC);
}
/**
* Creates OID metadata for NIST hashes with prefix `06 09 60 86 48 01 65 03 04 02`.
* @param suffix - final OID byte for the selected hash.
*   The helper accepts any byte even though only the documented NIST hash
*   suffixes are meaningful downstream.
* @returns Object containing the DER-encoded OID.
* @example
* Build OID metadata for a NIST hash.
* ```ts
* oidNist(0x01);
* ```
*/
var oidNist = (suffix) => ({ oid: Uint8Array.from([
	6,
	9,
	96,
	134,
	72,
	1,
	101,
	3,
	4,
	2,
	suffix
]) });
// src/sandbox/failure.ts
/** A call that failed, in one line for people. */
var Failure = class extends Error {
	code;
	constructor(code, message) {
		super(message);
		this.name = "Failure";
		this.code = code;
	}
};
/** Makes text that a stranger wrote fit for a message: printable, one line, of bounded length. */
function oneLine(text, charactersMax = 300) {
	return text.slice(0, charactersMax).replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, "?");
}
/** Returns what an unknown error says, in one line. */
function lineOf(error) {
	return oneLine(error instanceof Error ? error.message : String(error)) || "unknown";
}
// src/sandbox/about.ts
var PAGE_BYTES = 65536;
var TABLE_ELEMENTS_MAX = 2e5;
var TABLES_MAX = 16;
var WASI_MODULE = "wasi_snapshot_preview1";
var CALLABLE_MAX = 5e3;
var MEANT = [
	"_initialize",
	"_start",
	"run"
];
/** Signatures: i = i32, I = i64; every function returns an errno (i32), but for proc_exit. */
var WASI_FUNCTIONS = {
	args_get: "ii",
	args_sizes_get: "ii",
	clock_res_get: "ii",
	clock_time_get: "iIi",
	environ_get: "ii",
	environ_sizes_get: "ii",
	fd_advise: "iIIi",
	fd_allocate: "iII",
	fd_close: "i",
	fd_datasync: "i",
	fd_fdstat_get: "ii",
	fd_fdstat_set_flags: "ii",
	fd_fdstat_set_rights: "iII",
	fd_filestat_get: "ii",
	fd_filestat_set_size: "iI",
	fd_filestat_set_times: "iIIi",
	fd_pread: "iiiIi",
	fd_prestat_dir_name: "iii",
	fd_prestat_get: "ii",
	fd_pwrite: "iiiIi",
	fd_read: "iiii",
	fd_readdir: "iiiIi",
	fd_renumber: "ii",
	fd_seek: "iIii",
	fd_sync: "i",
	fd_tell: "ii",
	fd_write: "iiii",
	path_create_directory: "iii",
	path_filestat_get: "iiiii",
	path_filestat_set_times: "iiiiIIi",
	path_link: "iiiiiii",
	path_open: "iiiiiIIii",
	path_readlink: "iiiiii",
	path_remove_directory: "iii",
	path_rename: "iiiiii",
	path_symlink: "iiiii",
	path_unlink_file: "iii",
	poll_oneoff: "iiii",
	proc_exit: "i",
	proc_raise: "i",
	random_get: "ii",
	sched_yield: "",
	sock_accept: "iii",
	sock_recv: "iiiiii",
	sock_send: "iiiii",
	sock_shutdown: "ii"
};
/** Picks it from what was read. Throws bad_module when what is called first cannot be. */
function aboutOf(info) {
	for (const name of ["_initialize", "_start"]) {
		const type = info.signature(name);
		if (info.exports.has(name) && (!type || type.parameters.length || type.results.length)) throw new Failure("bad_module", `${name} is no function that takes and returns nothing`);
	}
	const callables = callablesOf(info);
	const [memory] = info.memories;
	return {
		needsWasi: info.imports.length > 0,
		showsMemory: info.exports.get("memory")?.kind === "memory",
		memory: memory ? {
			minimum: memory.minimum,
			maximum: memory.maximum ?? 65536
		} : null,
		memoryBytes: info.mayGrow ? null : (memory?.minimum ?? 0) * PAGE_BYTES,
		callables,
		initializer: ["_initialize", "_start"].find((name) => callables.has(name)) ?? "",
		isReactor: callables.has("ProcessStdio") && callables.has("_start"),
		fault: faultOf(info)
	};
}
function callablesOf(info) {
	const found = [];
	for (const name of info.exports.keys()) {
		const type = info.signature(name);
		if (type && type.results.length <= 1 && [...type.parameters, ...type.results].every(isNumber)) found.push([name, {
			parameters: type.parameters,
			result: type.results[0] ?? null
		}]);
	}
	const meant = found.filter(([name]) => MEANT.includes(name));
	return new Map([...meant, ...found.slice(0, CALLABLE_MAX)]);
}
function isNumber(type) {
	return /^[if]/.test(type) && type.length === 3;
}
function faultOf(info) {
	for (const wish of info.imports) {
		const wrong = wrongWith(wish);
		if (wrong) return {
			reason: "compile",
			detail: oneLine(wrong.split(/[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/u)[0])
		};
	}
	if (info.tables.length > TABLES_MAX) return {
		reason: "memory",
		detail: `defined tables count of ${info.tables.length} exceeds the per-instance limit of 16`
	};
	const large = info.tables.find((table) => table.minimum > TABLE_ELEMENTS_MAX);
	if (large) return {
		reason: "memory",
		detail: `table minimum size of ${large.minimum} elements exceeds table limits`
	};
	return null;
}
function wrongWith(wish) {
	const letters = wish.module === "wasi_snapshot_preview1" ? WASI_FUNCTIONS[wish.name] : void 0;
	const said = `\`${wish.module}::${wish.name}\``;
	if (letters === void 0 || !wish.type) return `unknown import: ${said} has not been defined`;
	const known = {
		parameters: [...letters].map((letter) => letter === "i" ? "i32" : "i64"),
		results: wish.name === "proc_exit" ? [] : ["i32"]
	};
	return JSON.stringify(known) === JSON.stringify(wish.type) ? null : `incompatible import type for ${said}`;
}
// src/sandbox/binary.ts
var ENTRIES_MAX = 2e5;
var NAME_BYTES_MAX = 1e4;
var UTF8$1 = new TextDecoder("utf-8", {
	fatal: true,
	ignoreBOM: true
});
/** Reads values from data between two offsets, and complains about what it was reading. */
var Reader = class {
	at;
	data;
	end;
	where;
	constructor(data, start, end, where) {
		this.data = data;
		this.at = start;
		this.end = end;
		this.where = where;
	}
	bad(reason) {
		return new Failure("bad_module", `wasm: ${this.where}: ${reason}`);
	}
	byte() {
		if (this.at >= this.end) throw this.bad("ends in the middle of something");
		return this.data[this.at++];
	}
	/** Jumps over count bytes and returns where they began. */
	skip(count) {
		if (count > this.end - this.at) throw this.bad(`says ${count} bytes, ${this.end - this.at} are left`);
		this.at += count;
		return this.at - count;
	}
	/** Reads an unsigned LEB128 number of at most 32 bits. */
	number() {
		let value = 0;
		for (let shift = 0; shift < 35; shift += 7) {
			const byte = this.byte();
			value += (byte & 127) * 2 ** shift;
			if (byte < 128) {
				if (value > 4294967295) break;
				return value;
			}
		}
		throw this.bad("holds a number that is too large");
	}
	/** Jumps over a LEB128 number of any kind. */
	skipNumber() {
		for (let left = 10; left; left--) if (this.byte() < 128) return;
		throw this.bad("holds a number that is too long");
	}
	/** Reads how many entries follow; each is at least one byte. */
	count() {
		const count = this.number();
		if (count > Math.min(ENTRIES_MAX, this.end - this.at)) throw this.bad(`says ${count} entries, more than fit`);
		return count;
	}
	name() {
		const length = this.number();
		if (length > NAME_BYTES_MAX) throw this.bad(`holds a name of ${length} bytes, at most ${NAME_BYTES_MAX} are taken`);
		const start = this.skip(length);
		try {
			return UTF8$1.decode(this.data.slice(start, this.at));
		} catch {
			throw this.bad("holds a name that is not UTF-8");
		}
	}
};
/** Bytes that grow. */
var Writer = class {
	#data;
	#size = 0;
	constructor(expectedBytes = 256) {
		this.#data = new Uint8Array(expectedBytes);
	}
	get size() {
		return this.#size;
	}
	#room(size) {
		if (this.#size + size > this.#data.length) {
			const larger = new Uint8Array(Math.max(this.#size + size, 2 * this.#data.length));
			larger.set(this.#data.subarray(0, this.#size));
			this.#data = larger;
		}
	}
	byte(value) {
		this.#room(1);
		this.#data[this.#size++] = value;
	}
	bytes(data) {
		this.#room(data.length);
		this.#data.set(data, this.#size);
		this.#size += data.length;
	}
	/** Writes an unsigned LEB128 number of at most 32 bits. */
	number(value) {
		while (value >= 128) {
			this.byte(value & 127 | 128);
			value = Math.floor(value / 128);
		}
		this.byte(value);
	}
	name(text) {
		this.sized(new TextEncoder().encode(text));
	}
	/** Writes bytes after their number. */
	sized(data) {
		this.number(data.length);
		this.bytes(data);
	}
	section(id, body) {
		this.byte(id);
		this.sized(body.taken());
	}
	clear() {
		this.#size = 0;
	}
	/** Returns what was written, as a part of what it is written in. */
	taken() {
		return this.#data.subarray(0, this.#size);
	}
};
// src/sandbox/inspect.ts
var VALUE_TYPES = /* @__PURE__ */ new Map([
	[127, "i32"],
	[126, "i64"],
	[125, "f32"],
	[124, "f64"],
	[123, "v128"],
	[112, "funcref"],
	[111, "externref"]
]);
var KINDS = [
	"function",
	"table",
	"memory",
	"global"
];
/** Where each section stands among the others; the numbers were given out in another order. */
var ORDER = [
	1,
	2,
	3,
	4,
	5,
	13,
	6,
	7,
	8,
	9,
	12,
	10,
	11
];
var HAVE_MAXIMUM = 1;
var MEMORY_GROW = 64;
var SECTION = {
	custom: 0,
	type: 1,
	import: 2,
	function: 3,
	table: 4,
	memory: 5,
	export: 7,
	code: 10
};
/** A module, read. */
var ModuleInfo = class {
	data;
	sections = [];
	types = [];
	imports = [];
	/** Of all functions, the imported ones first. */
	functions = [];
	exports = /* @__PURE__ */ new Map();
	memories = [];
	tables = [];
	importedFunctions = 0;
	/** Whether the memory can become larger: false when no instruction of it can be memory.grow. */
	mayGrow = false;
	constructor(data) {
		this.data = data;
		this.#readHeader();
		this.#readSections();
	}
	/** Returns the signature of an exported function. */
	signature(name) {
		const found = this.exports.get(name);
		return found?.kind === "function" ? this.functions[found.index] : void 0;
	}
	#readHeader() {
		if ([...this.data.subarray(0, 8)].join() !== "0,97,115,109,1,0,0,0") throw new Failure("bad_module", "wasm: not a WebAssembly module of version 1");
	}
	#readSections() {
		const reader = new Reader(this.data, 8, this.data.length, "cut off or damaged: a section");
		let last = -1;
		while (reader.at < reader.end) {
			const id = reader.byte();
			const start = reader.skip(reader.number());
			const end = reader.at;
			if (id === SECTION.custom) continue;
			const place = ORDER.indexOf(id);
			if (place <= last) throw reader.bad(`number ${id} is unknown, there twice or in the wrong place`);
			last = place;
			this.sections.push({
				id,
				start,
				end
			});
			this.#readSection(id, new Reader(this.data, start, end, `section ${id}`));
		}
	}
	#readSection(id, section) {
		const read = {
			[SECTION.type]: () => this.#readType(section),
			[SECTION.import]: () => this.#readImport(section),
			[SECTION.function]: () => this.functions.push(this.#type(section)),
			[SECTION.table]: () => this.#readTable(section),
			[SECTION.memory]: () => this.#readMemory(section),
			[SECTION.export]: () => this.#readExport(section)
		}[id];
		if (read) {
			for (let left = section.count(); left; left--) read();
			if (section.at !== section.end) throw section.bad("holds more than its entries");
		}
		if (id === SECTION.code) this.mayGrow = growsIn(this.data, section.at, section.end);
	}
	#readType(section) {
		if (section.byte() !== 96) throw section.bad("holds a type that is not a function's");
		this.types.push({
			parameters: valueTypes(section),
			results: valueTypes(section)
		});
	}
	#type(section) {
		const index = section.number();
		const type = this.types[index];
		if (!type) throw section.bad(`names type ${index}, there are ${this.types.length}`);
		return type;
	}
	#readImport(section) {
		const wish = {
			module: section.name(),
			name: section.name(),
			kind: kindOf(section)
		};
		if (wish.kind === "function") {
			wish.type = this.#type(section);
			this.functions.push(wish.type);
			this.importedFunctions++;
		} else if (wish.kind === "table") this.#readTable(section);
		else if (wish.kind === "memory") this.#readMemory(section);
		else {
			valueType(section);
			section.byte();
		}
		this.imports.push(wish);
	}
	#readTable(section) {
		if (!valueType(section).endsWith("ref")) throw section.bad("holds a table of something else than references");
		this.tables.push(bounds(section));
	}
	#readMemory(section) {
		this.memories.push(bounds(section));
		if (this.memories.length > 1) throw section.bad("holds a second memory, which no worker runs");
	}
	#readExport(section) {
		const name = section.name();
		const kind = kindOf(section);
		const index = section.number();
		if (this.exports.has(name)) throw section.bad(`holds the name '${oneLine(name, 60)}' twice`);
		if (kind === "function" && !this.functions[index]) throw section.bad(`names function ${index}, there are ${this.functions.length}`);
		this.exports.set(name, {
			kind,
			index
		});
	}
};
/** Reads a value type. What stands behind one that is not known, nobody could say. */
function valueType(section) {
	const byte = section.byte();
	const known = VALUE_TYPES.get(byte);
	if (known === void 0) throw section.bad(`holds a value type that no worker runs: 0x${byte.toString(16)}`);
	return known;
}
function valueTypes(section) {
	return Array.from({ length: section.count() }, () => valueType(section));
}
function kindOf(section) {
	const kind = KINDS[section.byte()];
	if (kind === void 0) throw section.bad("holds something of a kind that no worker runs");
	return kind;
}
function bounds(section) {
	const flags = section.byte();
	if (flags > HAVE_MAXIMUM) throw section.bad("holds limits of a form that no worker runs: shared, of 64 bits, or of pages of another size");
	return {
		minimum: section.number(),
		maximum: flags & HAVE_MAXIMUM ? section.number() : null
	};
}
/** Looks for the instruction, and the first byte of the number of its memory, which is 0 in one form or another. */
function growsIn(data, start, end) {
	for (let at = data.indexOf(MEMORY_GROW, start); at >= 0 && at + 1 < end; at = data.indexOf(MEMORY_GROW, at + 1)) if (data[at + 1] === 0 || data[at + 1] === 128) return true;
	return false;
}
// src/sandbox/invocation.ts
/** worker.Reason, in its order. */
var REASONS = [
	"ok",
	"trap",
	"exit",
	"deadline",
	"memory",
	"compile",
	"crash",
	"cancelled",
	"cpu",
	"fuel",
	"files",
	"artifacts"
];
var NO_BYTES = /* @__PURE__ */ new Uint8Array(0);
function newResult(reason = "ok", detail = "") {
	return {
		reason,
		detail,
		value: null,
		isFloat: false,
		exitCode: null,
		stdout: NO_BYTES,
		stderr: NO_BYTES,
		stdoutCut: false,
		stderrCut: false,
		memoryBytes: 0,
		wallS: 0,
		instantiateS: 0,
		cpuS: 0
	};
}
var ARGUMENTS_MAX$1 = 1e3;
var TEXTS_MAX = 65536;
/** Throws a usage failure when no guest of this sandbox could be given an invocation. */
function checkInvocation(invocation) {
	const { files, artifacts, dirs, code, limits } = invocation;
	if (files?.length || artifacts?.length || dirs?.length) throw new Failure("usage", "files, artifacts and dirs: this worker has no file system for guests");
	if (code?.length) throw new Failure("usage", "code: this worker runs no Python guests");
	if (limits.fuel > 0) throw new Failure("usage", "fuel: this worker does not count it");
	if (limits.cpuSeconds > 0) throw new Failure("usage", "cpuSeconds: this worker cannot tell processor time");
	counted("arguments", invocation.arguments, ARGUMENTS_MAX$1);
	counted("args", invocation.args, TEXTS_MAX);
	counted("env", invocation.env, TEXTS_MAX);
	if ([...invocation.args, ...invocation.env.flat()].some((text) => text.includes("\0"))) throw new Failure("usage", "args and env hold no zero characters");
}
function counted(what, given, most) {
	if (given.length > most) throw new Failure("usage", `${what}: ${given.length} are given, at most ${most} are taken`);
}
// src/sandbox/record.ts
/** A record longer than this goes by reference. */
var LARGE_BYTES = 1 << 20;
var BY_REFERENCE = 4294967295;
var ARGUMENTS = 1;
var ARGS = 2;
var ENV = 4;
var STDIN = 8;
var FILES = 16;
var SEED = 32;
var NAME = 64;
var ALL = 127;
var ARGUMENTS_MAX = 1e3;
var HAS_RESULT = 1;
var HAS_EXIT = 4;
var STDOUT_CUT = 8;
var STDERR_CUT = 16;
var UTF8 = new TextDecoder("utf-8", {
	fatal: true,
	ignoreBOM: true
});
var ENCODER = new TextEncoder();
Object.freeze({});
function bad(what) {
	return new Failure("usage", `inputs: ${what}`);
}
var Cursor = class {
	at;
	end;
	#data;
	#view;
	constructor(data, start, end) {
		this.#data = data;
		this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
		this.at = start;
		this.end = end;
	}
	#take(size) {
		if (size > this.end - this.at) throw bad("an input record is cut off");
		this.at += size;
		return this.at - size;
	}
	uint16() {
		return this.#view.getUint16(this.#take(2), true);
	}
	int64() {
		return this.#view.getBigInt64(this.#take(8), true);
	}
	uint64() {
		return this.#view.getBigUint64(this.#take(8), true);
	}
	bytes() {
		const length = this.#view.getUint32(this.#take(4), true);
		const start = this.#take(length);
		return this.#data.subarray(start, start + length);
	}
	text() {
		try {
			return UTF8.decode(unshared(this.bytes()));
		} catch (error) {
			throw error instanceof Failure ? error : bad("an input record's texts are not UTF-8");
		}
	}
	texts() {
		const texts = this.text().split("\0");
		if (texts.pop() !== "") throw bad("a text is not ended");
		return texts;
	}
};
/** TextDecoder takes nothing that is shared with another thread. */
function unshared(data) {
	return data.buffer instanceof ArrayBuffer ? data : data.slice();
}
/** Reads the record in data from start, behind its length, to end. stdin and files are parts of data. */
function readInput(data, start = 4, end = data.length) {
	if (!(start < end && end <= data.length)) throw bad("an input record is empty");
	const flags = data[start];
	const cursor = new Cursor(data, start + 1, end);
	const input = {};
	if (flags > ALL) throw bad("an input record has an unknown flag");
	if (flags & ARGUMENTS) {
		const count = cursor.uint16();
		if (count > ARGUMENTS_MAX) throw bad(`${count} arguments are given, at most ${ARGUMENTS_MAX} are taken`);
		input.arguments = Array.from({ length: count }, () => cursor.int64());
	}
	if (flags & ARGS) input.args = cursor.texts();
	if (flags & ENV) input.env = pairs(cursor.texts());
	if (flags & STDIN) input.stdin = cursor.bytes();
	if (flags & FILES) input.files = cursor.bytes();
	if (flags & SEED) input.seed = cursor.uint64();
	if (flags & NAME) input.name = cursor.text();
	if (cursor.at !== end) throw bad("an input record has another length than it says");
	return input;
}
function pairs(texts) {
	if (texts.length % 2) throw bad("env has a name without a value");
	return Array.from({ length: texts.length / 2 }, (_, index) => [texts[2 * index], texts[2 * index + 1]]);
}
function concatenated(parts) {
	const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
	let at = 0;
	for (const part of parts) {
		whole.set(part, at);
		at += part.length;
	}
	return whole;
}
/** Returns where each input record in data is, of at most `most`. */
function spansOf(data, most) {
	const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
	const spans = [];
	for (let at = 0; at < data.length;) {
		if (spans.length === most) throw bad(`a group has at most ${most} runs`);
		if (data.length - at < 4) throw bad("a record is cut off");
		const length = view.getUint32(at, true);
		at += 4;
		if (length === BY_REFERENCE) {
			spans.push([at, at]);
			continue;
		}
		if (length === 0) throw bad("an input record is empty");
		if (length > data.length - at) throw bad("a record is cut off");
		spans.push([at, at + length]);
		at += length;
	}
	if (!spans.length) throw bad("a group has at least one run");
	return spans;
}
/** Returns the record of the end of the run at that place of a group. */
function writeOutcome(place, result, told) {
	const detail = result.detail ? ENCODER.encode(result.detail) : NO_BYTES;
	const { stdout, stderr } = result;
	const size = 112 + stdout.length + stderr.length + detail.length;
	const data = new Uint8Array(size);
	const view = new DataView(data.buffer);
	view.setUint32(0, size - 4, true);
	view.setUint32(4, place, true);
	view.setUint8(8, REASONS.indexOf(result.reason));
	view.setUint8(9, flagsOf(result));
	view.setUint32(12, result.exitCode ?? 0, true);
	view.setBigInt64(16, result.value ?? 0n, true);
	uint64(view, 24, result.memoryBytes);
	uint64(view, 32, told.memoryLimitBytes);
	view.setFloat64(56, result.wallS, true);
	view.setFloat64(64, result.instantiateS, true);
	view.setFloat64(72, result.cpuS, true);
	view.setFloat64(80, told.queueS, true);
	view.setFloat64(88, told.compileS, true);
	view.setUint32(96, stdout.length, true);
	view.setUint32(100, stderr.length, true);
	view.setUint32(108, detail.length, true);
	data.set(stdout, 112);
	data.set(stderr, 112 + stdout.length);
	data.set(detail, size - detail.length);
	return data;
}
function uint64(view, at, value) {
	view.setUint32(at, value >>> 0, true);
	view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
function flagsOf(result) {
	let flags = 0;
	if (result.value !== null) flags = result.isFloat ? 3 : HAS_RESULT;
	if (result.exitCode !== null) flags |= HAS_EXIT;
	if (result.stdoutCut) flags |= STDOUT_CUT;
	return result.stderrCut ? flags | STDERR_CUT : flags;
}
// src/sandbox/canonical.ts
/** Instructions of one byte with numbers behind them, by how many. */
var UNLIKE = 255;
var WITH_ADDRESS = 254;
var WITH_TYPE = 253;
var NUMBERS = (/* @__PURE__ */ new Uint8Array(256)).fill(UNLIKE);
for (const [from, to, count] of [
	[
		0,
		1,
		0
	],
	[
		2,
		4,
		WITH_TYPE
	],
	[
		5,
		5,
		0
	],
	[
		11,
		11,
		0
	],
	[
		12,
		13,
		1
	],
	[
		15,
		15,
		0
	],
	[
		16,
		16,
		1
	],
	[
		17,
		17,
		2
	],
	[
		18,
		18,
		1
	],
	[
		19,
		19,
		2
	],
	[
		26,
		27,
		0
	],
	[
		32,
		38,
		1
	],
	[
		40,
		62,
		WITH_ADDRESS
	],
	[
		63,
		66,
		1
	],
	[
		69,
		196,
		0
	],
	[
		209,
		209,
		0
	],
	[
		210,
		210,
		1
	]
]) NUMBERS.fill(count, from, to + 1);
var BR_TABLE = 14;
var SELECT_TYPED = 28;
var REF_NULL = 208;
var F32_CONST = 67;
var F64_CONST = 68;
var MISC = 252;
var SIMD = 253;
/** Of MISC, how many numbers stand behind each. */
var MISC_NUMBERS = [
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	2,
	1,
	2,
	1,
	2,
	1,
	2,
	1,
	1,
	1
];
var RELAXED = 256;
/** Of the last byte of a signed number. */
var SIGN = 64;
var NO_RESULT = 64;
var NAMES_MEMORY = 64;
/** ceil, floor, trunc, nearest, sqrt, add, sub, mul, div, min, max; demote and promote. */
var SCALAR = [];
SCALAR.length = 256;
SCALAR.fill("f32", 141, 152).fill("f64", 155, 166);
SCALAR[182] = "f32";
SCALAR[187] = "f64";
/** demote, promote, ceil, floor, trunc, nearest; sqrt, add, sub, mul, div, min, max. pmin and pmax give one of what they are given. */
var VECTOR = [];
VECTOR.length = 256;
VECTOR.fill("f32x4", 94, 95).fill("f64x2", 95, 96).fill("f32x4", 103, 107).fill("f32x4", 227, 234).fill("f64x2", 239, 246);
for (const operation of [
	116,
	117,
	122,
	148
]) VECTOR[operation] = "f64x2";
var NAN_F32 = [
	0,
	0,
	192,
	127
];
var NAN_F64 = [
	0,
	0,
	0,
	0,
	0,
	0,
	248,
	127
];
var LOCAL_GET = 32;
var LOCAL_TEE = 34;
/** For each type: its value type, the constant, the comparison with itself, and the choice between the two. */
var FORMS = {
	f32: {
		local: 125,
		nan: [F32_CONST, ...NAN_F32],
		equal: [91],
		choose: [27]
	},
	f64: {
		local: 124,
		nan: [F64_CONST, ...NAN_F64],
		equal: [97],
		choose: [27]
	},
	f32x4: {
		local: 123,
		nan: [
			SIMD,
			12,
			...NAN_F32,
			...NAN_F32,
			...NAN_F32,
			...NAN_F32
		],
		equal: [SIMD, 65],
		choose: [SIMD, 82]
	},
	f64x2: {
		local: 123,
		nan: [
			SIMD,
			12,
			...NAN_F64,
			...NAN_F64
		],
		equal: [SIMD, 71],
		choose: [SIMD, 82]
	}
};
/** Of one function, which is as much as engines take, and of all; some instructions take twelve times their room. */
var FUNCTION_BYTES_MAX = 7654321;
var CODE_BYTES_MAX = 128 << 20;
/** Whose thread this is has peers to answer. */
var AT_A_TIME_MS = 20;
/** Returns the code section, rewritten; others have their turn in between. */
async function canonicalCode(info, section) {
	const out = new Writer(section.end - section.start + 1024);
	const scratch = new Writer(65536);
	await eachFunction(info, section, {
		begin: (count) => out.number(count),
		body: (reader, index) => {
			checkSize(reader, "a function", reader.end - reader.at, FUNCTION_BYTES_MAX);
			const parameters = info.functions[info.importedFunctions + index]?.parameters.length ?? 0;
			scratch.clear();
			new Body(reader, parameters).write(scratch);
			out.sized(scratch.taken());
			checkSize(reader, "code", out.size, CODE_BYTES_MAX);
		}
	});
	return out;
}
/**
* Sees that code holds no instruction but those that other workers run too. Engines of browsers know more: by exceptions
* a guest would catch the end that a function of ours makes of it, and go on.
*/
async function checkCode(info, section) {
	await eachFunction(info, section, { body: (reader) => {
		for (let left = reader.count(); left; left--) {
			reader.skipNumber();
			valueType(reader);
		}
		while (reader.at < reader.end) step(reader, true);
	} });
}
async function eachFunction(info, section, visitor) {
	const reader = new Reader(info.data, section.start, section.end, "the code section");
	const count = reader.count();
	visitor.begin?.(count);
	let turnMs = performance.now();
	for (let index = 0; index < count; index++) {
		const size = reader.number();
		const start = reader.skip(size);
		visitor.body(new Reader(info.data, start, start + size, "the code section"), index);
		if (performance.now() - turnMs > AT_A_TIME_MS) {
			await new Promise((resolve) => setTimeout(resolve));
			turnMs = performance.now();
		}
	}
}
function checkSize(reader, what, bytes, most) {
	if (bytes > most) throw reader.bad(`holds ${what} of ${bytes} bytes for a deterministic run, at most ${most} are taken`);
}
/** One function's locals and instructions. */
var Body = class {
	#reader;
	#start;
	/** Locals that come after the function's own, by value type. */
	#added = /* @__PURE__ */ new Map();
	#choices = {};
	#locals;
	#groups = 0;
	constructor(reader, parameters) {
		this.#reader = reader;
		this.#start = reader.at;
		this.#locals = parameters;
	}
	write(out) {
		const reader = this.#reader;
		this.#groups = reader.count();
		const groupsAt = reader.at;
		for (let left = this.#groups; left; left--) {
			this.#locals += reader.number();
			valueType(reader);
		}
		const codeAt = reader.at;
		const code = new Writer(reader.end - codeAt + 64);
		this.#writeCode(code, codeAt);
		if (!this.#added.size) {
			out.bytes(reader.data.subarray(this.#start, reader.end));
			return;
		}
		out.number(this.#groups + this.#added.size);
		out.bytes(reader.data.subarray(groupsAt, codeAt));
		for (const type of this.#added.keys()) {
			out.number(1);
			out.byte(type);
		}
		out.bytes(code.taken());
	}
	#writeCode(code, codeAt) {
		const reader = this.#reader;
		let copiedTo = codeAt;
		while (reader.at < reader.end) {
			const type = step(reader);
			if (type) {
				code.bytes(reader.data.subarray(copiedTo, reader.at));
				copiedTo = reader.at;
				code.bytes(this.#choice(type));
				checkSize(reader, "a function", code.size, FUNCTION_BYTES_MAX);
			}
		}
		if (this.#added.size) code.bytes(reader.data.subarray(copiedTo, reader.end));
	}
	/** What is on the stack, or the canonical NaN in its place when it is none itself. */
	#choice(type) {
		let choice = this.#choices[type];
		if (!choice) {
			const form = FORMS[type];
			const local = this.#local(form.local);
			const code = new Writer(64);
			code.byte(LOCAL_TEE);
			code.number(local);
			code.bytes(form.nan);
			code.byte(LOCAL_GET);
			code.number(local);
			code.byte(LOCAL_GET);
			code.number(local);
			code.bytes(form.equal);
			code.bytes(form.choose);
			choice = this.#choices[type] = code.taken();
		}
		return choice;
	}
	#local(type) {
		let local = this.#added.get(type);
		if (local === void 0) {
			local = this.#locals + this.#added.size;
			this.#added.set(type, local);
		}
		return local;
	}
};
/** Steps over one instruction, and returns what it makes when that can be a NaN. */
function step(reader, mayRelax = false) {
	const operation = reader.byte();
	const numbers = NUMBERS[operation];
	if (numbers < WITH_TYPE) {
		for (let left = numbers; left; left--) reader.skipNumber();
		return SCALAR[operation];
	}
	if (numbers === WITH_ADDRESS) {
		skipAddress(reader);
		return;
	}
	if (numbers === WITH_TYPE) {
		skipBlockType(reader);
		return;
	}
	if (operation === SIMD) return stepVector(reader, mayRelax);
	if (operation === F32_CONST) reader.skip(4);
	else if (operation === F64_CONST) reader.skip(8);
	else if (operation === REF_NULL) valueType(reader);
	else if (operation === BR_TABLE) skipNumbers(reader, reader.number() + 1);
	else if (operation === SELECT_TYPED) for (let left = reader.number(); left; left--) valueType(reader);
	else if (operation === MISC) stepMisc(reader);
	else throw reader.bad(`holds the unknown instruction 0x${operation.toString(16)}`);
}
function skipNumbers(reader, count) {
	for (let left = count; left; left--) reader.skipNumber();
}
/** Nothing, one value type, or the number of a function's type: as one signed number, of which the first two are negative. */
function skipBlockType(reader) {
	const first = reader.data[reader.at];
	if ((first & 192) === SIGN && first !== NO_RESULT) {
		valueType(reader);
		return;
	}
	reader.skipNumber();
	if (first !== NO_RESULT && reader.data[reader.at - 1] & SIGN) throw reader.bad("holds a block of a type that no worker runs");
}
/** An alignment and an offset, and between them a memory when the first says so. */
function skipAddress(reader) {
	skipNumbers(reader, reader.number() & NAMES_MEMORY ? 2 : 1);
}
function stepMisc(reader) {
	const operation = reader.number();
	const numbers = MISC_NUMBERS[operation];
	if (numbers === void 0) throw reader.bad(`holds the unknown instruction 0xfc ${operation}`);
	skipNumbers(reader, numbers);
}
function stepVector(reader, mayRelax) {
	const operation = reader.number();
	if (operation >= RELAXED) {
		if (mayRelax) return;
		throw reader.bad(`holds relaxed SIMD (0xfd ${operation}), whose results differ between machines`);
	}
	if (operation <= 11 || operation >= 84 && operation <= 93) {
		skipAddress(reader);
		if (operation >= 84 && operation <= 91) reader.skip(1);
	} else if (operation === 12 || operation === 13) reader.skip(16);
	else if (operation >= 21 && operation <= 34) reader.skip(1);
	return VECTOR[operation];
}
var MEMORY_NAME = "memory";
var FUNCREF = 112;
var EXTERNREF = 111;
/** Returns the module's bytes for the engine; metered: of a run that ends alike on every machine. */
async function rewritten(info, metered) {
	const out = new Writer(info.data.length + 1024);
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
	let imports = needsImport(info) ? importSection(info) : null;
	for (const section of info.sections) {
		if (imports && section.id > SECTION.type) {
			out.section(SECTION.import, imports);
			imports = null;
			if (section.id === SECTION.import) continue;
		}
		await writeSection(out, info, section, metered);
	}
	if (imports) out.section(SECTION.import, imports);
	return out.taken();
}
function needsImport(info) {
	return info.memories.length > 0 && !info.imports.some((wish) => wish.kind === "memory");
}
async function writeSection(out, info, section, metered) {
	const data = info.data.subarray(section.start, section.end);
	if (section.id === SECTION.memory) return;
	if (section.id === SECTION.table) out.section(section.id, tableSection(info, section));
	else if (section.id === SECTION.code && metered) out.section(section.id, await canonicalCode(info, section));
	else {
		if (section.id === SECTION.code) await checkCode(info, section);
		out.byte(section.id);
		out.sized(data);
	}
}
/** The imports there are, and the memory. */
function importSection(info) {
	const body = new Writer();
	body.number(info.imports.length + 1);
	const section = info.sections.find((each) => each.id === SECTION.import);
	if (section) {
		const start = section.start + numberBytes(info.data, section.start);
		body.bytes(info.data.subarray(start, section.end));
	}
	body.name("ww");
	body.name(MEMORY_NAME);
	body.byte(2);
	writeBounds(body, info.memories[0]);
	return body;
}
function numberBytes(data, at) {
	let size = 1;
	while (data[at + size - 1] >= 128) size++;
	return size;
}
function tableSection(info, section) {
	const body = new Writer();
	const imported = info.imports.filter((wish) => wish.kind === "table").length;
	const tables = info.tables.slice(imported);
	body.number(tables.length);
	const types = referenceTypes(info.data, section, tables);
	tables.forEach((table, index) => {
		body.byte(types[index]);
		writeBounds(body, {
			minimum: bounded(table.minimum),
			maximum: bounded(table.maximum)
		});
	});
	return body;
}
function bounded(elements) {
	return Math.min(elements ?? 2e5, TABLE_ELEMENTS_MAX);
}
function referenceTypes(data, section, tables) {
	let at = section.start + numberBytes(data, section.start);
	return tables.map((table) => {
		const type = data[at] === EXTERNREF ? EXTERNREF : FUNCREF;
		at += 2;
		at += numberBytes(data, at);
		if (table.maximum !== null) at += numberBytes(data, at);
		return type;
	});
}
function writeBounds(body, bounds) {
	body.byte(bounds.maximum === null ? 0 : 1);
	body.number(bounds.minimum);
	if (bounds.maximum !== null) body.number(bounds.maximum);
}
var Iovec = class Iovec {
	static read_bytes(view, ptr) {
		const iovec = new Iovec();
		iovec.buf = view.getUint32(ptr, true);
		iovec.buf_len = view.getUint32(ptr + 4, true);
		return iovec;
	}
	static read_bytes_array(view, ptr, len) {
		const iovecs = [];
		for (let i = 0; i < len; i++) iovecs.push(Iovec.read_bytes(view, ptr + 8 * i));
		return iovecs;
	}
};
var Ciovec = class Ciovec {
	static read_bytes(view, ptr) {
		const iovec = new Ciovec();
		iovec.buf = view.getUint32(ptr, true);
		iovec.buf_len = view.getUint32(ptr + 4, true);
		return iovec;
	}
	static read_bytes_array(view, ptr, len) {
		const iovecs = [];
		for (let i = 0; i < len; i++) iovecs.push(Ciovec.read_bytes(view, ptr + 8 * i));
		return iovecs;
	}
};
var Fdstat = class {
	write_bytes(view, ptr) {
		view.setUint8(ptr, this.fs_filetype);
		view.setUint16(ptr + 2, this.fs_flags, true);
		view.setBigUint64(ptr + 8, this.fs_rights_base, true);
		view.setBigUint64(ptr + 16, this.fs_rights_inherited, true);
	}
	constructor(filetype, flags) {
		this.fs_rights_base = 0n;
		this.fs_rights_inherited = 0n;
		this.fs_filetype = filetype;
		this.fs_flags = flags;
	}
};
var Filestat = class {
	write_bytes(view, ptr) {
		view.setBigUint64(ptr, this.dev, true);
		view.setBigUint64(ptr + 8, this.ino, true);
		view.setUint8(ptr + 16, this.filetype);
		view.setBigUint64(ptr + 24, this.nlink, true);
		view.setBigUint64(ptr + 32, this.size, true);
		view.setBigUint64(ptr + 38, this.atim, true);
		view.setBigUint64(ptr + 46, this.mtim, true);
		view.setBigUint64(ptr + 52, this.ctim, true);
	}
	constructor(ino, filetype, size) {
		this.dev = 0n;
		this.nlink = 0n;
		this.atim = 0n;
		this.mtim = 0n;
		this.ctim = 0n;
		this.ino = ino;
		this.filetype = filetype;
		this.size = size;
	}
};
var Subscription = class Subscription {
	static read_bytes(view, ptr) {
		return new Subscription(view.getBigUint64(ptr, true), view.getUint8(ptr + 8), view.getUint32(ptr + 16, true), view.getBigUint64(ptr + 24, true), view.getUint16(ptr + 36, true));
	}
	constructor(userdata, eventtype, clockid, timeout, flags) {
		this.userdata = userdata;
		this.eventtype = eventtype;
		this.clockid = clockid;
		this.timeout = timeout;
		this.flags = flags;
	}
};
var Event$1 = class {
	write_bytes(view, ptr) {
		view.setBigUint64(ptr, this.userdata, true);
		view.setUint16(ptr + 8, this.error, true);
		view.setUint8(ptr + 10, this.eventtype);
	}
	constructor(userdata, error, eventtype) {
		this.userdata = userdata;
		this.error = error;
		this.eventtype = eventtype;
	}
};
// node_modules/@bjorn3/browser_wasi_shim/dist/debug.js
var Debug = class Debug {
	enable(enabled) {
		this.log = createLogger(enabled === void 0 ? true : enabled, this.prefix);
	}
	get enabled() {
		return this.isEnabled;
	}
	constructor(isEnabled) {
		this.isEnabled = isEnabled;
		this.prefix = "wasi:";
		this.enable(isEnabled);
	}
};
function createLogger(enabled, prefix) {
	if (enabled) return console.log.bind(console, "%c%s", "color: #265BA0", prefix);
	else return () => {};
}
var debug = new Debug(false);
// node_modules/@bjorn3/browser_wasi_shim/dist/wasi.js
var WASIProcExit = class extends Error {
	constructor(code) {
		super("exit with exit code " + code);
		this.code = code;
	}
};
var WASI = class WASI {
	start(instance) {
		this.inst = instance;
		try {
			instance.exports._start();
			return 0;
		} catch (e) {
			if (e instanceof WASIProcExit) return e.code;
			else throw e;
		}
	}
	initialize(instance) {
		this.inst = instance;
		if (instance.exports._initialize) instance.exports._initialize();
	}
	constructor(args, env, fds, options = {}) {
		this.args = [];
		this.env = [];
		this.fds = [];
		debug.enable(options.debug);
		this.args = args;
		this.env = env;
		this.fds = fds;
		const self = this;
		this.wasiImport = {
			args_sizes_get(argc, argv_buf_size) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				buffer.setUint32(argc, self.args.length, true);
				let buf_size = 0;
				for (const arg of self.args) buf_size += arg.length + 1;
				buffer.setUint32(argv_buf_size, buf_size, true);
				debug.log(buffer.getUint32(argc, true), buffer.getUint32(argv_buf_size, true));
				return 0;
			},
			args_get(argv, argv_buf) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				const orig_argv_buf = argv_buf;
				for (let i = 0; i < self.args.length; i++) {
					buffer.setUint32(argv, argv_buf, true);
					argv += 4;
					const arg = new TextEncoder().encode(self.args[i]);
					buffer8.set(arg, argv_buf);
					buffer.setUint8(argv_buf + arg.length, 0);
					argv_buf += arg.length + 1;
				}
				if (debug.enabled) debug.log(new TextDecoder("utf-8").decode(buffer8.slice(orig_argv_buf, argv_buf)));
				return 0;
			},
			environ_sizes_get(environ_count, environ_size) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				buffer.setUint32(environ_count, self.env.length, true);
				let buf_size = 0;
				for (const environ of self.env) buf_size += new TextEncoder().encode(environ).length + 1;
				buffer.setUint32(environ_size, buf_size, true);
				debug.log(buffer.getUint32(environ_count, true), buffer.getUint32(environ_size, true));
				return 0;
			},
			environ_get(environ, environ_buf) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				const orig_environ_buf = environ_buf;
				for (let i = 0; i < self.env.length; i++) {
					buffer.setUint32(environ, environ_buf, true);
					environ += 4;
					const e = new TextEncoder().encode(self.env[i]);
					buffer8.set(e, environ_buf);
					buffer.setUint8(environ_buf + e.length, 0);
					environ_buf += e.length + 1;
				}
				if (debug.enabled) debug.log(new TextDecoder("utf-8").decode(buffer8.slice(orig_environ_buf, environ_buf)));
				return 0;
			},
			clock_res_get(id, res_ptr) {
				let resolutionValue;
				switch (id) {
					case 1:
						resolutionValue = 5000n;
						break;
					case 0:
						resolutionValue = 1000000n;
						break;
					default: return 52;
				}
				new DataView(self.inst.exports.memory.buffer).setBigUint64(res_ptr, resolutionValue, true);
				return 0;
			},
			clock_time_get(id, precision, time) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				if (id === 0) buffer.setBigUint64(time, BigInt((/* @__PURE__ */ new Date()).getTime()) * 1000000n, true);
				else if (id == 1) {
					let monotonic_time;
					try {
						monotonic_time = BigInt(Math.round(performance.now() * 1e6));
					} catch (e) {
						monotonic_time = 0n;
					}
					buffer.setBigUint64(time, monotonic_time, true);
				} else buffer.setBigUint64(time, 0n, true);
				return 0;
			},
			fd_advise(fd, offset, len, advice) {
				if (self.fds[fd] != void 0) return 0;
				else return 8;
			},
			fd_allocate(fd, offset, len) {
				if (self.fds[fd] != void 0) return self.fds[fd].fd_allocate(offset, len);
				else return 8;
			},
			fd_close(fd) {
				if (self.fds[fd] != void 0) {
					const ret = self.fds[fd].fd_close();
					self.fds[fd] = void 0;
					return ret;
				} else return 8;
			},
			fd_datasync(fd) {
				if (self.fds[fd] != void 0) return self.fds[fd].fd_sync();
				else return 8;
			},
			fd_fdstat_get(fd, fdstat_ptr) {
				if (self.fds[fd] != void 0) {
					const { ret, fdstat } = self.fds[fd].fd_fdstat_get();
					if (fdstat != null) fdstat.write_bytes(new DataView(self.inst.exports.memory.buffer), fdstat_ptr);
					return ret;
				} else return 8;
			},
			fd_fdstat_set_flags(fd, flags) {
				if (self.fds[fd] != void 0) return self.fds[fd].fd_fdstat_set_flags(flags);
				else return 8;
			},
			fd_fdstat_set_rights(fd, fs_rights_base, fs_rights_inheriting) {
				if (self.fds[fd] != void 0) return self.fds[fd].fd_fdstat_set_rights(fs_rights_base, fs_rights_inheriting);
				else return 8;
			},
			fd_filestat_get(fd, filestat_ptr) {
				if (self.fds[fd] != void 0) {
					const { ret, filestat } = self.fds[fd].fd_filestat_get();
					if (filestat != null) filestat.write_bytes(new DataView(self.inst.exports.memory.buffer), filestat_ptr);
					return ret;
				} else return 8;
			},
			fd_filestat_set_size(fd, size) {
				if (self.fds[fd] != void 0) return self.fds[fd].fd_filestat_set_size(size);
				else return 8;
			},
			fd_filestat_set_times(fd, atim, mtim, fst_flags) {
				if (self.fds[fd] != void 0) return self.fds[fd].fd_filestat_set_times(atim, mtim, fst_flags);
				else return 8;
			},
			fd_pread(fd, iovs_ptr, iovs_len, offset, nread_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const iovecs = Iovec.read_bytes_array(buffer, iovs_ptr, iovs_len);
					let nread = 0;
					for (const iovec of iovecs) {
						const { ret, data } = self.fds[fd].fd_pread(iovec.buf_len, offset);
						if (ret != 0) {
							buffer.setUint32(nread_ptr, nread, true);
							return ret;
						}
						buffer8.set(data, iovec.buf);
						nread += data.length;
						offset += BigInt(data.length);
						if (data.length != iovec.buf_len) break;
					}
					buffer.setUint32(nread_ptr, nread, true);
					return 0;
				} else return 8;
			},
			fd_prestat_get(fd, buf_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const { ret, prestat } = self.fds[fd].fd_prestat_get();
					if (prestat != null) prestat.write_bytes(buffer, buf_ptr);
					return ret;
				} else return 8;
			},
			fd_prestat_dir_name(fd, path_ptr, path_len) {
				if (self.fds[fd] != void 0) {
					const { ret, prestat } = self.fds[fd].fd_prestat_get();
					if (prestat == null) return ret;
					const prestat_dir_name = prestat.inner.pr_name;
					new Uint8Array(self.inst.exports.memory.buffer).set(prestat_dir_name.slice(0, path_len), path_ptr);
					return prestat_dir_name.byteLength > path_len ? 37 : 0;
				} else return 8;
			},
			fd_pwrite(fd, iovs_ptr, iovs_len, offset, nwritten_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const iovecs = Ciovec.read_bytes_array(buffer, iovs_ptr, iovs_len);
					let nwritten = 0;
					for (const iovec of iovecs) {
						const data = buffer8.slice(iovec.buf, iovec.buf + iovec.buf_len);
						const { ret, nwritten: nwritten_part } = self.fds[fd].fd_pwrite(data, offset);
						if (ret != 0) {
							buffer.setUint32(nwritten_ptr, nwritten, true);
							return ret;
						}
						nwritten += nwritten_part;
						offset += BigInt(nwritten_part);
						if (nwritten_part != data.byteLength) break;
					}
					buffer.setUint32(nwritten_ptr, nwritten, true);
					return 0;
				} else return 8;
			},
			fd_read(fd, iovs_ptr, iovs_len, nread_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const iovecs = Iovec.read_bytes_array(buffer, iovs_ptr, iovs_len);
					let nread = 0;
					for (const iovec of iovecs) {
						const { ret, data } = self.fds[fd].fd_read(iovec.buf_len);
						if (ret != 0) {
							buffer.setUint32(nread_ptr, nread, true);
							return ret;
						}
						buffer8.set(data, iovec.buf);
						nread += data.length;
						if (data.length != iovec.buf_len) break;
					}
					buffer.setUint32(nread_ptr, nread, true);
					return 0;
				} else return 8;
			},
			fd_readdir(fd, buf, buf_len, cookie, bufused_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					let bufused = 0;
					while (true) {
						const { ret, dirent } = self.fds[fd].fd_readdir_single(cookie);
						if (ret != 0) {
							buffer.setUint32(bufused_ptr, bufused, true);
							return ret;
						}
						if (dirent == null) break;
						if (buf_len - bufused < dirent.head_length()) {
							bufused = buf_len;
							break;
						}
						const head_bytes = new ArrayBuffer(dirent.head_length());
						dirent.write_head_bytes(new DataView(head_bytes), 0);
						buffer8.set(new Uint8Array(head_bytes).slice(0, Math.min(head_bytes.byteLength, buf_len - bufused)), buf);
						buf += dirent.head_length();
						bufused += dirent.head_length();
						if (buf_len - bufused < dirent.name_length()) {
							bufused = buf_len;
							break;
						}
						dirent.write_name_bytes(buffer8, buf, buf_len - bufused);
						buf += dirent.name_length();
						bufused += dirent.name_length();
						cookie = dirent.d_next;
					}
					buffer.setUint32(bufused_ptr, bufused, true);
					return 0;
				} else return 8;
			},
			fd_renumber(fd, to) {
				if (self.fds[fd] != void 0 && self.fds[to] != void 0) {
					const ret = self.fds[to].fd_close();
					if (ret != 0) return ret;
					self.fds[to] = self.fds[fd];
					self.fds[fd] = void 0;
					return 0;
				} else return 8;
			},
			fd_seek(fd, offset, whence, offset_out_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const { ret, offset: offset_out } = self.fds[fd].fd_seek(offset, whence);
					buffer.setBigInt64(offset_out_ptr, offset_out, true);
					return ret;
				} else return 8;
			},
			fd_sync(fd) {
				if (self.fds[fd] != void 0) return self.fds[fd].fd_sync();
				else return 8;
			},
			fd_tell(fd, offset_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const { ret, offset } = self.fds[fd].fd_tell();
					buffer.setBigUint64(offset_ptr, offset, true);
					return ret;
				} else return 8;
			},
			fd_write(fd, iovs_ptr, iovs_len, nwritten_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const iovecs = Ciovec.read_bytes_array(buffer, iovs_ptr, iovs_len);
					let nwritten = 0;
					for (const iovec of iovecs) {
						const data = buffer8.slice(iovec.buf, iovec.buf + iovec.buf_len);
						const { ret, nwritten: nwritten_part } = self.fds[fd].fd_write(data);
						if (ret != 0) {
							buffer.setUint32(nwritten_ptr, nwritten, true);
							return ret;
						}
						nwritten += nwritten_part;
						if (nwritten_part != data.byteLength) break;
					}
					buffer.setUint32(nwritten_ptr, nwritten, true);
					return 0;
				} else return 8;
			},
			path_create_directory(fd, path_ptr, path_len) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const path = new TextDecoder("utf-8").decode(buffer8.slice(path_ptr, path_ptr + path_len));
					return self.fds[fd].path_create_directory(path);
				} else return 8;
			},
			path_filestat_get(fd, flags, path_ptr, path_len, filestat_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const path = new TextDecoder("utf-8").decode(buffer8.slice(path_ptr, path_ptr + path_len));
					const { ret, filestat } = self.fds[fd].path_filestat_get(flags, path);
					if (filestat != null) filestat.write_bytes(buffer, filestat_ptr);
					return ret;
				} else return 8;
			},
			path_filestat_set_times(fd, flags, path_ptr, path_len, atim, mtim, fst_flags) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const path = new TextDecoder("utf-8").decode(buffer8.slice(path_ptr, path_ptr + path_len));
					return self.fds[fd].path_filestat_set_times(flags, path, atim, mtim, fst_flags);
				} else return 8;
			},
			path_link(old_fd, old_flags, old_path_ptr, old_path_len, new_fd, new_path_ptr, new_path_len) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[old_fd] != void 0 && self.fds[new_fd] != void 0) {
					const old_path = new TextDecoder("utf-8").decode(buffer8.slice(old_path_ptr, old_path_ptr + old_path_len));
					const new_path = new TextDecoder("utf-8").decode(buffer8.slice(new_path_ptr, new_path_ptr + new_path_len));
					const { ret, inode_obj } = self.fds[old_fd].path_lookup(old_path, old_flags);
					if (inode_obj == null) return ret;
					return self.fds[new_fd].path_link(new_path, inode_obj, false);
				} else return 8;
			},
			path_open(fd, dirflags, path_ptr, path_len, oflags, fs_rights_base, fs_rights_inheriting, fd_flags, opened_fd_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const path = new TextDecoder("utf-8").decode(buffer8.slice(path_ptr, path_ptr + path_len));
					debug.log(path);
					const { ret, fd_obj } = self.fds[fd].path_open(dirflags, path, oflags, fs_rights_base, fs_rights_inheriting, fd_flags);
					if (ret != 0) return ret;
					self.fds.push(fd_obj);
					const opened_fd = self.fds.length - 1;
					buffer.setUint32(opened_fd_ptr, opened_fd, true);
					return 0;
				} else return 8;
			},
			path_readlink(fd, path_ptr, path_len, buf_ptr, buf_len, nread_ptr) {
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const path = new TextDecoder("utf-8").decode(buffer8.slice(path_ptr, path_ptr + path_len));
					debug.log(path);
					const { ret, data } = self.fds[fd].path_readlink(path);
					if (data != null) {
						const data_buf = new TextEncoder().encode(data);
						if (data_buf.length > buf_len) {
							buffer.setUint32(nread_ptr, 0, true);
							return 8;
						}
						buffer8.set(data_buf, buf_ptr);
						buffer.setUint32(nread_ptr, data_buf.length, true);
					}
					return ret;
				} else return 8;
			},
			path_remove_directory(fd, path_ptr, path_len) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const path = new TextDecoder("utf-8").decode(buffer8.slice(path_ptr, path_ptr + path_len));
					return self.fds[fd].path_remove_directory(path);
				} else return 8;
			},
			path_rename(fd, old_path_ptr, old_path_len, new_fd, new_path_ptr, new_path_len) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0 && self.fds[new_fd] != void 0) {
					const old_path = new TextDecoder("utf-8").decode(buffer8.slice(old_path_ptr, old_path_ptr + old_path_len));
					const new_path = new TextDecoder("utf-8").decode(buffer8.slice(new_path_ptr, new_path_ptr + new_path_len));
					let { ret, inode_obj } = self.fds[fd].path_unlink(old_path);
					if (inode_obj == null) return ret;
					ret = self.fds[new_fd].path_link(new_path, inode_obj, true);
					if (ret != 0) {
						if (self.fds[fd].path_link(old_path, inode_obj, true) != 0) throw "path_link should always return success when relinking an inode back to the original place";
					}
					return ret;
				} else return 8;
			},
			path_symlink(old_path_ptr, old_path_len, fd, new_path_ptr, new_path_len) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					new TextDecoder("utf-8").decode(buffer8.slice(old_path_ptr, old_path_ptr + old_path_len));
					new TextDecoder("utf-8").decode(buffer8.slice(new_path_ptr, new_path_ptr + new_path_len));
					return 58;
				} else return 8;
			},
			path_unlink_file(fd, path_ptr, path_len) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer);
				if (self.fds[fd] != void 0) {
					const path = new TextDecoder("utf-8").decode(buffer8.slice(path_ptr, path_ptr + path_len));
					return self.fds[fd].path_unlink_file(path);
				} else return 8;
			},
			poll_oneoff(in_ptr, out_ptr, nsubscriptions) {
				if (nsubscriptions === 0) return 28;
				if (nsubscriptions > 1) {
					debug.log("poll_oneoff: only a single subscription is supported");
					return 58;
				}
				const buffer = new DataView(self.inst.exports.memory.buffer);
				const s = Subscription.read_bytes(buffer, in_ptr);
				const eventtype = s.eventtype;
				const clockid = s.clockid;
				const timeout = s.timeout;
				if (eventtype !== 0) {
					debug.log("poll_oneoff: only clock subscriptions are supported");
					return 58;
				}
				let getNow = void 0;
				if (clockid === 1) getNow = () => BigInt(Math.round(performance.now() * 1e6));
				else if (clockid === 0) getNow = () => BigInt((/* @__PURE__ */ new Date()).getTime()) * 1000000n;
				else return 28;
				const endTime = (s.flags & 1) !== 0 ? timeout : getNow() + timeout;
				while (endTime > getNow());
				new Event$1(s.userdata, 0, eventtype).write_bytes(buffer, out_ptr);
				return 0;
			},
			proc_exit(exit_code) {
				throw new WASIProcExit(exit_code);
			},
			proc_raise(sig) {
				throw "raised signal " + sig;
			},
			sched_yield() {},
			random_get(buf, buf_len) {
				const buffer8 = new Uint8Array(self.inst.exports.memory.buffer).subarray(buf, buf + buf_len);
				if ("crypto" in globalThis && (typeof SharedArrayBuffer === "undefined" || !(self.inst.exports.memory.buffer instanceof SharedArrayBuffer))) for (let i = 0; i < buf_len; i += 65536) crypto.getRandomValues(buffer8.subarray(i, i + 65536));
				else for (let i = 0; i < buf_len; i++) buffer8[i] = Math.random() * 256 | 0;
			},
			sock_recv(fd, ri_data, ri_flags) {
				throw "sockets not supported";
			},
			sock_send(fd, si_data, si_flags) {
				throw "sockets not supported";
			},
			sock_shutdown(fd, how) {
				throw "sockets not supported";
			},
			sock_accept(fd, flags) {
				throw "sockets not supported";
			}
		};
	}
};
// node_modules/@bjorn3/browser_wasi_shim/dist/fd.js
var Fd = class {
	fd_allocate(offset, len) {
		return 58;
	}
	fd_close() {
		return 0;
	}
	fd_fdstat_get() {
		return {
			ret: 58,
			fdstat: null
		};
	}
	fd_fdstat_set_flags(flags) {
		return 58;
	}
	fd_fdstat_set_rights(fs_rights_base, fs_rights_inheriting) {
		return 58;
	}
	fd_filestat_get() {
		return {
			ret: 58,
			filestat: null
		};
	}
	fd_filestat_set_size(size) {
		return 58;
	}
	fd_filestat_set_times(atim, mtim, fst_flags) {
		return 58;
	}
	fd_pread(size, offset) {
		return {
			ret: 58,
			data: /* @__PURE__ */ new Uint8Array()
		};
	}
	fd_prestat_get() {
		return {
			ret: 58,
			prestat: null
		};
	}
	fd_pwrite(data, offset) {
		return {
			ret: 58,
			nwritten: 0
		};
	}
	fd_read(size) {
		return {
			ret: 58,
			data: /* @__PURE__ */ new Uint8Array()
		};
	}
	fd_readdir_single(cookie) {
		return {
			ret: 58,
			dirent: null
		};
	}
	fd_seek(offset, whence) {
		return {
			ret: 58,
			offset: 0n
		};
	}
	fd_sync() {
		return 0;
	}
	fd_tell() {
		return {
			ret: 58,
			offset: 0n
		};
	}
	fd_write(data) {
		return {
			ret: 58,
			nwritten: 0
		};
	}
	path_create_directory(path) {
		return 58;
	}
	path_filestat_get(flags, path) {
		return {
			ret: 58,
			filestat: null
		};
	}
	path_filestat_set_times(flags, path, atim, mtim, fst_flags) {
		return 58;
	}
	path_link(path, inode, allow_dir) {
		return 58;
	}
	path_unlink(path) {
		return {
			ret: 58,
			inode_obj: null
		};
	}
	path_lookup(path, dirflags) {
		return {
			ret: 58,
			inode_obj: null
		};
	}
	path_open(dirflags, path, oflags, fs_rights_base, fs_rights_inheriting, fd_flags) {
		return {
			ret: 54,
			fd_obj: null
		};
	}
	path_readlink(path) {
		return {
			ret: 58,
			data: null
		};
	}
	path_remove_directory(path) {
		return 58;
	}
	path_rename(old_path, new_fd, new_path) {
		return 58;
	}
	path_unlink_file(path) {
		return 58;
	}
};
var Inode = class Inode {
	static issue_ino() {
		return Inode.next_ino++;
	}
	static root_ino() {
		return 0n;
	}
	constructor() {
		this.ino = Inode.issue_ino();
	}
};
Inode.next_ino = 1n;
// src/sandbox/stream.ts
/** Where a stream's bytes are kept: memory that whoever ends this thread can still read, or not. */
var Kept = class {
	#data;
	#sizes;
	#at;
	#most = 0;
	/** sizes holds, from at, how many bytes there are and whether there were more. */
	constructor(data, sizes, at) {
		this.#data = data;
		this.#sizes = sizes;
		this.#at = at;
	}
	begin(most) {
		this.#most = Math.min(most, this.#data.length);
		this.#sizes[this.#at] = 0;
		this.#sizes[this.#at + 1] = 0;
	}
	add(data) {
		const size = this.#sizes[this.#at];
		const kept = Math.min(data.length, this.#most - size);
		if (kept) {
			this.#data.set(data.subarray(0, kept), size);
			this.#sizes[this.#at] = size + kept;
		}
		if (kept < data.length) this.#sizes[this.#at + 1] = 1;
	}
	get isCut() {
		return this.#sizes[this.#at + 1] !== 0;
	}
	taken() {
		const size = this.#sizes[this.#at];
		return size ? this.#data.slice(0, size) : NO_BYTES;
	}
};
/** What stdin and the two others have in common: no place, no size, no times; no guest learns what they are. */
var Stream = class extends Fd {
	fd_fdstat_get() {
		const fdstat = new Fdstat(0, 0);
		const rights = BigInt(this.isInput ? 2 : 64);
		fdstat.fs_rights_base = rights;
		fdstat.fs_rights_inherited = rights;
		return {
			ret: 0,
			fdstat
		};
	}
	fd_filestat_get() {
		const filestat = new Filestat(0n, 0, 0n);
		filestat.nlink = 0n;
		return {
			ret: 0,
			filestat
		};
	}
};
var Input = class extends Stream {
	isInput = true;
	#left;
	constructor(data) {
		super();
		this.#left = data;
	}
	fd_read(size) {
		const data = this.#left.subarray(0, size);
		this.#left = this.#left.subarray(data.length);
		return {
			ret: 0,
			data
		};
	}
};
var Output = class extends Stream {
	isInput = false;
	#kept;
	constructor(kept) {
		super();
		this.#kept = kept;
	}
	fd_write(data) {
		this.#kept.add(data);
		return {
			ret: 0,
			nwritten: data.length
		};
	}
};
// src/sandbox/control.ts
var INTS = 16;
var PLACE = 0;
var WRITTEN = 1;
var READ = 2;
var PAUSED = 3;
var STDOUT = 4;
var STDERR = 6;
var STARTED_AT = 64;
var MARKS_AT = 128;
var MARKS = 256;
var LOG_AT = 384;
var LOG_BYTES = 524288;
/** A record that is larger goes by message. */
var LOGGED_BYTES_MAX = 65536;
/** Of stdout and of stderr, what survives the end of the thread. */
var OUTPUT_BYTES_MAX = 1 << 20;
var IDLE = -1;
/** How long the thread waits at a time for its log to be read. */
var READ_WAIT_MS = 1e3;
var Control = class Control {
	buffer;
	isShared;
	#ints;
	#started;
	#marks;
	#log;
	constructor(buffer) {
		this.buffer = buffer;
		this.isShared = typeof SharedArrayBuffer !== "undefined" && buffer instanceof SharedArrayBuffer;
		this.#ints = new Int32Array(buffer, 0, INTS);
		this.#started = new Float64Array(buffer, STARTED_AT, 1);
		this.#marks = new Uint8Array(buffer, MARKS_AT, MARKS);
		this.#log = new Uint8Array(buffer, LOG_AT, LOG_BYTES);
	}
	static fresh() {
		const control = new Control(newBuffer(524672));
		control.rest();
		return control;
	}
	/** Notes that the run at a place begins, at that time of the thread's own clock. */
	enter(place, nowMs) {
		this.#started[0] = nowMs;
		Atomics.store(this.#ints, PLACE, place);
	}
	/** Notes that no run is under way. */
	rest() {
		Atomics.store(this.#ints, PLACE, IDLE);
	}
	isMarked(place) {
		return Atomics.load(this.#marks, place) !== 0;
	}
	/** Adds a record to the log, waiting until there is room; `notify` has it read. */
	append(record, notify) {
		let written = Atomics.load(this.#ints, WRITTEN);
		if (written + record.length > LOG_BYTES) {
			notify();
			this.#waitUntilRead(written);
			Atomics.store(this.#ints, WRITTEN, 0);
			Atomics.store(this.#ints, READ, 0);
			written = 0;
		}
		this.#log.set(record, written);
		Atomics.store(this.#ints, WRITTEN, written + record.length);
	}
	#waitUntilRead(written) {
		for (let read = Atomics.load(this.#ints, READ); read !== written; read = Atomics.load(this.#ints, READ)) Atomics.wait(this.#ints, READ, read, READ_WAIT_MS);
	}
	/** Waits while nothing more is to begin. */
	waitWhilePaused() {
		while (this.isShared && Atomics.load(this.#ints, PAUSED)) Atomics.wait(this.#ints, PAUSED, 1, READ_WAIT_MS);
	}
	/** Which run is under way, and since when by the thread's clock; null: none is. */
	get running() {
		const place = Atomics.load(this.#ints, PLACE);
		return place === IDLE ? null : {
			place,
			startedMs: this.#started[0]
		};
	}
	/** Returns what was added to the log since this was called last. */
	drain() {
		const written = Atomics.load(this.#ints, WRITTEN);
		const read = Atomics.load(this.#ints, READ);
		const data = this.#log.slice(read, written);
		if (read !== written) {
			Atomics.store(this.#ints, READ, written);
			Atomics.notify(this.#ints, READ);
		}
		return data;
	}
	mark(place) {
		Atomics.store(this.#marks, place, 1);
	}
	unmarkAll() {
		this.#marks.fill(0);
	}
	set isPaused(paused) {
		Atomics.store(this.#ints, PAUSED, paused ? 1 : 0);
		Atomics.notify(this.#ints, PAUSED);
	}
	/** Returns where the two streams are kept, each in one half of data. */
	outputs(data) {
		const half = data.byteLength / 2;
		return {
			stdout: new Kept(new Uint8Array(data, 0, half), this.#ints, STDOUT),
			stderr: new Kept(new Uint8Array(data, half), this.#ints, STDERR)
		};
	}
};
/** Returns zeros, shared between threads where the page may do that. */
function newBuffer(size) {
	return typeof SharedArrayBuffer === "undefined" ? new ArrayBuffer(size) : new SharedArrayBuffer(size);
}
// \0vite/preload-helper.js
var scriptRel = /* @__PURE__ */ (function detectScriptRel() {
	const relList = typeof document !== "undefined" && document.createElement("link").relList;
	return relList && relList.supports && relList.supports("modulepreload") ? "modulepreload" : "preload";
})();
var assetsURL = function(dep) {
	return "/" + dep;
};
var seen = {};
var isCssPreloadUrl = function isCssPreloadUrl(url) {
	return url.pathname.endsWith(".css");
};
var preloadOnce = function preloadOnce(seen, href, preload) {
	if (href in seen) return seen[href];
	const promise = preload();
	if (!promise) {
		seen[href] = void 0;
		return;
	}
	const preloadPromise = promise.then(() => {
		seen[href] = void 0;
	}, (err) => {
		seen[href] = void 0;
		throw err;
	});
	seen[href] = preloadPromise;
	return preloadPromise;
};
var __vitePreload = function preload(baseModule, deps, importerUrl) {
	let promise = Promise.resolve();
	if (deps && deps.length > 0) {
		let preloadedHrefs;
		const cspNonceMeta = document.querySelector("meta[property=csp-nonce]");
		const cspNonce = cspNonceMeta?.nonce || cspNonceMeta?.getAttribute("nonce");
		function allSettled(promises) {
			return Promise.all(promises.map((p) => Promise.resolve(p).then((value) => ({
				status: "fulfilled",
				value
			}), (reason) => ({
				status: "rejected",
				reason
			}))));
		}
		function importMetaResolve(specifier) {
			if (import.meta.resolve) return new URL(import.meta.resolve(specifier));
			return new URL(
				specifier,
				/** #__KEEP__ */
				import.meta.url
			);
		}
		promise = allSettled(deps.map((depString) => {
			depString = assetsURL(depString, importerUrl);
			const dep = importMetaResolve(depString);
			const isCss = isCssPreloadUrl(dep);
			return preloadOnce(seen, dep.href, () => {
				if (preloadedHrefs === void 0) {
					preloadedHrefs = {
						all: /* @__PURE__ */ new Set(),
						styles: /* @__PURE__ */ new Set()
					};
					const links = document.getElementsByTagName("link");
					for (let i = links.length - 1; i >= 0; i--) {
						const link = links[i];
						preloadedHrefs.all.add(link.href);
						if (link.rel === "stylesheet") preloadedHrefs.styles.add(link.href);
					}
				}
				if ((isCss ? preloadedHrefs.styles : preloadedHrefs.all).has(dep.href)) return;
				const link = document.createElement("link");
				link.rel = isCss ? "stylesheet" : scriptRel;
				if (!isCss) link.as = "script";
				link.crossOrigin = "";
				link.href = dep.href;
				if (cspNonce) link.setAttribute("nonce", cspNonce);
				document.head.appendChild(link);
				if (isCss) return new Promise((res, rej) => {
					const handleSettle = (e) => {
						link.removeEventListener("load", handleSettle);
						link.removeEventListener("error", handleSettle);
						if (e.type === "error") rej(/* @__PURE__ */ new Error(`Unable to preload CSS for ${dep}`));
						else res(e);
					};
					link.addEventListener("load", handleSettle);
					link.addEventListener("error", handleSettle);
				});
			});
		}).filter((p) => p !== void 0));
	}
	function handlePreloadError(err) {
		const e = new Event("vite:preloadError", { cancelable: true });
		e.payload = err;
		window.dispatchEvent(e);
		if (!e.defaultPrevented) throw err;
	}
	return promise.then((res) => {
		for (const item of res || []) {
			if (item.status !== "rejected") continue;
			handlePreloadError(item.reason);
		}
		return baseModule().catch(handlePreloadError);
	});
};
export { abool as A, rotr as B, PAGE_BYTES as C, Failure as D, aboutOf as E, checkOpts as F, u32 as H, clean as I, createHasher as L, aexists as M, anumber as N, lineOf as O, aoutput as P, createView as R, Writer as S, WASI_MODULE as T, setU64FromNum as U, swap32IfBE as V, split as W, writeOutcome as _, newBuffer as a, newResult as b, Stream as c, MEMORY_NAME as d, rewritten as f, spansOf as g, readInput as h, OUTPUT_BYTES_MAX as i, abytes as j, oneLine as k, WASI as l, concatenated as m, Control as n, Input as o, LARGE_BYTES as p, LOGGED_BYTES_MAX as r, Output as s, __vitePreload as t, WASIProcExit as u, REASONS as v, WASI_FUNCTIONS as w, ModuleInfo as x, checkInvocation as y, oidNist as z };
