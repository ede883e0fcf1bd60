@0xd1f1c3a4b5e60702;
# Between a worker process and its sandbox child processes, over a socketpair: each message is a little-endian uint32
# length and one of these structs. The parent trusts nothing a child says.

using Worker = import "worker.capnp";

struct Request {
  # Parent to child. A compiler child gets only compile, an executor child only run.
  union {
    run :group {
      artefact @0 :Text;            # path of the compiled module
      invocation @1 :Worker.Invocation;
      limits @2 :Worker.Limits;     # what holds, whatever the invocation asks for
    }
    compile :group {
      module @3 :Text;              # path of the module's bytes
      digest @4 :Data;              # their sha256
      artefact @5 :Text;            # path to write the compiled module to
    }
  }
}

struct Reply {
  # Child to parent.
  union {
    ready @0 :Void;                 # once, after start
    outcome @1 :Worker.Outcome;     # of run
    missing @2 :Text;               # of run: the artefact is not there or not usable; compile again
    compiled @3 :Void;              # of compile
    failed @4 :Text;                # of compile: what is wrong with the module, one line
  }
}
