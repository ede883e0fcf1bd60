"""Preview 2 command components for tests, written as text: a core module with what it asks of WASI around it."""

from functools import cache
from typing import Final

import wasmtime

# What a core module may call: name, what it is a lowering of, and its type then.
_FUNCTIONS: Final = {
    "arguments": ('$environment "get-arguments"', "(param i32)"),
    "environment": ('$environment "get-environment"', "(param i32)"),
    "exit": ('$exit "exit"', "(param i32)"),
    "exit-with-code": ('$exit "exit-with-code"', "(param i32)"),
    "get-stdin": ('$stdin "get-stdin"', "(result i32)"),
    "get-stdout": ('$stdout "get-stdout"', "(result i32)"),
    "get-stderr": ('$stderr "get-stderr"', "(result i32)"),
    "read": ('$streams "[method]input-stream.blocking-read"', "(param i32 i64 i32)"),
    "write": ('$streams "[method]output-stream.blocking-write-and-flush"', "(param i32 i32 i32 i32)"),
    "write-only": ('$streams "[method]output-stream.write"', "(param i32 i32 i32 i32)"),
    "check-write": ('$streams "[method]output-stream.check-write"', "(param i32 i32)"),
    "subscribe": ('$monotonic "subscribe-duration"', "(param i64) (result i32)"),
    "now": ('$monotonic "now"', "(result i64)"),
    "wall-now": ('$wall "now"', "(param i32)"),
    "block": ('$poll "[method]pollable.block"', "(param i32)"),
    "ready": ('$poll "[method]pollable.ready"', "(param i32) (result i32)"),
    "poll": ('$poll "poll"', "(param i32 i32 i32)"),
    "random-bytes": ('$random "get-random-bytes"', "(param i64 i32)"),
    "random-u64": ('$random "get-random-u64"', "(result i64)"),
    "insecure-bytes": ('$insecure "get-insecure-random-bytes"', "(param i64 i32)"),
    "insecure-u64": ('$insecure "get-insecure-random-u64"', "(result i64)"),
    "insecure-seed": ('$insecure-seed "insecure-seed"', "(param i32)"),
    "tcp-socket": ('$tcp-create-socket "create-tcp-socket"', "(param i32 i32)"),
    "udp-socket": ('$udp-create-socket "create-udp-socket"', "(param i32 i32)"),
    "directories": ('$preopens "get-directories"', "(param i32)"),
}
_IMPORTS: Final = {
    "environment": """
      (import "wasi:cli/environment@VERSION" (instance $environment
        (export "get-arguments" (func (result (list string))))
        (export "get-environment" (func (result (list (tuple string string)))))))""",
    "exit": """
      (import "wasi:cli/exit@VERSION" (instance $exit
        (export "exit" (func (param "status" (result))))EXIT_WITH_CODE))""",
    "stdin": """
      (import "wasi:cli/stdin@VERSION" (instance $stdin
        (alias outer 1 $input-stream (type $t)) (export "input-stream" (type $in (eq $t)))
        (export "get-stdin" (func (result (own $in))))))""",
    "stdout": """
      (import "wasi:cli/stdout@VERSION" (instance $stdout
        (alias outer 1 $output-stream (type $t)) (export "output-stream" (type $out (eq $t)))
        (export "get-stdout" (func (result (own $out))))))""",
    "stderr": """
      (import "wasi:cli/stderr@VERSION" (instance $stderr
        (alias outer 1 $output-stream (type $t)) (export "output-stream" (type $out (eq $t)))
        (export "get-stderr" (func (result (own $out))))))""",
    "poll": """
      (import "wasi:io/poll@VERSION" (instance $poll
        (export "pollable" (type $p (sub resource)))
        (export "[method]pollable.block" (func (param "self" (borrow $p))))
        (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))
        (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
      (alias export $poll "pollable" (type $pollable))""",
    "streams": """
      (import "wasi:io/error@VERSION" (instance $error (export "error" (type (sub resource)))))
      (alias export $error "error" (type $error-type))
      (import "wasi:io/streams@VERSION" (instance $streams
        (alias outer 1 $error-type (type $t)) (export "error" (type $e (eq $t)))
        (export "input-stream" (type $in (sub resource)))
        (export "output-stream" (type $out (sub resource)))
        (type $failure (variant (case "last-operation-failed" (own $e)) (case "closed")))
        (export "stream-error" (type $stream-error (eq $failure)))
        (export "[method]input-stream.blocking-read"
          (func (param "self" (borrow $in)) (param "len" u64) (result (result (list u8) (error $stream-error)))))
        (export "[method]output-stream.check-write"
          (func (param "self" (borrow $out)) (result (result u64 (error $stream-error)))))
        (export "[method]output-stream.write"
          (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $stream-error)))))
        (export "[method]output-stream.blocking-write-and-flush"
          (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
      (alias export $streams "input-stream" (type $input-stream))
      (alias export $streams "output-stream" (type $output-stream))""",
    "monotonic": """
      (import "wasi:clocks/monotonic-clock@VERSION" (instance $monotonic
        (alias outer 1 $pollable (type $t)) (export "pollable" (type $p (eq $t)))
        (export "now" (func (result u64)))
        (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))""",
    "wall": """
      (import "wasi:clocks/wall-clock@VERSION" (instance $wall
        (type $record (record (field "seconds" u64) (field "nanoseconds" u32)))
        (export "datetime" (type $datetime (eq $record)))
        (export "now" (func (result $datetime)))))""",
    "random": """
      (import "wasi:random/random@VERSION" (instance $random
        (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
        (export "get-random-u64" (func (result u64)))))""",
    "insecure": """
      (import "wasi:random/insecure@VERSION" (instance $insecure
        (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))
        (export "get-insecure-random-u64" (func (result u64)))))""",
    "insecure-seed": """
      (import "wasi:random/insecure-seed@VERSION" (instance $insecure-seed
        (export "insecure-seed" (func (result (tuple u64 u64))))))""",
    "network": """
      (import "wasi:sockets/network@VERSION" (instance $network
        (type $f (enum "ipv4" "ipv6")) (export "ip-address-family" (type (eq $f)))
        (type $e (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
          "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
          "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
          "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
          "permanent-resolver-failure"))
        (export "error-code" (type (eq $e)))))
      (alias export $network "ip-address-family" (type $family))
      (alias export $network "error-code" (type $error-code))""",
    "tcp-create-socket": """
      (import "wasi:sockets/tcp@VERSION" (instance $tcp (export "tcp-socket" (type (sub resource)))))
      (alias export $tcp "tcp-socket" (type $tcp-socket))
      (import "wasi:sockets/tcp-create-socket@VERSION" (instance $tcp-create-socket
        (alias outer 1 $tcp-socket (type $t)) (export "tcp-socket" (type $s (eq $t)))
        (alias outer 1 $error-code (type $u)) (export "error-code" (type $e (eq $u)))
        (alias outer 1 $family (type $v)) (export "ip-address-family" (type $f (eq $v)))
        (export "create-tcp-socket" (func (param "address-family" $f) (result (result (own $s) (error $e)))))))""",
    "udp-create-socket": """
      (import "wasi:sockets/udp@VERSION" (instance $udp (export "udp-socket" (type (sub resource)))))
      (alias export $udp "udp-socket" (type $udp-socket))
      (import "wasi:sockets/udp-create-socket@VERSION" (instance $udp-create-socket
        (alias outer 1 $udp-socket (type $t)) (export "udp-socket" (type $s (eq $t)))
        (alias outer 1 $error-code (type $u)) (export "error-code" (type $e (eq $u)))
        (alias outer 1 $family (type $v)) (export "ip-address-family" (type $f (eq $v)))
        (export "create-udp-socket" (func (param "address-family" $f) (result (result (own $s) (error $e)))))))""",
    "preopens": """
      (import "wasi:filesystem/types@VERSION" (instance $filesystem (export "descriptor" (type (sub resource)))))
      (alias export $filesystem "descriptor" (type $descriptor))
      (import "wasi:filesystem/preopens@VERSION" (instance $preopens
        (alias outer 1 $descriptor (type $t)) (export "descriptor" (type $d (eq $t)))
        (export "get-directories" (func (result (list (tuple (own $d) string)))))))""",
}
# Which imports another one needs, in the order they come in.
_NEEDS: Final = {
    "stdin": ("streams",),
    "stdout": ("streams",),
    "stderr": ("streams",),
    "monotonic": ("poll",),
    "tcp-create-socket": ("network",),
    "udp-create-socket": ("network",),
}
# Memory, and an allocator that never frees.
_LIBC: Final = """
  (core module $libc
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and
        (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      (global.set $next (i32.add (local.get $at) (local.get $new)))
      (block $fits
        (loop $more
          (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
          (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        unreachable)
      (local.get $at)))
  (core instance $libc (instantiate $libc))
"""
# Functions for core modules: say(address, size) to stdout.
SAY: Final = """
  (func $say (param $at i32) (param $size i32) (call $write (call $get-stdout) (local.get $at) (local.get $size)
    (i32.const 60000)))
"""
SAY_NEEDS: Final = ("get-stdout", "write")


@cache
def text(body: str, *needs: str, version: str = "0.2.0", run: str = "wasi:cli/run@0.2.0") -> str:
    """Return the text of a command whose core module has that body: it has a memory, may call the functions that are
    named in needs, and exports "run", which returns 0 for success."""
    interfaces: dict[str, None] = {}
    for need in needs:
        name = _FUNCTIONS[need][0].split()[0][1:]
        interfaces |= dict.fromkeys((*_NEEDS.get(name, ()), name))
    imports = "".join(_IMPORTS[name] for name in interfaces)
    with_code = '(export "exit-with-code" (func (param "status-code" u8)))' if "exit-with-code" in needs else ""
    imports = imports.replace("VERSION", version).replace("EXIT_WITH_CODE", with_code)
    lowered = "".join(
        f'(core func ${need} (canon lower (func {_FUNCTIONS[need][0]}) (memory (core memory $libc "memory")) '
        f'(realloc (core func $libc "realloc"))))'
        for need in needs
    )
    wanted = "".join(f'(import "wasi" "{need}" (func ${need} {_FUNCTIONS[need][1]}))' for need in needs)
    given = "".join(f'(export "{need}" (func ${need}))' for need in needs)
    return f"""(component {imports} {_LIBC} {lowered}
      (core module $main (import "libc" "memory" (memory 1)) {wanted} {body})
      (core instance $main (instantiate $main
        (with "libc" (instance $libc)) (with "wasi" (instance {given}))))
      (func $run (result (result)) (canon lift (core func $main "run")))
      (instance $instance (export "run" (func $run)))
      (export "{run}" (instance $instance)))"""


def command(body: str, *needs: str, version: str = "0.2.0", run: str = "wasi:cli/run@0.2.0") -> bytes:
    """Assemble what `text` returns."""
    return bytes(wasmtime.wat2wasm(text(body, *needs, version=version, run=run)))


def alone(body: str, before: str = "", parameter: str = "") -> bytes:
    """Assemble a command of one core module with that body and nothing else, but for what comes before it. parameter
    is one of the exported function."""
    return bytes(
        wasmtime.wat2wasm(f"""(component {before}
      (core module $main {body})
      (core instance $main (instantiate $main))
      (func $run {parameter} (result (result)) (canon lift (core func $main "run")))
      (instance $instance (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $instance)))""")
    )


def plain(body: str, *needs: str) -> bytes:
    """Assemble a command that does nothing but that, and then succeeds."""
    return command(f'(func (export "run") (result i32) {body} (i32.const 0))', *needs)


NOOP: Final = plain("")
FAILS: Final = command('(func (export "run") (result i32) (i32.const 1))')
TRAPS: Final = plain("unreachable")
SPINS: Final = plain("(loop $again (br $again))")
RECURSES: Final = command('(func $run (export "run") (result i32) (i32.add (call $run) (i32.const 1)))')
GROWS: Final = plain("""
    (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable""")
STARTS_LARGE: Final = alone('(memory 16384) (func (export "run") (result i32) (i32.const 0))')
# Its arguments, each with a line end, and its environment as name=value.
SAYS_ARGUMENTS: Final = command(
    f"""{SAY}
    (data (i32.const 100) "\\n=")
    (func $part (param $at i32) (call $say (i32.load (local.get $at)) (i32.load offset=4 (local.get $at))))
    (func (export "run") (result i32) (local $at i32) (local $end i32)
      (call $arguments (i32.const 0))
      (local.set $at (i32.load (i32.const 0)))
      (local.set $end (i32.add (local.get $at) (i32.mul (i32.load (i32.const 4)) (i32.const 8))))
      (block $done (loop $again
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (call $part (local.get $at)) (call $say (i32.const 100) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 8))) (br $again)))
      (call $environment (i32.const 0))
      (local.set $at (i32.load (i32.const 0)))
      (local.set $end (i32.add (local.get $at) (i32.mul (i32.load (i32.const 4)) (i32.const 16))))
      (block $done (loop $again
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (call $part (local.get $at)) (call $say (i32.const 101) (i32.const 1))
        (call $part (i32.add (local.get $at) (i32.const 8))) (call $say (i32.const 100) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 16))) (br $again)))
      (i32.const 0))""",
    *SAY_NEEDS, "arguments", "environment",
)  # fmt: skip
# Its stdin, to both outputs.
ECHOES: Final = command(
    """
    (func (export "run") (result i32) (local $in i32) (local $out i32) (local $error i32)
      (local.set $in (call $get-stdin)) (local.set $out (call $get-stdout)) (local.set $error (call $get-stderr))
      (block $done (loop $again
        (call $read (local.get $in) (i64.const 4096) (i32.const 0))
        (br_if $done (i32.load8_u (i32.const 0)))
        (call $write (local.get $out) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 16))
        (call $write (local.get $error) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 16))
        (br $again)))
      (i32.const 0))""",
    "get-stdin", "get-stdout", "get-stderr", "read", "write",
)  # fmt: skip
FLOODS: Final = command(
    """(func (export "run") (result i32) (local $out i32)
      (local.set $out (call $get-stdout))
      (loop $again (call $write (local.get $out) (i32.const 0) (i32.const 4096) (i32.const 60000)) (br $again))
      (i32.const 0))""",
    *SAY_NEEDS,
)
# Handles of the host's, without end.
HOARDS: Final = plain("(loop $again (drop (call $get-stdout)) (br $again))", "get-stdout")
# Without a flush at the end.
WRITES_ONLY: Final = command(
    """
    (data (i32.const 100) "secret")
    (func (export "run") (result i32) (local $out i32)
      (local.set $out (call $get-stdout))
      (call $check-write (local.get $out) (i32.const 0))
      (call $write-only (local.get $out) (i32.const 100) (i32.const 6) (i32.const 0))
      (i32.const 0))""",
    "get-stdout", "check-write", "write-only",
)  # fmt: skip


def exits(code: int) -> bytes:
    """Assemble a command that ends by wasi:cli/exit's exit-with-code."""
    return command(
        f'(func (export "run") (result i32) (call $exit-with-code (i32.const {code})) (i32.const 0))',
        "exit-with-code",
    )


def exits_plainly(failed: bool) -> bytes:
    """Assemble a command that ends by wasi:cli/exit's exit."""
    return command(
        f'(func (export "run") (result i32) (call $exit (i32.const {int(failed)})) (i32.const 0))',
        "exit",
    )


def sleeps(seconds: float) -> bytes:
    """Assemble a command that waits in wasi:io/poll."""
    return command(
        f"""
        (func (export "run") (result i32)
          (call $block (call $subscribe (i64.const {round(seconds * 1e9)})))
          (i32.const 0))""",
        "subscribe", "block",
    )  # fmt: skip


def says_results(*functions: str) -> bytes:
    """Assemble a command that calls functions which return a u64, and writes what they return, 8 bytes each."""
    calls = "".join(f"(i64.store (i32.const {8 * i}) (call ${name}))" for i, name in enumerate(functions))
    body = f"""{SAY} (func (export "run") (result i32)
      {calls} (call $say (i32.const 0) (i32.const {8 * len(functions)})) (i32.const 0))"""
    return command(body, *dict.fromkeys((*SAY_NEEDS, *functions)))


def draws(count: int) -> bytes:
    """Assemble a command that asks for random bytes."""
    return command(
        f'(func (export "run") (result i32) (call $random-bytes (i64.const {count}) (i32.const 0)) (i32.const 0))',
        "random-bytes",
    )


ALL: Final = tuple(_FUNCTIONS)
SAYS_RANDOM_BYTES: Final = command(
    f"""{SAY} (func (export "run") (result i32)
      (call $random-bytes (i64.const 1000) (i32.const 0))
      (call $say (i32.load (i32.const 0)) (i32.load (i32.const 4)))
      (call $insecure-bytes (i64.const 1000) (i32.const 0))
      (call $say (i32.load (i32.const 0)) (i32.load (i32.const 4)))
      (i32.const 0))""",
    *SAY_NEEDS, "random-bytes", "insecure-bytes",
)  # fmt: skip
SAYS_WALL_CLOCK_AND_SEED: Final = command(
    f"""{SAY} (func (export "run") (result i32)
      (call $wall-now (i32.const 0)) (call $insecure-seed (i32.const 16))
      (call $say (i32.const 0) (i32.const 32))
      (i32.const 0))""",
    *SAY_NEEDS, "wall-now", "insecure-seed",
)  # fmt: skip
# Three pollables, one of them for an hour; exits with how many are ready.
POLLS: Final = command(
    """(func (export "run") (result i32)
      (i32.store (i32.const 0) (call $subscribe (i64.const 3600000000000)))
      (i32.store (i32.const 4) (call $subscribe (i64.const 1)))
      (i32.store (i32.const 8) (call $subscribe (i64.const 0)))
      (if (i32.eqz (call $ready (i32.load (i32.const 0)))) (then unreachable))
      (call $poll (i32.const 0) (i32.const 3) (i32.const 16))
      (call $exit-with-code (i32.load (i32.const 20)))
      (i32.const 0))""",
    "subscribe", "ready", "poll", "exit-with-code",
)  # fmt: skip
# Expects access-denied of both.
MAKES_SOCKETS: Final = command(
    """(func (export "run") (result i32)
      (call $tcp-socket (i32.const 0) (i32.const 0)) (call $udp-socket (i32.const 1) (i32.const 16))
      (i32.or
        (i32.or (i32.ne (i32.load8_u (i32.const 0)) (i32.const 1)) (i32.ne (i32.load8_u (i32.const 4)) (i32.const 1)))
        (i32.or
          (i32.ne (i32.load8_u (i32.const 16)) (i32.const 1)) (i32.ne (i32.load8_u (i32.const 20)) (i32.const 1)))))""",
    "tcp-socket", "udp-socket",
)  # fmt: skip
# Into the same few bytes again and again.
DRAWS_FOR_EVER: Final = command(
    """(func (export "run") (result i32)
      (loop $again
        (call $wall-now (i32.const 0)) (call $insecure-seed (i32.const 16))
        (br $again)) (i32.const 0))""",
    "wall-now", "insecure-seed",
)  # fmt: skip
TWO_MEMORIES: Final = alone('(memory 1) (func (export "run") (result i32) (i32.const 0))', _LIBC)
UNKNOWN_IMPORT: Final = alone(
    '(func (export "run") (result i32) (i32.const 0))',
    '(import "wasi:http/types@0.2.0" (instance (export "x" (func))))',
)
TAKES_A_NUMBER: Final = alone(
    '(func (export "run") (param i32) (result i32) (i32.const 0))', parameter='(param "a" u32)'
)
