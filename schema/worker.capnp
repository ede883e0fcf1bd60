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
  load @0 (digest :Data, blob :Blob) -> (program :Program);
  # Make the module with this sha256 (32 bytes) ready to run. The bytes are read from blob only when the worker does
  # not have them. Failures: bad_module when the bytes do not hash to digest.
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
  durationSeconds @0 :Float64;      # wall clock of one run
  memoryBytes @1 :UInt64;           # linear memory
  outputBytes @2 :UInt64;           # of stdout and of stderr, each
}

struct Invocation {
  # One run's input. entry is the exported function to call with arguments; empty means the WASI command's _start.
  entry @0 :Text;
  arguments @1 :List(Int64);        # converted to the parameter types of entry, i32 or i64
  args @2 :List(Text);              # argv[1..]; argv[0] is given by the worker
  env @3 :List(KeyValue);
  stdin @4 :Data;
  limits @5 :Limits;
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
}

struct Outcome {
  reason @0 :Reason;
  detail @1 :Text;                  # one line for people
  hasResult @2 :Bool;
  result @3 :Int64;                 # what entry returned
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
}
