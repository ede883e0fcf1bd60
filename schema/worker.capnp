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
  kind @0 :Text;                    # "native" for a Python worker
  slots @1 :UInt32;                 # how many runs at once
  cpus @2 :Float64;
  memoryBytes @3 :UInt64;
  labels @4 :List(KeyValue);
  host @5 :Text;
}

interface Registry {
  # What a gateway exports as "registry".
  register @0 (info :WorkerInfo) -> (registration :Registration);
  # At most one registration per connection. Dropping it, or losing the connection, ends it.
}

interface Registration {
  leave @0 () -> ();
  # Say goodbye: no further offers will come. Runs under way may still finish.
}

struct Offer {
  # What travels through the gateway's channel: a lease on one slot.
  worker @0 :Worker;
}

interface Worker {
  # Good for one slot. Dropping it gives the slot back; calls on it run one after the other.
  load @0 (digest :Data, blob :Blob, metered :Bool) -> (program :Program);
  # Make the module with this sha256 (32 bytes) ready to run. The bytes are read from blob only when the worker does
  # not have them. metered says that its runs will be given fuel, or be deterministic, which takes another code. Failures: bad_module when the bytes do not hash to digest.
}

interface Program {
  run @0 (invocation :Invocation) -> (attempt :Attempt, ended :Bool, outcome :Outcome);
  # Start one run in a fresh instance. Answers within milliseconds, be it that the run has ended or not: when it has,
  # with ended and the outcome, so that a short run is one call; otherwise with an Attempt to follow and to stop it,
  # which may be called before the answer is there.
  # Failures: draining when the worker is stopping.
}

interface Attempt {
  outcome @0 () -> (outcome :Outcome);
  # Answers when the run has ended, however it ended. A guest's failure is an Outcome, never an error of this call.
  cancel @1 () -> ();
  # Stop the run; outcome then answers with reason cancelled. Cancelling twice, or too late, is fine.
}

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

struct Outcome {
  reason @0 :Reason;
  detail @1 :Text;                  # one line for people
  hasResult @2 :Bool;
  result @3 :Int64;                 # what entry returned, in the form of Invocation.arguments
  hasExitCode @4 :Bool;
  exitCode @5 :UInt32;
  stdout @6 :Data;
  stderr @7 :Data;
  stdoutTruncated @8 :Bool;
  stderrTruncated @9 :Bool;
  wallSeconds @10 :Float64;         # from the start of the instance to its end
  cpuSeconds @11 :Float64;
  memoryBytes @12 :UInt64;          # linear memory at the end, which is its peak: it never shrinks
  memoryLimitBytes @13 :UInt64;     # the limit that was held
  isFloat @14 :Bool;                # of result
  hasFuel @15 :Bool;
  fuel @16 :UInt64;                 # what was used
  queueSeconds @17 :Float64;        # at the worker, until it had a process
  compileSeconds @18 :Float64;      # that the run waited for; 0: it was compiled already
  instantiateSeconds @19 :Float64;  # of wallSeconds
  artifacts @20 :Data;              # a zip; empty when none were asked for
  filesBytes @21 :UInt64;           # in the file system at the end
}
