// What capnp-es lacks or does wrong in reading and writing messages, put right: null capabilities, copies of lists of
// structs, lists of capabilities, structs in fields of any type. Knows nothing of connections. The repairs are of its
// `utils`, by which generated code does everything, so the version of capnp-es is pinned.
import * as $ from "capnp-es";
import { CapabilityError } from "./errors";

const DEPTH_MAX = 32;
/** Capabilities of one message, and so of one list. */
export const CAPABILITIES_MAX = 8192;
// Of List's elements: one of structs has a tag before them; one of pointers holds these.
const LIST_BITS = 1;
const LIST_POINTERS = 6;
const LIST_STRUCTS = 7;

type StructClass<T> = {
  new (segment: $.Pointer["segment"], byteOffset: number, depthLimit?: number): T;
  readonly _capnp: { readonly size: $.ObjectSize };
};

/** What a call gives in generated code; capnp-es does not export the name. */
export type Answer<R extends $.Struct> = $.Pipeline<R, $.Struct, $.Struct>["answer"];
export type PipelineStep = $.Pipeline<$.Struct, $.Struct, $.Struct>["op"];

/** What a capability field holds when it is null. */
export class NullCapability implements $.Client {
  call<P extends $.Struct, R extends $.Struct>(): Answer<R> {
    const failure = () => Promise.reject(new CapabilityError("remote", "a call on a capability that is null"));
    return { struct: failure, pipelineCall: () => this.call<P, never>(), pipelineClose() {} } as Answer<R>;
  }

  close(): void {}
}

/** Return what a pointer to a capability leads to. */
export function clientAt(pointer: $.Pointer): $.Client {
  // Without this a null field would be the first capability of its message.
  if ($.utils.isNull(pointer) || $.utils.getTargetPointerType(pointer) !== $.PointerType.OTHER) {
    return new NullCapability();
  }
  const { capTable } = pointer.segment.message._capnp;
  return capTable?.[$.utils.getCapabilityId(pointer)] ?? new NullCapability();
}

/** Return whether a field's capability was null. */
export function isNull(capability: { client: $.Client }): boolean {
  return capability.client instanceof NullCapability;
}

/** Make a struct of that class of what a pointer of any type is, and return it to be written. */
export function initAs<T extends $.Struct>(kind: StructClass<T>, pointer: $.Pointer): T {
  const made = new kind(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
  $.utils.initStruct(kind._capnp.size, made);
  return made;
}

/** Read what a pointer of any type leads to as a struct of that class. */
export function structOf<T extends $.Struct>(pointer: $.Pointer, kind: StructClass<T>): T {
  const read = new kind(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
  if ($.utils.isNull(read)) {
    $.utils.initStruct(kind._capnp.size, read);
    return read;
  }
  $.utils.validate($.PointerType.STRUCT, read);
  const found = $.utils.getTargetStructSize(read);
  const { size } = kind._capnp;
  if (found.dataByteLength < size.dataByteLength || found.pointerLength < size.pointerLength) {
    $.utils.resize(size, read);
  }
  return read;
}

/** Return the capabilities of a list, as clients of that interface. */
export function capabilitiesOf<C>(list: $.List<unknown>, kind: { Client: new (client: $.Client) => C }): C[] {
  const { length } = list;
  if (length === 0) return [];
  // Elements of a list may have no size: a few bytes can say that there are millions.
  if (length > CAPABILITIES_MAX || $.utils.getTargetListElementSize(list) !== LIST_POINTERS) {
    throw new CapabilityError("usage", `a list of ${length} capabilities: expected at most ${CAPABILITIES_MAX}`);
  }
  return Array.from({ length }, (_, place) => new kind.Client(clientAt(elementOf(list, place))));
}

/** Write capabilities into a list that was made for as many. */
export function setCapabilities(list: $.List<unknown>, capabilities: readonly { client: $.Client }[]): void {
  capabilities.forEach((capability, place) => {
    const pointer = elementOf(list, place);
    $.utils.setInterfacePointer(pointer.segment.message.addCap(capability.client), pointer);
  });
}

function elementOf(list: $.List<unknown>, place: number): $.Pointer {
  const content = $.utils.getContent(list);
  return new $.Pointer(content.segment, content.byteOffset + 8 * place, list._capnp.depthLimit - 1);
}

/** Copy what one pointer leads to, into another message or the same. */
export function copyPointer(from: $.Pointer, to: $.Pointer, depth = DEPTH_MAX): void {
  if (from.segment === to.segment && from.byteOffset === to.byteOffset) return;
  if (depth === 0) throw new CapabilityError("usage", `what is sent is nested more than ${DEPTH_MAX} deep`);
  $.utils.erase(to);
  if ($.utils.isNull(from)) return;
  switch ($.utils.getTargetPointerType(from)) {
    case $.PointerType.STRUCT:
      return copyStruct(from, to, depth);
    case $.PointerType.LIST:
      return copyList(from, to, depth);
    default:
      $.utils.setInterfacePointer(to.segment.message.addCap(clientAt(from)), to);
  }
}

function copyStruct(from: $.Pointer, to: $.Pointer, depth: number): void {
  const size = $.utils.getSize(from as $.Struct);
  const source = $.utils.getContent(from);
  const target = to.segment.allocate(size.dataByteLength + 8 * size.pointerLength);
  copyElements(source, target, 1, size, depth);
  const placed = $.utils.initPointer(target.segment, target.byteOffset, to);
  $.utils.setStructPointer(placed.offsetWords, size, placed.pointer);
}

function copyList(from: $.Pointer, to: $.Pointer, depth: number): void {
  const source = $.utils.getContent(from);
  const kind = $.utils.getTargetListElementSize(from);
  const length = $.utils.getTargetListLength(from);
  if (kind === LIST_STRUCTS) {
    const size = $.utils.getTargetCompositeListSize(from);
    const target = to.segment.allocate(8 + length * (size.dataByteLength + 8 * size.pointerLength));
    $.utils.setStructPointer(length, size, target);
    const first = new $.Pointer(target.segment, target.byteOffset + 8);
    copyElements(source, first, length, size, depth);
    const placed = $.utils.initPointer(target.segment, target.byteOffset, to);
    $.utils.setListPointer(placed.offsetWords, kind, length, placed.pointer, size);
    return;
  }
  const bytes = kind === LIST_BITS ? (length + 7) >>> 3 : length * $.utils.getListElementByteLength(kind);
  const target = to.segment.allocate(bytes);
  if (kind === LIST_POINTERS) {
    copyElements(source, target, length, new $.ObjectSize(0, 1), depth);
  } else {
    target.segment.copyWords(target.byteOffset, source.segment, source.byteOffset, (bytes + 7) >>> 3);
  }
  const placed = $.utils.initPointer(target.segment, target.byteOffset, to);
  $.utils.setListPointer(placed.offsetWords, kind, length, placed.pointer);
}

function copyElements(from: $.Pointer, to: $.Pointer, count: number, size: $.ObjectSize, depth: number): void {
  const step = size.dataByteLength + 8 * size.pointerLength;
  for (let place = 0; place < count; place++) {
    const source = from.byteOffset + place * step;
    const target = to.byteOffset + place * step;
    to.segment.copyWords(target, from.segment, source, size.dataByteLength >>> 3);
    for (let at = size.dataByteLength; at < step; at += 8) {
      copyPointer(new $.Pointer(from.segment, source + at), new $.Pointer(to.segment, target + at), depth - 1);
    }
  }
}

function repair(): void {
  const utils = $.utils as {
    -readonly [Name in keyof typeof $.utils]: (typeof $.utils)[Name];
  };
  utils.getInterfaceClientOrNull = clientAt;
  utils.getInterfaceClientOrNullAt = (index, struct) => clientAt($.utils.getPointer(index, struct));
  utils.copyFrom = (from, to) => copyPointer(from, to);
}

repair();
