@0xd1f1c3a4b5e60706;
# How nodes learn by their connections who is a member of the cluster, and how anybody looks at who is there.
#
# A member's word is its signed heartbeat (discovery.capnp), wherever it comes from: on a LAN by multicast, and beyond it
# from a node that both are connected to, which passes it on as it was signed.

using Discovery = import "discovery.capnp";

interface Members {
  # What every node exports as "members".
  join @0 (known :List(Known), news :News) -> (known :List(Known), news :News);
  # Tell each other how much of everybody's word is known. From then on each pushes to the other what the other lacks,
  # and whatever it learns later. Once per connection; ends with it, and a member whose connection ended counts as gone
  # until it says something more.
}

struct Known {
  # How far somebody's word is known: all heartbeats up to this one.
  peer @0 :Data;                    # public key, 32 bytes
  incarnation @1 :UInt64;
  sequence @2 :UInt64;
}

interface News {
  push @0 (heartbeats :List(Told), lost :List(Known)) -> ();
  # At most 256 of each a call. lost: the connection to these peers broke, and they have said nothing later; it counts
  # only from the node that was dialled. Not answered within half a ttl (and 2 s), the connection is given up: so a peer
  # that is stopped or cut off is noticed.
}

struct Told {
  heartbeat @0 :Data;               # an Envelope
  ageMilliseconds @1 :UInt32;       # since it was said
}

interface View {
  # What every node exports as "view": who is there, as far as that node knows.
  lookup @0 (peer :Data) -> (found :Bool, member :Member);
  iterate @1 (query :Query) -> (members :Iterator);
  # Who is there at the moment of the call, in order of peer id.
  changed @2 (version :UInt64) -> (version :UInt64);
  # Answers when what is known is no longer what it was at that version; 0 is answered at once. Load does not count.
}

interface Iterator {
  next @0 (count :UInt32) -> (members :List(Member));
  # Fewer than count, or than 256, only at the end.
}

struct Member {
  peer @0 :Data;
  incarnation @1 :UInt64;
  heartbeat @2 :Discovery.Heartbeat;
  ageMilliseconds @3 :UInt64;       # of the latest heartbeat
}

struct Query {
  selectors @0 :List(Selector);     # all of them hold; none selects everybody
  limit @1 :UInt32;                 # 0: no limit
  reverse @2 :Bool;                 # the largest peer id first
}

struct Selector {
  union {
    role @0 :Match;
    host @1 :Match;
    meta :group {
      key @2 :Text;
      value @3 :Match;
    }
  }
}

struct Match {
  text @0 :Text;
  prefix @1 :Bool;                  # what begins with text, not only what equals it
}
