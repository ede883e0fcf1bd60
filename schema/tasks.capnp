@0xd1f1c3a4b5e60708;
# What a gateway exports as "tasks" to those that may give it work: the fast way to what its HTTP interface does.
#
# Fields, their meaning and their limits are those of POST /tasks (docs/http.md); what is shown is JSON as over HTTP. Who
# asks is the peer that the connection authenticated: it sees its own tasks, and the gateway's own key sees all. Whatever
# is refused changes nothing. Every call may be made again: tasks are named by their ids, modules by their content.

using Worker = import "worker.capnp";

interface Tasks {
  submit @0 (fields :Data, stdin :Data, module :Data, wasm :Worker.Blob, files :Worker.Blob, fresh :Bool, zip :Data)
      -> (task :Task, shown :Text, created :Bool);
  # Take a task on: it is on disk when this answers, and created says that it was not there before. Calls on task may
  # leave with this one. fields are names and values in turn, UTF-8, each ended by a zero byte. module is the sha256 (32
  # bytes) of the guest, which is read from wasm only when the gateway lacks it; files is a zip, or zip is it, of at most
  # 1 MiB, which saves calls back for the sake of a small one. fresh says that the id in
  # fields was made just now and never sent, which saves a look. Failures: usage, not_found (the module is not there and
  # wasm is null), conflict (the id is another task's), bad_module, overloaded, store, draining.

  batch @1 (fields :Data, stdin :Data, module :Data, wasm :Worker.Blob, files :Worker.Blob, zip :Data)
      -> (batch :Batch, kind :Text, entry :Text, parameters :List(Text));
  # Begin a task of many runs: what is given here is what they have in common, without repeats. The answer says what the
  # guest is: its kind, and of a function its name and the types of its parameters. Dropping batch takes it all back.

  task @2 (id :Text) -> (task :Task);
  # A task that was submitted before. Failures: not_found.

  list @3 (status :Text, limit :UInt32, after :Text) -> (shown :Text);
  # Tasks, newest first: a JSON array of at most limit (1 to 1000). status and after (a task's id) may be empty.

  workers @4 () -> (shown :Text);
  # The workers that are registered: a JSON array.

  upload @5 (module :Data, wasm :Worker.Blob) -> ();
  # Have a module stored, ahead of the tasks that name it. wasm may be null, to ask whether it is there: not_found.

  about @6 () -> (health :Text, ready :Text);
  # Who the gateway is, and whether it can work: as GET /healthz and /readyz answer.

  run @7 (fields :Data, stdin :Data, module :Data, wasm :Worker.Blob, files :Worker.Blob, fresh :Bool,
          waitSeconds :Float64, zip :Data) -> (results :Data, ended :Bool, next :Int64, task :Task);
  # submit, and results of the task in one: its first results, as Task.results answers after position 0. A short run is
  # one call, and its task and result are put on disk together. task is null when it has ended.
}

interface Batch {
  # One run for each input record (worker.capnp, Records), in their order.
  add @0 (records :Data) -> ();
  # The next bytes of the records, one record after the other, cut anywhere; at most 1 MiB a call. Calls may be made
  # without waiting for answers: four at a time, with as many bytes, lose nothing. What is wrong with a record fails this
  # call and all that follow. Differences from what a worker is sent: args of a function are its parameters as text, as
  # many as it has, which the gateway reads as numbers (arguments may be given instead); all bytes are in the record.

  finish @1 () -> (task :Task, shown :Text, created :Bool);
  # No more: take the task on, as submit does.
}

enum Order {
  completion @0;                    # as they ended
  input @1;                         # by run number, each when all before it have ended
  known @2;                         # by run number, those that have ended by now
}

interface Task {
  results @0 (after :Int64, order :Order, waitSeconds :Float64) -> (results :Data, ended :Bool, next :Int64);
  # Results, some at a time: what has ended since, at once if there is any, else when there is, else none when the time
  # (at most 60 s) is over. after is the position of the last result that came (order completion; 0 at first) or its run
  # number (-1 at first); next is what it is for the next call. ended says that nothing will follow. See Results below.

  status @1 (waitSeconds :Float64) -> (shown :Text);
  # The task, as JSON; with waitSeconds (at most 60), not before it has ended or that time is over.

  cancel @2 () -> (shown :Text);
  # Queued runs never start, running guests are stopped; the task, as JSON.

  run @3 (run :UInt64) -> (result :Data, state :Text);
  # One result; none, and the run's state, while it has none.

  artifacts @4 (run :UInt64) -> (zip :Worker.Blob);
  # What a run left. Failures: not_found.

  events @5 (after :UInt64, now :Bool) -> (events :Events, over :Bool);
  # What happens to it from that position on, or from now on. over says that all of it was told.
}

interface Events {
  next @0 () -> (told :Text, ended :Bool);
  # What is to be told, once there is something: a JSON array of {"kind", "position", "data"}, which may be empty after
  # 15 s. ended says that nothing will follow. One call at a time.
}

# Results, little-endian and without padding, one after the other. Source: ww/results.py.
#
# A result record is a uint32 length of what follows; uint32 run, int64 position; uint8 state (0 succeeded, 1 failed,
# 2 cancelled), uint8 flags (1 has a result, 2 has an exit code, 4 stdout and 8 stderr are cut, 16 has fuel, 32 has
# started, 64 has artifacts), uint16 zero, uint32 attempts, int64 exit code, uint64 bytes of memory, of its limit, fuel,
# bytes in the file system, bytes of artifacts; float64 seconds of wall, of processor, at the worker, of compiling, of
# instantiating; float64 seconds since 1970 when it was queued, started, finished; uint32 lengths of stdout, stderr,
# detail, result, reason, worker and name; and these seven, the last five UTF-8.
