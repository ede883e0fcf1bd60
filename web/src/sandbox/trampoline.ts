// A way into functions that take or give floats, by their bits.
//
// Holds a module, made by hand, between an export of a guest and us: JavaScript may change which NaN a number is on its
// way in or out, WebAssembly does not. Must not know guests.

import type { Callable } from "./about";
import { Writer } from "./binary";

const I64 = 0x7e;
const TYPES: Readonly<Record<string, number>> = { i32: 0x7f, i64: I64, f32: 0x7d, f64: 0x7c };
/** From the form of Invocation.arguments, an i64, to each type, and back. */
const INTO: Readonly<Record<string, number[]>> = { i32: [0xa7], i64: [], f32: [0xbf, 0xb6], f64: [0xbf] };
const OUT_OF: Readonly<Record<string, number[]>> = { i32: [0xac], i64: [], f32: [0xbb, 0xbd], f64: [0xbd] };

const made = new Map<string, WebAssembly.Module>();
const MADE_MAX = 64;

/** Whether a function's numbers have to go by their bits. */
export function needsTrampoline(callable: Callable): boolean {
  return [...callable.parameters, callable.result ?? ""].some((type) => type.startsWith("f"));
}

/** Returns a function like the guest's own, of i64 alone. */
export function throughTrampoline(callable: Callable, entry: Function): (...given: bigint[]) => bigint | undefined {
  const key = `${callable.parameters.join()}:${callable.result}`;
  let module = made.get(key);
  if (!module) {
    if (made.size >= MADE_MAX) {
      made.clear();
    }
    module = new WebAssembly.Module(trampoline(callable));
    made.set(key, module);
  }
  const instance = new WebAssembly.Instance(module, { ww: { entry: entry as WebAssembly.ExportValue } });
  return instance.exports.entry as (...given: bigint[]) => bigint | undefined;
}

function trampoline({ parameters, result }: Callable): Uint8Array<ArrayBuffer> {
  const out = new Writer();
  out.bytes([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
  const types = section(1, (body) => {
    body.number(2);
    for (const typeOf of [(type: string) => TYPES[type]!, () => I64]) {
      body.byte(0x60);
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
  for (const each of [types, imports, functions, exports, code]) {
    out.bytes(each.taken());
  }
  return out.taken();
}

function section(id: number, write: (body: Writer) => void): Writer {
  const body = new Writer();
  write(body);
  const whole = new Writer();
  whole.section(id, body);
  return whole;
}

function bodyOf(parameters: readonly string[], result: string | null): Uint8Array {
  const body = new Writer();
  body.number(0);
  parameters.forEach((type, index) => {
    body.byte(0x20);
    body.number(index);
    body.bytes(INTO[type]!);
  });
  body.bytes([0x10, 0]);
  body.bytes(result ? OUT_OF[result]! : []);
  body.byte(0x0b);
  return body.taken();
}
