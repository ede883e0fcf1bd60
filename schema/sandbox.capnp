@0xd1f1c3a4b5e60702;
# Between a worker process and its sandbox child processes, over a socketpair: each message is a little-endian uint32
# length and one of these structs. The parent trusts nothing a child says. What a child is to read or write comes as
# descriptors, with the first byte of a request: it can open nothing itself. Whatever is large lies in files in memory
# that both have open from the start: one for input, one each for stdout, stderr and artifacts.
#
# Runs of one module come in groups, and what differs between them as columns and rows of plain bytes, all little-endian
# and without padding: a struct for each run would cost more than the run.

struct Request {
  # Parent to child. A compiler child gets only compile, an executor child only run.
  union {
    run :group {
      digest @0 :Data;              # of the module. Its artefact is a descriptor: first without, and when it is wanted with
      metered @1 :Bool;             # whether the artefact is the one that counts fuel and leaves nothing to the machine
      limits @2 :RunLimits;
      shared @3 :Shared;            # what all runs of the group have in common
      rows @4 :Data;                # see Rows
      texts @5 :Data;               # the rows' args, then names and values of their env, each ended by a zero byte
      blobs @6 :Data;               # the rows' stdin and then their files; or none, when they are in the input file
      spilledBytes @7 :UInt64;      # which is then that long
    }
    compile :group {
      # Two descriptors: the module's bytes, to read, and its artefact, to write.
      digest @8 :Data;              # sha256 of the bytes
      metered @9 :Bool;
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
  arity @1 :UInt16;                 # arguments of each run
  artifacts @2 :List(Text);
  dirs @3 :List(Text);
  hasFiles @4 :Bool;                # whether the guest has a file system
  deterministic @5 :Bool;
  context @6 :Data;
}

# Rows of a request, one a run: uint32 count of args, uint32 count of env, uint64 bytes of stdin, uint64 bytes of files,
# uint64 seed, then arity arguments, int64 each. A count, or bytes of files, of all ones: as in the run before.
#
# Rows of a reply, one a run in the order of the request: uint8 reason (worker.Reason), uint8 flags (1 has a result,
# 2 which is a float, 4 has an exit code, 8 stdout and 16 stderr are cut, 32 has fuel), uint16 zero, uint32 exit code,
# int64 result, uint64 bytes of memory, uint64 fuel, uint64 bytes of files, float64 seconds of wall, of instantiating and
# of processor; then for each of stdout, stderr and artifacts int64 offset in its file, or -1 when it is in bytes, and
# uint32 length; last uint32 length of detail.

struct Reply {
  # Child to parent.
  union {
    ready @0 :List(Protection);     # once, after start
    outcomes @1 :Outcomes;          # of run: those that have ended since the last reply, until all have
    missing @2 :Text;               # of run: the artefact is not usable, compile again; of compile: nor are the bytes
    compiled @3 :Void;              # of compile
    failed @4 :Text;                # of compile: what is wrong with the module, one line
    wanted @5 :Void;                # of run: ask again, with the artefact
    full @6 :Void;                  # of run: fetch the output, and ask again for those that have not ended
    stuck @7 :Outcomes;             # of run: one that still runs and hears nothing, as it is to be taken for ended
    begins @8 :Void;               # of run: one with files begins, which took time
    packs @9 :Void;                # of run: it has ended, and what it leaves is packed, which takes time
  }
}

struct Outcomes {
  rows @0 :Data;
  bytes @1 :Data;                   # for each row stdout, stderr, artifacts and detail
  isSpilled @2 :Bool;               # whether any of them is in its file: to be fetched before more is asked
}

struct Protection {
  # What became of one of the ways in which a child is confined: see ww/sandbox/confine.py.
  name @0 :Text;
  state @1 :Text;                   # given, missing or needless
  detail @2 :Text;                  # a few words for people
}
