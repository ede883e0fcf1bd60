// The small messages of the protocol: what each says beside what connection.ts knows. Source: rpc.capnp.
import type { Disembargo_Context, Message, MessageTarget, Return } from "capnp-es/capnp/rpc";
import { Question } from "./calls";
import { type Hook, Pipelined, Unimplemented } from "./capability";
import { DISCONNECTED, Disconnected, FAILED, UNIMPLEMENTED, encoded } from "./errors";
import type { Transform } from "./outcome";
import { ProtocolError, Remote, writeTransform } from "./tables";

type Fill = (root: Message) => void;

/** That the connection ends, and why. */
export function abort(why: string): Fill {
  return (root) => {
    const said = root._initAbort();
    said.reason = why;
    said.type = FAILED;
  };
}

function returnOf(id: number, fill: (answer: Return) => void): Fill {
  return (root) => {
    const answer = root._initReturn();
    answer.answerId = id;
    answer.releaseParamCaps = false;
    fill(answer);
  };
}

/** That a call's results are there, for another call. */
export function resultsElsewhere(id: number): Fill {
  return returnOf(id, (answer) => (answer.resultsSentElsewhere = true));
}

/** That a call was given up, as its caller wished. */
export function cancelledReturn(id: number): Fill {
  return returnOf(id, (answer) => (answer.canceled = true));
}

/** That a call failed. */
export function failure(id: number, error: unknown): Fill {
  return returnOf(id, (answer) => {
    const exception = answer._initException();
    exception.reason = encoded(error);
    if (error instanceof Unimplemented) exception.type = UNIMPLEMENTED;
    else exception.type = error instanceof Disconnected ? DISCONNECTED : FAILED;
  });
}

/** That nothing more is wanted of a call. */
export function finish(id: number, releaseResultCaps: boolean): Fill {
  return (root) => {
    const said = root._initFinish();
    said.questionId = id;
    said.releaseResultCaps = releaseResultCaps;
    said.requireEarlyCancellationWorkaround = false;
  };
}

/** That a capability of the peer's is not referred to any more. */
export function releaseOf(id: number, count: number): Fill {
  return (root) => {
    const said = root._initRelease();
    said.id = id;
    said.referenceCount = count;
  };
}

/** That calls that went by way of the peer are to be told from later ones. */
export function disembargoOf(aim: (target: MessageTarget) => void, fill: (context: Disembargo_Context) => void): Fill {
  return (root) => {
    const said = root._initDisembargo();
    aim(said._initTarget());
    fill(said._initContext());
  };
}

/** Write that what is meant is a capability in the results of a call. */
export function aimAtAnswer(target: MessageTarget, id: number, transform: Transform): void {
  const promised = target._initPromisedAnswer();
  promised.questionId = id;
  writeTransform(promised, transform);
}

/** Write which capability of the peer is meant. */
export function aimAt(target: MessageTarget, hook: Hook, connection: object): void {
  if (hook instanceof Remote && hook.import.connection === connection) target.importedCap = hook.import.id;
  else if (hook instanceof Pipelined && hook.outcome instanceof Question) {
    aimAtAnswer(target, hook.outcome.id, hook.transform);
  } else throw new ProtocolError("it asks for what went back to it, of something that did not");
}
