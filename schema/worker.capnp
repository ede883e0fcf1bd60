@0xd1f1c3a4b5e60701;
# What a worker hands to a gateway, and what the gateway may do with it.
#
# A worker registers once per connection, then keeps one send of an Offer outstanding on the gateway's channel for
# each free slot. Whoever takes an Offer holds a lease on that one slot until it drops the Worker capability.

struct KeyValue {
  key @0 :Text;
  value @1 :Text;
}

struct WorkerInfo {
  # Claims, not facts: the gateway shows them and schedules by them, but trusts none of them.
  kind @0 :Text;                    # "native" for a Python worker, else what runs it: "browser", "deno", "node"
  slots @1 :UInt32;                 # how many runs at once
  cpus @2 :Float64;
  memoryBytes @3 :UInt64;
  labels @4 :List(KeyValue);
  host @5 :Text;
  lacks @6 :List(Text);
  # What it cannot do for a run, of: reactor component python (kinds of guests), fuel, cpu (a limit of processor time),
  # files (a file system). It gets no run that needs any of these.
}

interface Pulse {
  # Proof that a worker lives, where the connection proves nothing: a browser answers for a tab that is frozen.
  beat @0 () -> ();
  # Answers at once. A worker that does not, within the gateway's patience, is disconnected.
}

interface Registry {
  # What a gateway exports as "registry".
  register @0 (info :WorkerInfo, pulse :Pulse) -> (registration :Registration);
  # At most one registration per connection. Dropping it, or losing the connection, ends it. pulse may be null: then only
  # the connection tells that the worker lives.
}

interface Registration {
  leave @0 () -> ();
  # Say goodbye: no further offers will come. Runs under way may still finish.
}

struct Offer {
  # What travels through the gateway's channel: a lease on one slot.
  worker @0 :Worker;
  depth @1 :UInt32;
  # The least depth of a run that it takes. 0 on a slot of its own; more on one that is lent by a run that waits for
  # calls of its own, which are one deeper than it: so nothing can wait for what waits for it.
}

interface Worker {
  # Good for one slot. Dropping it gives the slot back; runs on it go one after the other.
  load @0 (digest :Data, blob :Blob, metered :Bool) -> (program :Program);
  # Make the module with this sha256 (32 bytes) ready to run. The bytes are read from blob only when the worker does
  # not have them. metered says that its runs will be given fuel, or be deterministic, which takes another code. Failures: bad_module when the bytes do not hash to digest.
}

interface Program {
  task @0 (invocation :Invocation) -> (runs :Runs);
  # Say what all runs of one task have in common. Failures: usage when it is nothing that a guest could be given.

  run @1 (invocation :Invocation, calls :Calls) -> (outcomes :Data, large :List(Blob), ended :Bool, group :Group);
  # task, and start of the Runs that it gives, in one: for a task's only run, which differs in nothing from it.
}

interface Runs {
  start @0 (inputs :Data, large :List(Blob), calls :Calls)
      -> (outcomes :Data, large :List(Blob), ended :Bool, group :Group);
  # Run a group: one run for each input record, one after the other, each in a fresh instance. See Records below. A group
  # is transport alone: each run has its own limits, end and outcome. Groups of one slot run in the order in which they
  # came. Answers within milliseconds with the outcomes there are; ended says that they are all, and otherwise group
  # gives the others. Failures: draining when the worker is stopping, overloaded, usage. calls is what the guest may ask
  # of the cluster while it runs; a group that has it is one run.
}

interface Calls {
  # What one run was granted: calls of functions by name. Dropping it cancels those under way.
  call @0 (name :Text, requests :Data, large :Blob) -> (answers :Data, large :Blob);
  # Requests and answers as in ww/python/request.py, those above 1 MiB as a blob instead. Answers when all calls have
  # ended, however they did.
}

interface Group {
  # Runs under way. When nobody holds it any more, nobody could learn their outcomes, and they are stopped.
  more @0 () -> (outcomes :Data, large :List(Blob), ended :Bool);
  # Answers once further runs have ended, however they ended, with their outcomes. A guest's failure is an outcome,
  # never an error of this call. Called again when it has answered, until ended.
  cancel @1 (runs :Data) -> ();
  # Stop runs, by their places in the group: uint32 each, little-endian; none: all. Their outcomes then have the reason
  # cancelled. Those that have ended are left as they are.
}

# Records, little-endian and without padding, one after the other: what differs between the runs of a group, and how each
# ended. A struct for each run would cost more than the run. Source: ww/records.py.
#
# An input record is a uint32 length of what follows, or all ones when the record is the next of `large`, which then holds
# it without its length; a uint8 of flags; and for each flag in this order what it says differs from the task's
# Invocation: 1 arguments (uint16 count, int64 each), 2 args and 4 env (uint32 length, then texts each ended by a zero
# byte; of env names and values in turn), 8 stdin and 16 files (uint32 length, then the bytes), 32 seed (uint64),
# 64 a name that the run goes by (uint32 length, UTF-8), which is not the worker's business.
#
# An outcome record is a uint32 length of what follows; uint32 the run's place in the group; uint8 reason (Reason), uint8
# flags (1 has a result, 2 which is a float, 4 has an exit code, 8 stdout and 16 stderr are cut, 32 has fuel), uint16 zero,
# uint32 exit code, int64 result (in the form of Invocation.arguments), uint64 bytes of memory at the end, which is its
# peak, uint64 the limit that was held, uint64 fuel used, uint64 bytes in the file system at the end; float64 seconds of
# wall from the start of the instance to its end, of instantiating (in wall), of processor, at the worker until it had a
# process, and of compiling that the run waited for; uint32 lengths of stdout, stderr, artifacts (a zip) and detail (one
# line for people); and these four. Outcomes that are large are in blobs: each holds such records too.

interface Blob {
  # Bytes that are read by the one who needs them.
  size @0 () -> (bytes :UInt64);
  read @1 (offset :UInt64, count :UInt32) -> (data :Data);
  # Up to count bytes from offset; fewer only at the end. At most 1 MiB a call.
}

struct Limits {
  # 0 means the worker's default; more than the worker's maximum means the maximum.
  durationSeconds @0 :Float64;      # wall clock of one run
  memoryBytes @1 :UInt64;           # linear memory
  outputBytes @2 :UInt64;           # of stdout and of stderr, each
  cpuSeconds @3 :Float64;           # processor time; 0: as long as the run may take
  fuel @4 :UInt64;                  # WebAssembly instructions, roughly; 0: not counted
  filesBytes @5 :UInt64;            # the guest's file system, with what was unpacked into it
  artifactBytes @6 :UInt64;         # all artifacts, before they are compressed
}

struct Invocation {
  # One run's input. entry is the exported function to call with arguments; empty means the WASI command's _start.
  entry @0 :Text;
  arguments @1 :List(Int64);        # for a parameter of i32 or i64 its value, for f32 or f64 the bits of a Float64
  args @2 :List(Text);              # argv[1..]; argv[0] is given by the worker
  env @3 :List(KeyValue);
  stdin @4 :Data;
  limits @5 :Limits;
  files @6 :Data;                   # a zip, unpacked into the guest's file system; none: no file system, see below
  artifacts @7 :List(Text);         # paths in it to bring back, files or folders
  dirs @8 :List(Text);              # what the guest may open of it, each under its own name; empty: all of it, as "/"
  # The guest has a file system, of its own and empty but for files, if any of these three is given.
  deterministic @9 :Bool;           # the same invocation gives the same outcome on every worker
  seed @10 :UInt64;                 # of the random numbers of a deterministic run
  context @11 :Data;                # a reactor's instance serves invocations of one context only; empty: a fresh one
  code @12 :Data;                   # of a Python guest: a zip of the sources that args[0], module:qualname, is in
  depth @13 :UInt32;                # how many runs wait for this one, one for the other
}

enum Reason {
  ok @0;                            # ended well: returned, or exited with 0
  trap @1;                          # detail: the trap's kind
  exit @2;                          # exitCode is not 0
  deadline @3;
  memory @4;                        # more memory than the limit was needed to start, or the sandbox was killed for it
  compile @5;                       # the bytes do not compile or do not link
  crash @6;                         # the sandbox process died under it
  cancelled @7;
  cpu @8;                           # more processor time than the limit
  fuel @9;
  files @10;                        # more in the file system than the limit, or a zip that is not to be unpacked
  artifacts @11;                    # more artifacts than the limit
}
