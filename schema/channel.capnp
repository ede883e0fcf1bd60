@0xd1f1c3a4b5e60704;
# A synchronous channel (CSP): a send meets a receive. What crosses a connection is always a facet.

interface Sender {
  send @0 (value :AnyPointer) -> ();
  # Answers when a receiver took the value. Cancelling the call, or losing the connection, withdraws the value if
  # nobody took it yet. Failures: channel_closed.
}
