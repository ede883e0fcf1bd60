@0xd1f1c3a4b5e60704;
# A synchronous channel (CSP): a send meets a receive. What crosses a connection is always a facet, which says what its
# holder may do: send, receive, close, or several of these.
#
# A value is a struct, in `value`, or a capability, in `capability`: a field of its own, so that calls may be made on a
# received capability before the receive has answered. Both may be set.

interface Facet {
  present @0 (nonce :Data) -> ();
  # Tell the vat where the channel lives that the caller holds this facet; part of select, which calls it there, and
  # holds the call until it is over. A reference that passes calls on must not pass on this one.

  select @1 (cases :List(Case), mayWait :Bool) -> (index :Int32, value :AnyPointer, capability :Capability);
  # Do one of the cases, whichever can be done first; index says which, and what follows is what it received. When none
  # can be done and the caller may not wait, index is -1. The channels must live where this facet does.
  # Failures: channel_closed when the case that was chosen met a closed channel, usage.
}

struct Case {
  union {
    send :group {
      sender @0 :Sender;
      value @1 :AnyPointer;
      capability @2 :Capability;
    }
    receive @3 :Receiver;
  }
}

interface Sender extends(Facet) {
  send @0 (value :AnyPointer, capability :Capability) -> ();
  # Answers when a receiver took the value, or it was buffered. Cancelling the call, or losing the connection, withdraws
  # the value if nobody took it yet. Failures: channel_closed, overloaded.
}

interface Receiver extends(Facet) {
  receive @0 () -> (value :AnyPointer, capability :Capability);
  # Answers with the oldest value. Cancelling the call, or losing the connection before the value is handed over, consumes
  # nothing. Failures: channel_closed, overloaded.
}

interface Closer extends(Facet) {
  close @0 () -> ();
  # Let nothing be sent any more; what is buffered can still be received. Closing twice is fine.
}

interface SendReceiver extends(Sender, Receiver) {}
interface SendCloser extends(Sender, Closer) {}
interface ReceiveCloser extends(Receiver, Closer) {}
interface Whole extends(Sender, Receiver, Closer) {}
# Combinations, for whoever may do several of these.
