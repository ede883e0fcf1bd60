@0xd1f1c3a4b5e60702;
# Between a worker process and its sandbox child processes, over a socketpair: each message is a little-endian uint32
# length and one of these structs. The parent trusts nothing a child says. What a child is to read or write comes as
# descriptors, with the first byte of a request: it can open nothing itself. Whatever is large lies in files in memory
# that both have open from the start: one for input, one each for stdout, stderr and artifacts; and one for control.
#
# Runs of one module come in groups. What differs between them, and how each ended, are records as in worker.capnp: what
# comes from another node is read by the process that runs guests, and what that says of them goes back as it is.

struct Request {
  # Parent to child. A compiler child gets only compile, an executor child only run and answer.
  union {
    run :group {
      digest @0 :Data;              # of the module. Its artefact is a descriptor: first without, and when it is wanted with
      metered @1 :Bool;             # whether the artefact is the one that counts fuel and leaves nothing to the machine
      limits @2 :RunLimits;
      shared @3 :Shared;            # what all runs of the group have in common
      inputs @4 :Data;              # input records, none by reference: of what the runs' task says, then of each run.
                                    # Or none, when they are in the input file
      spilledBytes @5 :UInt64;      # which is then that long
      first @6 :UInt32;             # place of the first run; the others follow
      queuedSeconds @7 :Float64;    # how long the runs have waited by now
      compileSeconds @8 :Float64;   # of which the first one waited for its module
      hasCalls @11 :Bool;           # whether the guest's calls are answered; then it is one run
    }
    compile :group {
      # Two descriptors: the module's bytes, to read, and its artefact, to write.
      digest @9 :Data;              # sha256 of the bytes
      metered @10 :Bool;
    }
    answer :group {
      # In the middle of a run, to blocked alone: what came of the calls that go by that ticket.
      ticket @12 :UInt32;
      answers @13 :Data;            # see ww/python/request.py
    }
  }
}

struct RunLimits {
  # Of each run; what 0 means is said in worker.capnp, and resolved here.
  durationSeconds @0 :Float64;
  cpuSeconds @1 :Float64;           # 0: no limit
  fuel @2 :UInt64;                  # 0: no limit
  memoryBytes @3 :UInt64;
  outputBytes @4 :UInt64;
  filesBytes @5 :UInt64;
  filesCount @6 :UInt32;
  artifactBytes @7 :UInt64;
  artifactCount @8 :UInt32;
}

struct Shared {
  # See worker.Invocation.
  entry @0 :Text;
  artifacts @1 :List(Text);
  dirs @2 :List(Text);
  hasFiles @3 :Bool;                # whether the guest has a file system
  deterministic @4 :Bool;
  context @5 :Data;
  hasCode @6 :Bool;                 # whether what is given as files is a Python guest's code
}

# The control file has a byte for each place in a group, which the parent writes and the process reads: when it is not
# zero, the run is not to begin any more, and its outcome has the reason cancelled.

struct Reply {
  # Child to parent.
  union {
    ready @0 :List(Protection);     # once, after start
    outcomes @1 :Outcomes;          # of run: those that have ended since the last reply, in order, until all have
    missing @2 :Text;               # of run: the artefact is not usable, compile again; of compile: nor are the bytes
    compiled @3 :Void;              # of compile
    failed @4 :Text;                # of compile: what is wrong with the module, one line
    wanted @5 :Void;                # of run: ask again, with the artefact
    full @6 :Void;                  # of run: fetch the output, and ask again for those that have not ended
    stuck @7 :Outcomes;             # of run: one that still runs and hears nothing, as it is to be taken for ended
    begins @8 :Void;                # of run: one begins that has files, or what it runs was loaded, which took time
    packs @9 :Void;                 # of run: it has ended, and what it leaves is packed, which takes time
    refused @10 :Text;              # of run: what is wrong with the inputs, one line; nothing was run
    call @11 :Call;                 # of run: the guest calls another function, many times; it goes on
    blocked @12 :UInt32;            # of run: the guest waits for what came of the calls that go by that ticket
  }
}

struct Call {
  # Piece by piece, each but the last with isMore. Nothing else is said between them.
  ticket @0 :UInt32;                # the guest's number for them, never again the same in a run
  name @1 :Text;                    # of the function; with the first piece
  requests @2 :Data;                # see ww/python/request.py
  isMore @3 :Bool;
}

struct Outcomes {
  records @0 :Data;                 # outcome records as in worker.capnp
  spilled @1 :Data;                 # what of them is in files, and to be fetched before more is asked; see below
}

# A record of which a part is in its file has no bytes there. Spilled says where they are, a row for each such record:
# uint32 its place, then for each of stdout, stderr and artifacts uint64 offset in its file and uint32 length; a length of
# 0: nothing is.

struct Protection {
  # What became of one of the ways in which a child is confined: see ww/sandbox/confine.py.
  name @0 :Text;
  state @1 :Text;                   # given, missing or needless
  detail @2 :Text;                  # a few words for people
}
