// One connection to a peer: Cap'n Proto's RPC protocol, levels 0 and 1 between two. Holds the calls both ways and who
// refers to what; knows neither interfaces nor what carries the bytes. It takes the place of capnp-es's Conn, which
// lets go of nothing and cancels nothing. Source: rpc.capnp.
import * as $ from "capnp-es";
import {
  type Call,
  type CapDescriptor,
  CapDescriptor_Which,
  type Disembargo,
  Disembargo_Context_Which,
  type Finish,
  Message,
  type MessageTarget,
  Message_Which,
  type Payload,
  type Resolve,
  type Return,
  Return_Which,
} from "capnp-es/capnp/rpc";
import type { ByteReceiver, ByteStream } from "./bytes";
import { type Asking, Question } from "./calls";
import { Broken, type Hook, Local, Pipelined } from "./capability";
import { Embargoed } from "./embargo";
import { Cancelled, CapabilityError, Disconnected, decoded, oneLine } from "./errors";
import { MessageReader, framed } from "./framing";
import { type Outgoing, Outcome, type Transform, failed } from "./outcome";
import { Served } from "./served";
import {
  Exports,
  Imports,
  type Import,
  type Importing,
  Numbers,
  ProtocolError,
  isOfPeer,
  leadsTo,
  readTable,
  transformOf,
  writeTable,
} from "./tables";
import { copyPointer } from "./values";
import {
  abort,
  aimAt,
  aimAtAnswer,
  cancelledReturn,
  disembargoOf,
  failure,
  finish,
  releaseOf,
  resultsElsewhere,
} from "./writing";

// As many as a gateway takes of one peer, or fewer: ww/rpc/account.py.
const QUESTIONS_MAX = 4096;
const SERVED_MAX = 8192;
const SERVED_BYTES_MAX = 256 << 20;
// Failures that nobody meant, of one connection.
const LOGGED_MAX = 20;

/** A connection. */
export class Connection implements ByteReceiver, Asking, Importing {
  /** Fulfilled with the reason once it is gone; never rejected. */
  readonly closed: Promise<string>;
  readonly #stream: ByteStream;
  readonly #reader = new MessageReader();
  readonly #questions = new Map<number, Question>();
  readonly #questionNumbers = new Numbers();
  readonly #served = new Map<number, Served>();
  readonly #working = new Set<Served>();
  #servedBytes = 0;
  readonly #exports = new Exports();
  readonly #imports = new Imports();
  readonly #embargoes = new Map<number, Embargoed>();
  readonly #embargoNumbers = new Numbers();
  readonly #first: $.Client | undefined;
  #logged = 0;
  #isClosed = false;
  #tellClosed!: (reason: string) => void;

  /** `first` is what the peer gets that asks for it: nothing, where nothing is served. */
  constructor(stream: ByteStream, first?: $.Client) {
    this.#first = first;
    this.#stream = stream;
    this.closed = new Promise((resolve) => (this.#tellClosed = resolve));
    stream.start(this);
  }

  /** Return the first capability of the peer. */
  bootstrap(): Hook {
    const question = this.#ask((root, id) => {
      root._initBootstrap().questionId = id;
      return [];
    });
    return new Pipelined(question, []);
  }

  /** End it: what is under way both ways fails. Idempotent. */
  close(reason = "closed here"): void {
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

  // A ByteReceiver.

  received(bytes: Uint8Array): void {
    if (this.#isClosed) return;
    try {
      this.#reader.push(bytes, (message, size) => this.#take(message, size));
    } catch (error) {
      this.#abort(error);
    }
  }

  #abort(error: unknown): void {
    const why = oneLine(error instanceof Error ? error.message : String(error));
    try {
      this.#send(abort(why));
    } finally {
      this.close(`the peer does not speak Cap'n Proto as expected: ${why}`);
    }
  }

  ended(reason: string): void {
    this.close(reason);
  }

  // What comes.

  #take(message: $.Message, size: number): void {
    if (this.#isClosed) return;
    const root = message.getRoot(Message);
    switch (root.which()) {
      case Message_Which.CALL:
        return this.#takeCall(root.call, message, size);
      case Message_Which.RETURN:
        return this.#takeReturn(root.return, message);
      case Message_Which.FINISH:
        return this.#takeFinish(root.finish);
      case Message_Which.RELEASE:
        return this.#exports.release(root.release.id, root.release.referenceCount);
      case Message_Which.RESOLVE:
        return this.#takeResolve(root.resolve);
      case Message_Which.DISEMBARGO:
        return this.#takeDisembargo(root.disembargo);
      case Message_Which.BOOTSTRAP:
        return this.#answerBootstrap(root.bootstrap.questionId);
      case Message_Which.ABORT:
        return this.close(`the peer ended it: ${oneLine(root.abort.reason)}`);
      case Message_Which.UNIMPLEMENTED:
        throw new ProtocolError("it does not know a message that every peer knows");
      default:
        return this.#send((answer) => copyPointer(root, answer._initUnimplemented()));
    }
  }

  #answerBootstrap(id: number): void {
    const served = new Served(id, 0, false, []);
    this.#begin(served);
    if (this.#first === undefined) {
      return this.#refuse(served, new CapabilityError("not_found", "this peer exports nothing by itself"));
    }
    const content = served.place();
    $.utils.setInterfacePointer(content.segment.message.addCap(this.#first), content);
    this.#answer(served, content);
  }

  #begin(served: Served): void {
    if (this.#served.has(served.id)) throw new ProtocolError(`call ${served.id} is made twice`);
    if (this.#served.size >= SERVED_MAX) throw new ProtocolError(`more than ${SERVED_MAX} calls are under way`);
    this.#servedBytes += served.bytes;
    if (this.#servedBytes > SERVED_BYTES_MAX) {
      throw new ProtocolError(`calls of more than ${SERVED_BYTES_MAX} bytes are under way`);
    }
    this.#served.set(served.id, served);
    this.#working.add(served);
  }

  #takeCall(call: Call, message: $.Message, size: number): void {
    const params = call.params;
    const given = this.#readTable(params, message);
    const { sendResultsTo } = call;
    if (sendResultsTo._isThirdParty) throw new ProtocolError("results are to go to a third party");
    const served = new Served(call.questionId, size, sendResultsTo._isYourself, given);
    this.#begin(served);
    const { interfaceId, methodId } = call;
    const deliver = (hook: Hook) => this.#deliver(served, hook, interfaceId, methodId, params.content);
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

  #promised(target: MessageTarget): Served {
    const id = target.promisedAnswer.questionId;
    const served = this.#served.get(id);
    if (served === undefined) throw new ProtocolError(`it refers to the answer of call ${id}, which is not under way`);
    return served;
  }

  #deliver(served: Served, hook: Hook, interfaceId: bigint, methodId: number, params: $.Pointer): void {
    if (hook instanceof Local) {
      hook.start({ interfaceId, methodId, params, context: served, place: () => served.place() }).then(
        (results) => this.#answer(served, results),
        (error: unknown) => this.#refuse(served, error),
      );
      return;
    }
    const outcome = hook.send({ interfaceId, methodId, fill: (content) => copyPointer(params, content) });
    served.onAbort = () => outcome.cancel();
    outcome.whenSettled(() => {
      if (outcome.failure) return this.#refuse(served, outcome.failure.error);
      const content = served.place();
      copyPointer(outcome.results(), content);
      this.#answer(served, content);
    });
  }

  #answer(served: Served, results: $.Pointer): void {
    this.#working.delete(served);
    served.releaseParams();
    served.holdResults();
    if (!served.hasReturned && !this.#isClosed) {
      try {
        this.#return(served);
      } catch (error) {
        served.releaseResults();
        return this.#refuse(served, error);
      }
    }
    if (this.#isClosed) served.outcome.fail(new Disconnected());
    else served.outcome.settle(results);
    if (served.isFinished || this.#isClosed) served.releaseResults();
  }

  #return(served: Served): void {
    const { message, payload } = served.reply;
    if (served.isForOther) {
      this.#send(resultsElsewhere(served.id));
    } else {
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

  #refuse(served: Served, error: unknown): void {
    this.#working.delete(served);
    served.releaseParams();
    if (!(error instanceof CapabilityError) && this.#logged++ < LOGGED_MAX) console.error("a call failed here:", error);
    if (!served.hasReturned && !this.#isClosed) {
      served.hasReturned = true;
      this.#send(failure(served.id, error));
    }
    served.outcome.fail(error);
  }

  #takeFinish(said: Finish): void {
    const served = this.#served.get(said.questionId);
    if (served === undefined) return;
    this.#served.delete(served.id);
    this.#servedBytes -= served.bytes;
    served.isFinished = true;
    if (served.hasReturned) {
      if (said.releaseResultCaps) for (const id of served.exported) this.#exports.release(id, 1);
      return served.releaseResults();
    }
    served.hasReturned = true;
    this.#send(cancelledReturn(served.id));
    // What was called on its results goes on, and needs these.
    if (served.outcome.waiting === 0) served.abort();
  }

  #takeReturn(answer: Return, message: $.Message): void {
    const question = this.#questions.get(answer.answerId);
    if (question === undefined) throw new ProtocolError(`it answers call ${answer.answerId}, which was not made`);
    this.#questions.delete(question.id);
    if (answer.releaseParamCaps) for (const id of question.exported) this.#exports.release(id, 1);
    if (question.isGivenUp) return this.#questionNumbers.giveBack(question.id);
    let settle: () => void;
    try {
      settle = this.#outcomeOf(question, answer, message);
    } finally {
      this.#finish(question.id, false);
    }
    this.#questionNumbers.giveBack(question.id);
    settle();
  }

  /** Read what a call came to. What is in there that was called already, and is of this side, is put under embargo. */
  #outcomeOf(question: Question, answer: Return, message: $.Message): () => void {
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
        if (other === undefined) throw new ProtocolError("it answers with the results of a call that is not under way");
        return () => question.follow(other.outcome);
      }
      case Return_Which.CANCELED:
        return () => question.fail(new Cancelled("the peer cancelled the call"));
      default:
        throw new ProtocolError("it answers in a way that was not asked for");
    }
  }

  #embargoResult(question: Question, found: Outcome, transform: Transform, message: $.Message): void {
    const hook = found.hookAt(transform);
    const place = message._capnp.capTable?.indexOf(hook) ?? -1;
    if (place < 0 || isOfPeer(hook)) return;
    message._capnp.capTable![place] = this.#embargo(hook, (target) => aimAtAnswer(target, question.id, transform));
  }

  #embargo(hook: Hook, fill: (target: MessageTarget) => void): Embargoed {
    const id = this.#embargoNumbers.take();
    const embargoed = new Embargoed(hook);
    this.#embargoes.set(id, embargoed);
    this.#send(disembargoOf(fill, (context) => (context.senderLoopback = id)));
    return embargoed;
  }

  #takeDisembargo(disembargo: Disembargo): void {
    const { context, target } = disembargo;
    switch (context.which()) {
      case Disembargo_Context_Which.SENDER_LOOPBACK: {
        const id = context.senderLoopback;
        const hook = target._isImportedCap
          ? this.#exports.get(target.importedCap)
          : this.#promised(target).outcome.hookAt(transformOf(target.promisedAnswer.transform));
        const aim = (back: MessageTarget) => aimAt(back, hook, this);
        return this.#send(disembargoOf(aim, (said) => (said.receiverLoopback = id)));
      }
      case Disembargo_Context_Which.RECEIVER_LOOPBACK: {
        const id = context.receiverLoopback;
        const embargoed = this.#embargoes.get(id);
        if (embargoed === undefined) throw new ProtocolError(`it lifts embargo ${id}, which there is not`);
        this.#embargoes.delete(id);
        this.#embargoNumbers.giveBack(id);
        return embargoed.lift();
      }
      default:
        throw new ProtocolError("it lifts an embargo in a way that was not asked for");
    }
  }

  #takeResolve(resolve: Resolve): void {
    const promise = this.#imports.get(resolve.promiseId);
    if (resolve._isException) {
      const error = decoded(resolve.exception.type, resolve.exception.reason);
      if (promise !== undefined) promise.resolution = new Broken(error);
      return;
    }
    const hook = this.#read(resolve.cap);
    if (promise === undefined || !promise.isPromise || promise.resolution !== null) return hook.release();
    if (leadsTo(hook, promise)) throw new ProtocolError(`it resolves promise ${promise.id} to itself`);
    const isOurs = promise.wasCalled && !isOfPeer(hook);
    promise.resolution = isOurs ? this.#embargo(hook, (target) => (target.importedCap = promise.id)) : hook;
  }

  #readTable(payload: Payload, message: $.Message): Hook[] {
    const table = readTable(payload.capTable, (descriptor) => this.#read(descriptor));
    message._capnp.capTable = table;
    return table;
  }

  #read(descriptor: CapDescriptor): Hook {
    switch (descriptor.which()) {
      case CapDescriptor_Which.NONE:
        return new Broken();
      case CapDescriptor_Which.SENDER_HOSTED:
        return this.#imports.add(this, descriptor.senderHosted, false);
      case CapDescriptor_Which.SENDER_PROMISE:
        return this.#imports.add(this, descriptor.senderPromise, true);
      case CapDescriptor_Which.RECEIVER_HOSTED:
        return this.#exports.get(descriptor.receiverHosted).keep();
      case CapDescriptor_Which.RECEIVER_ANSWER: {
        const { questionId, transform } = descriptor.receiverAnswer;
        const served = this.#served.get(questionId);
        if (served === undefined) {
          throw new ProtocolError(`it refers to the answer of call ${questionId}, which is not under way`);
        }
        return new Pipelined(served.outcome, transformOf(transform)).keep();
      }
      case CapDescriptor_Which.THIRD_PARTY_HOSTED:
        // Its vine stands for it.
        return this.#imports.add(this, descriptor.thirdPartyHosted.vineId, false);
      default:
        throw new ProtocolError("it sends a capability of a kind that there is not");
    }
  }

  // What goes.

  #send(fill: (root: Message) => void): void {
    if (this.#isClosed) return;
    const message = new $.Message();
    fill(message.initRoot(Message));
    this.#stream.write(framed(message));
  }

  /** Ask a question. `fill` writes it and returns the numbers of what is exported by that. */
  #ask(fill: (root: Message, id: number) => number[]): Question {
    if (this.#isClosed) return failed(new Disconnected()) as Question;
    if (this.#questions.size >= QUESTIONS_MAX) {
      return failed(new CapabilityError("overloaded", `${QUESTIONS_MAX} calls to the peer are under way`)) as Question;
    }
    const id = this.#questionNumbers.take();
    const question = new Question(this, id);
    let exported: number[] = [];
    try {
      const message = new $.Message();
      exported = fill(message.initRoot(Message), id);
      this.#stream.write(framed(message));
    } catch (error) {
      for (const each of exported) this.#exports.release(each, 1);
      this.#questionNumbers.giveBack(id);
      return failed(error) as Question;
    }
    question.exported = exported;
    this.#questions.set(id, question);
    return question;
  }

  #call(outgoing: Outgoing, aim: (target: MessageTarget) => void): Outcome {
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

  callAhead(question: Question, transform: Transform, outgoing: Outgoing): Outcome {
    return this.#call(outgoing, (target) => aimAtAnswer(target, question.id, transform));
  }

  callImport(id: number, outgoing: Outgoing): Outcome {
    return this.#call(outgoing, (target) => (target.importedCap = id));
  }

  giveUp(question: Question): void {
    if (this.#isClosed || this.#questions.get(question.id) !== question) return;
    question.isGivenUp = true;
    this.#finish(question.id, true);
  }

  #finish(id: number, releaseResultCaps: boolean): void {
    this.#send(finish(id, releaseResultCaps));
  }

  drop(given: Import): void {
    if (!this.#imports.remove(given)) return;
    given.resolution?.release();
    this.#send(releaseOf(given.id, given.references));
  }
}
