"""What a submission may say, and the one clear error when it says something else."""

import contextlib
import math
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.errors import UsageError
from ww.gateway.request import RequestLimits, read_fields
from ww.uuid7 import uuid7
from ww.wasm_inspect import Guest, Kind

LIMITS = RequestLimits()
RUN = Guest(Kind.FUNCTION, "run", ("i64", "i64"), "i64")


def read(
    *fields: tuple[str, str],
    stdin: bytes = b"",
    has_wasm: bool = True,
    files_size: int | None = None,
    guest: Guest = RUN,
    limits: RequestLimits = LIMITS,
) -> dict[str, object]:
    submission = read_fields(fields, stdin, has_wasm, limits, files_size=files_size)
    spec = submission.spec("0" * 64, guest)
    return {name: getattr(spec, name) for name in spec.__slots__}


def test_the_readme_form_is_read_as_it_is_meant() -> None:
    fields = [("id", "task1"), ("description", "Hash puzzle"), ("complete", "0"), ("duration", "5"), ("start", "1")]
    fields += [("delay", "2"), ("repeats", "3"), ("input", "0"), ("difficulty", "3")]
    got = read(*fields)
    assert got["id"] == "task1"
    assert (got["duration_s"], got["start_s"], got["delay_s"], got["repeats"]) == (5.0, 1.0, 2.0, 3)
    assert (got["input"], got["difficulty"]) == (0, 3)


def test_what_is_not_said_is_filled_in() -> None:
    got = read()
    assert str(got["id"]).count("-") == 4
    assert got["repeats"] == 1
    assert got["duration_s"] == LIMITS.duration_default_s
    assert read(("duration", "0"))["duration_s"] == LIMITS.duration_default_s
    assert got["memory_bytes"] == LIMITS.memory_default_bytes


def test_args_and_env_repeat_and_keep_their_order() -> None:
    got = read(("args", "b"), ("args", "a"), ("env", "K=v=w"), ("env", "EMPTY="))
    assert got["args"] == ("b", "a")
    assert got["env"] == (("K", "v=w"), ("EMPTY", ""))


BAD = [
    ("repeats", "-1"), ("repeats", "0"), ("repeats", "three"), ("repeats", "1.5"), ("repeats", ""), ("repeats", " 1"),
    ("repeats", "1_000"), ("repeats", "\u0663"), ("repeats", "99999999999999999999999"), ("repeats", "1000001"),
    ("delay", "-1"), ("delay", "nan"), ("delay", "inf"), ("delay", "1e3"), ("delay", "soon"), ("delay", ""),
    ("start", "-0.5"), ("start", "0x10"), ("start", "9999999999"), ("duration", "-5"), ("duration", "86401"),
    ("input", "-1"), ("input", "one"), ("difficulty", "-3"), ("difficulty", "3.0"), ("input", str(2**63)),
    ("complete", "-1"), ("memory", "0"), ("memory", str(1 << 40)), ("output", "-1"), ("id", ""), ("id", "a/b"),
    ("id", "x" * 129), ("id", "-a"), ("id", "a\nb"), ("entry", ""), ("entry", "e" * 201), ("env", "novalue"),
    ("env", "=x"), ("module", "sha256:00"), ("description", "a\0b"), ("fuel", "0"), ("fuel", "-1"), ("fuel", "many"),
    ("fuel", str(10**15 + 1)), ("cpu_seconds", "-1"), ("cpu_seconds", "nan"), ("cpu_seconds", "86401"),
    ("deterministic", "yes"), ("deterministic", "1"), ("deterministic", ""), ("deterministic", "True"),
    ("seed", "1"), ("seed", "-1"), ("seed", str(2**64)), ("files_max", "1000"), ("artifacts_max", "1000"),
    ("dirs", ""), ("dirs", ".."), ("dirs", "a/../b"), ("dirs", "a\\b"), ("dirs", "x" * 2000), ("dirs", "a\0b"),
    ("artifacts", ""), ("artifacts", "../x"), ("artifacts", "a\nb"), ("artifacts", "c:/x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_value_is_one_error_that_names_its_field(name: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        read((name, text), has_wasm=name != "module")
    assert error.value.field == name
    assert str(error.value).startswith(f"{name}: ")
    assert len(str(error.value)) < 250
    assert "\n" not in str(error.value)


def test_other_mistakes_are_named_too() -> None:
    with pytest.raises(UsageError, match="no such field; known are"):
        read(("colour", "1"))
    with pytest.raises(UsageError, match="given more than once"):
        read(("repeats", "1"), ("repeats", "2"))
    with pytest.raises(UsageError, match="wasm: missing"):
        read(has_wasm=False)
    with pytest.raises(UsageError, match="given beside wasm"):
        read(("module", "sha256:" + "0" * 64))
    with pytest.raises(UsageError, match="'K' is given more than once"):
        read(("env", "K=1"), ("env", "K=2"))
    with pytest.raises(UsageError, match="stdin: 33554433 bytes"):
        read(stdin=bytes((32 << 20) + 1))
    with pytest.raises(UsageError, match="files: with stdin 66125824 bytes, at most 66060288 are taken together"):
        read(stdin=bytes(31 << 20), files_size=32 << 20)
    with pytest.raises(UsageError, match="the text fields together"):
        read(*[("args", "x" * 1000)] * 70)


# The guest's file system.


def test_files_make_a_file_system_with_the_gateways_limits() -> None:
    got = read(files_size=100)
    assert (got["files_bytes"], got["artifact_bytes"]) == (LIMITS.files_default_bytes, 0)
    assert read(files_size=0)["files_bytes"] > 0  # refused as no zip, and not as none
    assert (read()["files_bytes"], read()["artifact_bytes"]) == (0, 0)
    got = read(("dirs", "/data/"), ("dirs", "./tmp"), ("artifacts", "out//x.txt"), ("artifacts", "log"))
    assert (got["dirs"], got["artifacts"]) == (("/data", "tmp"), ("out/x.txt", "log"))
    assert (got["files_bytes"], got["artifact_bytes"]) == (LIMITS.files_default_bytes, LIMITS.artifacts_default_bytes)
    got = read(("artifacts", "/"), ("files_max", "7"), ("artifacts_max", "8"))
    assert (got["artifacts"], got["files_bytes"], got["artifact_bytes"]) == (("/",), 7, 8)


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ([("files_max", "1")], "files_max", "given without files, dirs or artifacts"),
        ([("artifacts_max", "1"), ("dirs", "a")], "artifacts_max", "given without artifacts"),
        ([("dirs", "a"), ("files_max", "0")], "files_max", "is not a whole number from 1 to 268435456"),
        ([("dirs", "a"), ("files_max", str(1 << 31))], "files_max", "is not a whole number from 1 to 268435456"),
        ([("artifacts", "a"), ("artifacts_max", "33554433")], "artifacts_max", "from 1 to 33554432"),
        ([("dirs", "a"), ("dirs", "/a/")], "dirs", "'/a/' is given more than once"),
        ([("dirs", "a"), ("dirs", ".")], "dirs", "'/', which is all there is, is given beside others"),
        ([("artifacts", f"f{i}") for i in range(129)], "artifacts", "129 are given, at most 128 are taken"),
    ],
)
def test_a_file_system_that_cannot_be_is_refused(fields: list[tuple[str, str]], field: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        read(*fields)
    assert error.value.field == field
    assert str(error.value).startswith(f"{field}: ")


def test_a_zip_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match=f"files: 33554433 bytes, at most {32 << 20} are taken") as error:
        read(files_size=(32 << 20) + 1)
    assert error.value.field == "files"


@pytest.mark.parametrize(
    "limits",
    [
        {"files_upload_max_bytes": 64 << 20},
        {"stdin_max_bytes": 63 << 20},
        {"output_max_bytes": 32 << 20},
    ],
)
def test_limits_that_no_message_holds_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"too large: .* a message holds"):
        RequestLimits(**limits)


# What a run may use, and how it is run.


def test_fuel_processor_time_and_determinism_are_read() -> None:
    got = read(("fuel", "5"), ("cpu_seconds", "1.5"), ("deterministic", "true"), ("seed", str(2**64 - 1)))
    assert (got["fuel"], got["cpu_s"], got["deterministic"], got["seed"]) == (5, 1.5, True, 2**64 - 1)
    got = read(("deterministic", "false"), ("cpu_seconds", "0"))
    assert (got["fuel"], got["cpu_s"], got["deterministic"], got["seed"]) == (0, 0.0, False, 0)


def test_a_gateway_may_have_defaults_for_them() -> None:
    limits = RequestLimits(fuel_default=9, fuel_max=10, cpu_default_s=2.0, cpu_max_s=3.0)
    spec = read_fields([], b"", True, limits).spec("0" * 64, RUN)
    assert (spec.fuel, spec.cpu_s) == (9, 2.0)
    for name, text in (("fuel", "11"), ("cpu_seconds", "3.5")):
        with pytest.raises(UsageError) as error:
            read_fields([(name, text)], b"", True, limits)
        assert error.value.field == name


VOTED: Final = ("deterministic", "true")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], (1, 1)),
        ([VOTED, ("replicas", "3")], (3, 2)),
        ([VOTED, ("replicas", "4")], (4, 3)),
        ([VOTED, ("quorum", "2")], (3, 2)),
        ([VOTED, ("quorum", "9")], (16, 9)),
        ([VOTED, ("quorum", "16")], (16, 16)),
        ([VOTED, ("replicas", "5"), ("quorum", "5")], (5, 5)),
        ([VOTED, ("replicas", "3"), ("quorum", "1")], (3, 1)),
        ([("quorum", "1")], (1, 1)),
        ([("replicas", "1")], (1, 1)),
    ],
)
def test_a_quorum_is_a_majority_where_one_of_both_is_said(
    fields: list[tuple[str, str]], expected: tuple[int, int]
) -> None:
    got = read(*fields)
    assert (got["replicas"], got["quorum"]) == expected


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ([VOTED, ("replicas", "17")], "replicas", "is not a whole number from 1 to 16"),
        ([VOTED, ("quorum", "0")], "quorum", "is not a whole number from 1 to 16"),
        ([VOTED, ("replicas", "2"), ("quorum", "3")], "quorum", "3 of 2 replicas cannot agree; expected at most 2"),
        (
            [("quorum", "2")],
            "deterministic",
            "2 of 3 replicas must agree, and .*deterministic=true$",
        ),
        ([("replicas", "2"), ("quorum", "1")], "deterministic", "expected deterministic=true"),
        ([VOTED, ("quorum", "2"), ("retries", "1")], "retries", "expected retries=0$"),
        ([VOTED, ("quorum", "2"), ("grants", '[{"name": "m:f"}]')], "grants", "expected no grants$"),
        ([VOTED, ("quorum", "2"), ("spread", "random")], "spread", "expected spread=pull"),
        ([VOTED, ("quorum", "2"), ("spread", "everywhere")], "spread", "expected spread=pull"),
    ],
)
def test_what_peers_cannot_agree_on_is_refused(fields: list[tuple[str, str]], field: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        read(*fields)
    assert error.value.field == field


def test_what_the_gateway_asks_for_is_said_where_a_task_cannot_have_it() -> None:
    limits = RequestLimits(replicas_default=3, quorum_default=2)
    got = read(VOTED, limits=limits)
    assert (got["replicas"], got["quorum"]) == (3, 2)
    with pytest.raises(
        UsageError,
        match=r"2 of 3 replicas must agree by this gateway.s default, .* expected deterministic=true or quorum=1$",
    ) as error:
        read(limits=limits)
    assert error.value.field == "deterministic"
    assert read(("quorum", "1"), limits=limits)["replicas"] == 1


@pytest.mark.parametrize("others", [[("dirs", "a")], [("artifacts", "a")], []])
def test_a_component_is_deterministic_only_without_files(others: list[tuple[str, str]]) -> None:
    component, files_size = Guest(Kind.COMPONENT), None if others else 100
    assert read(*others, files_size=files_size, guest=component)["kind"] == "component"
    assert read(("deterministic", "true"), guest=component)["deterministic"]
    assert read(("deterministic", "true"), *others, files_size=files_size)["deterministic"]
    with pytest.raises(UsageError, match="deterministic: a component sees when") as error:
        read(("deterministic", "true"), *others, files_size=files_size, guest=component)
    assert error.value.field == "deterministic"


# What a function is called with.

ALL = Guest(Kind.FUNCTION, "f", ("i32", "i64", "f32", "f64"), "f64")


def test_run_is_called_with_input_and_difficulty_and_args_are_its_argv() -> None:
    got = read(("difficulty", "3"), ("args", "x"))
    assert (got["arguments"], got["args"]) == ((0, 3), ("x",))
    floats = Guest(Kind.FUNCTION, "run", ("f64", "i32"))
    assert read(("input", "1"), guest=floats)["arguments"] == (0x3FF0000000000000, 0)


def test_a_named_function_is_called_with_what_is_given_in_order() -> None:
    entry = ("entry", "f")
    assert read(entry, *[("args", text) for text in ("-1", "2", "0.5", "nan")], guest=ALL)["arguments"] == (
        -1, 2, 0x3FE0000000000000, 0x7FF8000000000000,
    )  # fmt: skip
    got = read(entry, ("args", "0.5"), ("difficulty", "2"), ("input", "4294967295"), ("args", "inf"), guest=ALL)
    assert got["arguments"] == (-1, 2, 0x3FE0000000000000, 0x7FF0000000000000)
    assert read(entry, ("difficulty", "7"), guest=Guest(Kind.FUNCTION, "f", ("i32",)))["arguments"] == (7,)
    assert read(entry, guest=Guest(Kind.FUNCTION, "f"))["arguments"] == ()


def test_other_kinds_are_called_with_no_numbers() -> None:
    for kind in (Kind.COMMAND, Kind.REACTOR, Kind.COMPONENT):
        got = read(("input", "1"), ("args", "x"), guest=Guest(kind))
        assert (got["kind"], got["entry"], got["arguments"]) == (kind, "", ())


@pytest.mark.parametrize(
    ("guest", "fields", "field", "says"),
    [
        (ALL, [("entry", "f")], "args", "'f' takes (i32, i64, f32, f64), 0 were given: input and difficulty where"),
        (ALL, [("entry", "f")] + [("args", "1")] * 5, "args", "5 were given"),
        (Guest(Kind.FUNCTION, "f", ("i32",) * 500), [("entry", "f")], "args", "takes 500 parameters, 0 were given"),
        (RUN, [("entry", "run")], "args", "'run' takes (i64, i64), 0 were given"),
        (ALL, [("entry", "f"), ("input", "1")] + [("args", "x")] * 3, "args",
         "parameter 2 of 'f' is i64: 'x' is not a whole number from -9223372036854775808 to 18446744073709551615"),
        (ALL, [("entry", "f"), ("input", "4294967296")] + [("args", "1")] * 3, "input",
         "input: parameter 1 of 'f' is i32: '4294967296' is not a whole number from -2147483648 to 4294967295"),
        (ALL, [("entry", "f"), *[("args", text) for text in ("1", "1", "1e39", "1")]], "args",
         "parameter 3 of 'f' is f32: '1e39' is not a decimal number that fits 32 bits, nan or inf"),
        (ALL, [("entry", "f"), *[("args", text) for text in ("1", "1", "1", "1e309")]], "args", "fits 64 bits"),
        (Guest(Kind.FUNCTION, "run", ("i64", "i32")), [("difficulty", str(2**32))], "difficulty", "parameter 2 of"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_one_error_that_names_the_parameter(
    guest: Guest, fields: list[tuple[str, str]], field: str, says: str
) -> None:
    with pytest.raises(UsageError) as error:
        read(*fields, guest=guest)
    assert says in str(error.value)
    assert error.value.field == field
    assert len(str(error.value)) < 250


def test_an_environment_value_never_shows_in_an_error() -> None:
    with pytest.raises(UsageError) as error:
        read(("env", "=secret"))
    assert "secret" not in str(error.value)


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=30)), max_size=6))
def test_no_fields_get_another_error_out_of_the_reader(fields: list[tuple[str, str]]) -> None:
    with contextlib.suppress(UsageError):
        read(*fields)


@given(st.floats(0, 1e9, allow_nan=False))
def test_any_time_written_plainly_is_read(value: float) -> None:
    assert math.isclose(float(str(read(("start", f"{value:.9f}"))["start_s"])), value, abs_tol=1e-6)


def test_made_ids_sort_by_time_and_say_their_version() -> None:
    first, second = uuid7(), uuid7()
    assert first.version == second.version == 7
    assert first.variant == "specified in RFC 4122"
    assert str(first)[:8] <= str(second)[:8]
