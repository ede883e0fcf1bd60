@0xd1f1c3a4b5e60702;
# Between a worker process and its sandbox child processes, over a socketpair: each message is a little-endian uint32
# length and one of these structs. The parent trusts nothing a child says. What a child is to read or write comes as
# descriptors, with the first byte of a request: it can open nothing itself.

using Worker = import "worker.capnp";

struct Request {
  # Parent to child. A compiler child gets only compile, an executor child only run.
  union {
    run :group {
      digest @0 :Data;              # of the module. Its artefact is a descriptor: first without, and when it is wanted with
      invocation @1 :Worker.Invocation;
      limits @2 :Worker.Limits;     # what holds, whatever the invocation asks for
    }
    compile :group {
      # Two descriptors: the module's bytes, to read, and its artefact, to write.
      digest @3 :Data;              # sha256 of the bytes
    }
  }
}

struct Reply {
  # Child to parent.
  union {
    ready @0 :List(Protection);     # once, after start
    outcome @1 :Worker.Outcome;     # of run
    missing @2 :Text;               # of run: the artefact is not usable, compile again; of compile: nor are the bytes
    compiled @3 :Void;              # of compile
    failed @4 :Text;                # of compile: what is wrong with the module, one line
    wanted @5 :Void;                # of run: ask again, with the artefact
  }
}

struct Protection {
  # What became of one of the ways in which a child is confined: see ww/sandbox/confine.py.
  name @0 :Text;
  state @1 :Text;                   # given, missing or needless
  detail @2 :Text;                  # a few words for people
}
