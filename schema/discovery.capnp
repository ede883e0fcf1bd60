@0xd1f1c3a4b5e60705;
# What nodes of a network say to each other in datagrams: who is looked for, where somebody is, who is there.
#
# A datagram is one Envelope of at most 508 bytes, which crosses every network whole. The survey is damped by distance:
# a node answers a survey of distance d when the last eight bytes of its public key and of the sender's, as big-endian
# numbers, have an xor below 2^d; 255 means that all answer. So whoever surveys says how many answers it wants.
#
# Heartbeats travel by connections too (cluster.capnp), in the same envelope; there they may have 32 KiB.

using Worker = import "worker.capnp";

struct Envelope {
  peer @0 :Data;                    # the sender's Ed25519 public key, 32 bytes
  signature @1 :Data;               # 64 bytes, over body in the domain "ww-survey"
  body @2 :Data;                    # a Packet
}

struct Packet {
  namespace @0 :Text;
  incarnation @1 :UInt64;           # of the sender: grows with each start under the same key
  sequence @2 :UInt64;              # of the packet: grows with each packet of an incarnation
  union {
    survey @3 :Survey;
    response @4 :Response;
    heartbeat @5 :Heartbeat;
  }
}

struct Survey {
  nonce @0 :UInt64;                 # fresh for each survey
  distance @1 :UInt8;
  wanted @2 :Data;                  # the public key of the one who shall answer, at any distance; empty: anybody
}

struct Response {
  nonce @0 :UInt64;                 # of the survey that is answered
  addresses @1 :List(Text);         # where the sender can be reached, as multiaddrs without the peer id
}

struct Heartbeat {
  # A member says that it is there. The latest one, by incarnation and sequence, is the one that holds.
  ttlMilliseconds @0 :UInt32;       # it is gone when nothing later comes within that time; 0: it leaves now
  role @1 :Text;                    # "gateway", "worker"
  host @2 :Text;
  meta @3 :List(Worker.KeyValue);
  addresses @4 :List(Text);         # as in a Response
  slots @5 :UInt32;                 # runs at once
  free @6 :UInt32;                  # slots that nothing runs on
  queue @7 :UInt32;                 # runs that are due and wait
  abridged @8 :Bool;                # meta or addresses that did not fit a datagram were left out: the last full one's hold
}
