// Code whose floats are the same on every machine: whenever an operation gives a NaN, it gives the canonical one.
//
// Holds a reader that steps over every instruction, and what is put behind those that can make a NaN, as cranelift does
// it for wasmtime (`cranelift_nan_canonicalization`). An instruction that it does not know is refused, since what comes
// after it could be anything. Source: Core Specification 3.0, 5.4 (Instructions).

import { Reader, Writer } from "./binary";
import { type ModuleInfo, type Section, valueType } from "./inspect";

type FloatType = "f32" | "f64" | "f32x4" | "f64x2";

/** Instructions of one byte with numbers behind them, by how many. */
const UNLIKE = 255;
const WITH_ADDRESS = 254;
const WITH_TYPE = 253;
const NUMBERS: Uint8Array = new Uint8Array(256).fill(UNLIKE);
for (const [from, to, count] of [
  [0x00, 0x01, 0], [0x02, 0x04, WITH_TYPE], [0x05, 0x05, 0], [0x0b, 0x0b, 0], [0x0c, 0x0d, 1], [0x0f, 0x0f, 0],
  [0x10, 0x10, 1], [0x11, 0x11, 2], [0x12, 0x12, 1], [0x13, 0x13, 2], [0x1a, 0x1b, 0], [0x20, 0x26, 1],
  [0x28, 0x3e, WITH_ADDRESS], [0x3f, 0x42, 1], [0x45, 0xc4, 0], [0xd1, 0xd1, 0], [0xd2, 0xd2, 1],
] as const) {
  NUMBERS.fill(count, from, to + 1);
}
const BR_TABLE = 0x0e;
const SELECT_TYPED = 0x1c;
const REF_NULL = 0xd0;
const F32_CONST = 0x43;
const F64_CONST = 0x44;
const MISC = 0xfc;
const SIMD = 0xfd;
/** Of MISC, how many numbers stand behind each. */
const MISC_NUMBERS = [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1];
const RELAXED = 0x100;
/** Of the last byte of a signed number. */
const SIGN = 0x40;
const NO_RESULT = 0x40;
const NAMES_MEMORY = 0x40;

/** ceil, floor, trunc, nearest, sqrt, add, sub, mul, div, min, max; demote and promote. */
const SCALAR: (FloatType | undefined)[] = [];
SCALAR.length = 256;
SCALAR.fill("f32", 0x8d, 0x98).fill("f64", 0x9b, 0xa6);
SCALAR[0xb6] = "f32";
SCALAR[0xbb] = "f64";
/** demote, promote, ceil, floor, trunc, nearest; sqrt, add, sub, mul, div, min, max. pmin and pmax give one of what they are given. */
const VECTOR: (FloatType | undefined)[] = [];
VECTOR.length = 256;
VECTOR.fill("f32x4", 0x5e, 0x5f).fill("f64x2", 0x5f, 0x60).fill("f32x4", 0x67, 0x6b).fill("f32x4", 0xe3, 0xea).fill("f64x2", 0xef, 0xf6);
for (const operation of [0x74, 0x75, 0x7a, 0x94]) {
  VECTOR[operation] = "f64x2";
}

const NAN_F32 = [0, 0, 0xc0, 0x7f];
const NAN_F64 = [0, 0, 0, 0, 0, 0, 0xf8, 0x7f];
const LOCAL_GET = 0x20;
const LOCAL_TEE = 0x22;
/** For each type: its value type, the constant, the comparison with itself, and the choice between the two. */
const FORMS: Record<FloatType, { local: number; nan: number[]; equal: number[]; choose: number[] }> = {
  f32: { local: 0x7d, nan: [F32_CONST, ...NAN_F32], equal: [0x5b], choose: [0x1b] },
  f64: { local: 0x7c, nan: [F64_CONST, ...NAN_F64], equal: [0x61], choose: [0x1b] },
  f32x4: {
    local: 0x7b,
    nan: [SIMD, 0x0c, ...NAN_F32, ...NAN_F32, ...NAN_F32, ...NAN_F32],
    equal: [SIMD, 0x41],
    choose: [SIMD, 0x52],
  },
  f64x2: { local: 0x7b, nan: [SIMD, 0x0c, ...NAN_F64, ...NAN_F64], equal: [SIMD, 0x47], choose: [SIMD, 0x52] },
};

/** Of one function, which is as much as engines take, and of all; some instructions take twelve times their room. */
const FUNCTION_BYTES_MAX = 7_654_321;
const CODE_BYTES_MAX = 128 << 20;
/** Whose thread this is has peers to answer. */
const AT_A_TIME_MS = 20;

/** Returns the code section, rewritten; others have their turn in between. */
export async function canonicalCode(info: ModuleInfo, section: Section): Promise<Writer> {
  const out = new Writer(section.end - section.start + 1024);
  const scratch = new Writer(1 << 16);
  await eachFunction(info, section, {
    begin: (count) => out.number(count),
    body: (reader, index) => {
      checkSize(reader, "a function", reader.end - reader.at, FUNCTION_BYTES_MAX);
      const parameters = info.functions[info.importedFunctions + index]?.parameters.length ?? 0;
      scratch.clear();
      new Body(reader, parameters).write(scratch);
      out.sized(scratch.taken());
      checkSize(reader, "code", out.size, CODE_BYTES_MAX);
    },
  });
  return out;
}

/**
 * Sees that code holds no instruction but those that other workers run too. Engines of browsers know more: by exceptions
 * a guest would catch the end that a function of ours makes of it, and go on.
 */
export async function checkCode(info: ModuleInfo, section: Section): Promise<void> {
  await eachFunction(info, section, {
    body: (reader) => {
      for (let left = reader.count(); left; left--) {
        reader.skipNumber();
        valueType(reader);
      }
      while (reader.at < reader.end) {
        step(reader, true);
      }
    },
  });
}

interface Visitor {
  begin?(count: number): void;
  /** Of one function: its locals and instructions. */
  body(reader: Reader, index: number): void;
}

async function eachFunction(info: ModuleInfo, section: Section, visitor: Visitor): Promise<void> {
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

function checkSize(reader: Reader, what: string, bytes: number, most: number): void {
  if (bytes > most) {
    throw reader.bad(`holds ${what} of ${bytes} bytes for a deterministic run, at most ${most} are taken`);
  }
}

/** One function's locals and instructions. */
class Body {
  readonly #reader: Reader;
  readonly #start: number;
  /** Locals that come after the function's own, by value type. */
  readonly #added = new Map<number, number>();
  readonly #choices: Partial<Record<FloatType, Uint8Array>> = {};
  #locals: number;
  #groups = 0;

  constructor(reader: Reader, parameters: number) {
    this.#reader = reader;
    this.#start = reader.at;
    this.#locals = parameters;
  }

  write(out: Writer): void {
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

  #writeCode(code: Writer, codeAt: number): void {
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
    if (this.#added.size) {
      code.bytes(reader.data.subarray(copiedTo, reader.end));
    }
  }

  /** What is on the stack, or the canonical NaN in its place when it is none itself. */
  #choice(type: FloatType): Uint8Array {
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

  #local(type: number): number {
    let local = this.#added.get(type);
    if (local === undefined) {
      local = this.#locals + this.#added.size;
      this.#added.set(type, local);
    }
    return local;
  }
}

/** Steps over one instruction, and returns what it makes when that can be a NaN. */
function step(reader: Reader, mayRelax = false): FloatType | undefined {
  const operation = reader.byte();
  const numbers = NUMBERS[operation]!;
  if (numbers < WITH_TYPE) {
    for (let left = numbers; left; left--) {
      reader.skipNumber();
    }
    return SCALAR[operation];
  }
  if (numbers === WITH_ADDRESS) {
    skipAddress(reader);
    return undefined;
  }
  if (numbers === WITH_TYPE) {
    skipBlockType(reader);
    return undefined;
  }
  if (operation === SIMD) {
    return stepVector(reader, mayRelax);
  }
  if (operation === F32_CONST) {
    reader.skip(4);
  } else if (operation === F64_CONST) {
    reader.skip(8);
  } else if (operation === REF_NULL) {
    valueType(reader);
  } else if (operation === BR_TABLE) {
    skipNumbers(reader, reader.number() + 1);
  } else if (operation === SELECT_TYPED) {
    for (let left = reader.number(); left; left--) {
      valueType(reader);
    }
  } else if (operation === MISC) {
    stepMisc(reader);
  } else {
    throw reader.bad(`holds the unknown instruction 0x${operation.toString(16)}`);
  }
  return undefined;
}

function skipNumbers(reader: Reader, count: number): void {
  for (let left = count; left; left--) {
    reader.skipNumber();
  }
}

/** Nothing, one value type, or the number of a function's type: as one signed number, of which the first two are negative. */
function skipBlockType(reader: Reader): void {
  const first = reader.data[reader.at]!;
  if ((first & 0xc0) === SIGN && first !== NO_RESULT) {
    valueType(reader);
    return;
  }
  reader.skipNumber();
  if (first !== NO_RESULT && reader.data[reader.at - 1]! & SIGN) {
    throw reader.bad("holds a block of a type that no worker runs");
  }
}

/** An alignment and an offset, and between them a memory when the first says so. */
function skipAddress(reader: Reader): void {
  skipNumbers(reader, reader.number() & NAMES_MEMORY ? 2 : 1);
}

function stepMisc(reader: Reader): void {
  const operation = reader.number();
  const numbers = MISC_NUMBERS[operation];
  if (numbers === undefined) {
    throw reader.bad(`holds the unknown instruction 0xfc ${operation}`);
  }
  skipNumbers(reader, numbers);
}

function stepVector(reader: Reader, mayRelax: boolean): FloatType | undefined {
  const operation = reader.number();
  if (operation >= RELAXED) {
    if (mayRelax) {
      return undefined;
    }
    throw reader.bad(`holds relaxed SIMD (0xfd ${operation}), whose results differ between machines`);
  }
  if (operation <= 0x0b || (operation >= 0x54 && operation <= 0x5d)) {
    skipAddress(reader);
    if (operation >= 0x54 && operation <= 0x5b) {
      reader.skip(1);
    }
  } else if (operation === 0x0c || operation === 0x0d) {
    reader.skip(16);
  } else if (operation >= 0x15 && operation <= 0x22) {
    reader.skip(1);
  }
  return VECTOR[operation];
}
