@0xd1f1c3a4b5e60707;
# What a gateway lets its operator do: whoever holds its key, and nobody else.

interface Operator {
  peers @0 () -> (peers :List(Peer));
  # Those that are connected, and those of whom something is on record.

  ban @1 (peer :Data, value :Bool) -> ();
  # Hang up on a peer and refuse it from now on, whatever else lets it in; or, when value is false, no longer.

  drain @2 (peer :Data, value :Bool) -> ();
  # Give a peer nothing new to run: what it runs may finish. Or, when value is false, give it runs again.
}

struct Peer {
  peer @0 :Data;                    # public key, 32 bytes
  remotes @1 :List(Text);           # where its connections come from
  calls @2 :UInt32;                 # that it is not done with
  bytes @3 :UInt64;                 # of those
  slots @4 :UInt32;
  free @5 :UInt32;
  ticket @6 :Text;                  # by which it was enrolled to work, if by any
  banned @7 :Bool;
  draining @8 :Bool;
  tasksTicket @9 :Text;             # by which it was enrolled to give work, if by any
  disagreements @10 :UInt32;        # runs on which it was outvoted; banned with it: for that
}
