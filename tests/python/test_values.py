import array
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import pickle
import sys
import threading
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.python.values import DEPTH_MAX, Unsendable, dumps, loads


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass(frozen=True)
class Box:
    corner: Point
    label: str = "none"

    def __post_init__(self) -> None:
        raise RuntimeError("no code of a class runs when a value is read")


@dataclasses.dataclass
class Named(list):  # type: ignore[type-arg]
    name: str = ""


class Mask(enum.IntFlag):
    LOW = 1


def box(*values: object) -> Box:
    made = object.__new__(Box)
    for field, value in zip(dataclasses.fields(Box), values, strict=True):
        object.__setattr__(made, field.name, value)
    return made


def classes(module: str, name: str) -> type | None:
    return globals().get(name) if module == __name__ else None


def nothing(module: str, name: str) -> None:
    return None


def returned(value: object) -> Any:
    return loads(dumps(value), classes)


PLAIN = [None, True, False, 0, -1, 2**63, -(2**63), 2**64 - 1, 1.5, -0.0, "", "é\ud800", [], {}, [[]], {"a": [1, {}]}]
UTC = datetime.UTC
OTHERS = [
    *(2**64, -(2**63) - 1, 10**5000, math.inf, -math.inf, b"", b"\0\xff", bytearray(b"x"), 1j, complex(math.inf, -0.0)),
    *((), (1, (2,)), {1, 2}, frozenset({1, "a"}), {1: 2}, {"": 1}, {(1, 2): [3]}, {None: 1, True: 2}),
    *(range(3), range(0, -(10**30), -7), slice(None), slice(1, 2, 3), ...),
    *(datetime.date(2026, 1, 2), datetime.time(1, 2, 3, 4, fold=1), datetime.timedelta(-1, 5, 6)),
    *(datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.datetime(2026, 1, 2, tzinfo=UTC), UTC),
    *(datetime.timezone(datetime.timedelta(hours=2)), datetime.timezone(datetime.timedelta(minutes=-5), "here")),
    *(decimal.Decimal("1.50"), decimal.Decimal("-1E+30"), decimal.Decimal("-Infinity"), fractions.Fraction(-3, 7)),
    *(uuid.UUID(int=7), pathlib.PurePosixPath("/a/b"), Colour.RED, Right.READ | Right.WRITE, Point(1, [2])),
    *(box(Point(1, 2), "a"), array.array("d", [1, 2]), array.array("i", [-1]), array.array("Q", [2**64 - 1])),
    *(collections.OrderedDict(b=1, a=2), collections.Counter("abca"), collections.deque([1, 2], 5)),
    *(collections.defaultdict(list, {1: [2]}), collections.defaultdict(None, {})),
]


@pytest.mark.parametrize("value", [*PLAIN, *OTHERS], ids=lambda value: type(value).__name__)
def test_what_has_a_form_comes_back_as_it_was(value: object) -> None:
    for each in (value, [value, {"in": value}]):
        found = returned(each)
        assert found == each
        assert type(found) is type(each)
        assert dumps(found) == dumps(each)


def test_a_nan_comes_back() -> None:
    assert math.isnan(returned(math.nan))
    assert returned(decimal.Decimal("sNaN")).is_snan()


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_values_are_their_own_json(value: object) -> None:
    assert json.loads(dumps(value)) == value


ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.datetimes(timezones=st.none() | st.just(UTC)) | st.timedeltas()
    | st.dates() | st.times() | st.fractions() | st.decimals(allow_nan=False) | st.uuids() | st.sampled_from(Colour)
)  # fmt: skip
KEYS = st.none() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner) | st.sets(KEYS) | st.frozensets(KEYS)
        | st.builds(Point, st.integers(), inner)
    ),
)  # fmt: skip


@given(VALUES)
def test_values_of_all_kinds_in_each_other_come_back(value: object) -> None:
    text = dumps(value)
    found = loads(text, classes)
    assert text.isascii()
    assert found == value
    assert type(found) is type(value)


TAGS = [
    *("int", "float", "bytes", "tuple", "set", "dict", "range", "slice", "date", "time", "datetime", "timedelta"),
    *("timezone", "decimal", "fraction", "uuid", "path", "enum", "flag", "named", "data", "array", "deque"),
    *("Counter", "defaultdict", "complex", "pickle", "ellipsis", "nonsense"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(
            lambda tag, parts: {"": [tag, *parts]},
            st.sampled_from(
                TAGS
            ),
            st.lists(inner | st.just(f"{__name__}:Point") | st.just(f"{__name__}:Box"), max_size=9),
        )
    ),
)  # fmt: skip


@given(JSON)
def test_whatever_json_says_is_a_value_or_a_value_error(found: object) -> None:
    with contextlib.suppress(ValueError):
        repr(loads(json.dumps(found), classes))


@given(st.text() | st.binary())
def test_whatever_text_is_a_value_or_a_value_error(text: str | bytes) -> None:
    with contextlib.suppress(ValueError):
        loads(text, nothing)


@pytest.mark.parametrize(
    "text",
    [
        *("", "NaN", "Infinity", "[NaN]", "{", "nul", '"\x00"', "1" * 5000),
        *('{"":[]}', '{"":1}', '{"":["int","1"],"a":1}'),
        *('{"":["int","5"]}', '{"":["int","0ffffffffffffffffffff"]}', '{"":["int"," ffffffffffffffffffff"]}'),
        *('{"":["int","f_fffffffffffffffffff"]}', '{"":["int",5]}', '{"":["float","1"]}', '{"":["float","nan",1]}'),
        *('{"":["bytes","a"]}', '{"":["bytes","YQ=x"]}', '{"":["bytes","ä"]}', '{"":["set",1,1]}', '{"":["set",[]]}'),
        *('{"":["dict",1]}', '{"":["dict",1,2,1,3]}', '{"":["dict",{"a":1},2]}', '{"":["fraction",2,4]}'),
        *('{"":["fraction",1,0]}', '{"":["fraction",true,2]}', '{"":["decimal","x"]}', '{"":["uuid","7"]}'),
        *('{"":["range",1,2,0]}', '{"":["range",1]}', '{"":["date",2026,2,30]}', '{"":["datetime",1,2,3]}'),
        *('{"":["timezone",99999999999999,null]}', '{"":["time",25,0,0,0,0,null]}', '{"":["time",1,0,0,0,0,"utc"]}'),
        *('{"":["array","u",4,""]}', '{"":["array","d",3,""]}', '{"":["array","d",8,"YQ=="]}', '{"":["deque","a"]}'),
        *('{"":["defaultdict","eval"]}', '{"":["enum","os:system","x"]}'),
        *('{"":["nonsense",1]}', '{"":["pickle","gASULg=="]}'),
        *('{"":["flag","tests:Right",64]}', '{"":[["int"],1]}', b"\xff", '{"":["complex",1,2]}'),
    ],
)  # fmt: skip
def test_what_dumps_does_not_write_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        loads(text, classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        ["enum", "Colour", "GREEN"], ["enum", "Point", "x"], ["named", "Point", 1], ["named", "Box", 1, 2],
        ["data", "Box", "corner", 1], ["data", "Box", "label", 1, "corner", 2], ["data", "Point", "x", 1, "y", 2],
        ["data", "Named", "name", "a"], ["data", "test_values", "a", 1], ["flag", "Colour", 1], ["named", "Nobody"],
    ],
)  # fmt: skip
def test_classes_take_what_they_have_and_nothing_else(body: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(json.dumps({"": [body[0], f"{__name__}:{body[1]}", *body[2:]]}), classes)


def test_a_class_is_only_what_the_reader_gives() -> None:
    with pytest.raises(ValueError, match="is no class that is taken"):
        loads(dumps(Colour.RED), nothing)


def in_itself() -> list[object]:
    found: list[object] = [1]
    found.append({"a": (found,)})
    return found


class Other:
    pass


def inner() -> object:
    @dataclasses.dataclass
    class Inside:
        x: int

    return Inside(1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Other(), "cannot send result: .*Other has no form"),
        ([1, {"a": (Other(),)}], r"cannot send result\[1\]\['a'\]\[0\]: .*Other"),
        (box(Point(1, Other()), ""), r"cannot send result.corner.y: .*Other"),
        ({Other(): 1}, r"cannot send result key \(Other\): .*Other"),
        (in_itself(), r"cannot send result\[1\]\['a'\]\[0\]: it is in itself"),
        ((one for one in ()), "a generator: return a list"),
        (print, "builtin_function_or_method has no form"),
        (inner(), "is defined in a function"),
        (Named(), "Named has no form"),
        (collections.defaultdict(lambda: 1), "defaultdict with a factory of its own"),
        (array.array("u", "a"), "array.array has no form")
        if sys.version_info < (3, 13)
        else (memoryview(b""), "memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_named_with_where_it_is(value: object, message: str) -> None:
    with pytest.raises(Unsendable, match=message) as caught:
        dumps(value)
    assert "\n" not in str(caught.value)


def test_subclasses_of_what_has_a_form_have_none() -> None:
    class Text(str):
        pass

    class Count(int):
        pass

    for value in (Text("a"), Count(1), {Text("a"): 1}):
        with pytest.raises(Unsendable):
            dumps(value)


def test_classes_that_the_reader_does_not_have_are_refused_by_the_writer() -> None:
    assert dumps(Colour.RED, is_shipped=lambda kind: kind is Colour)
    with pytest.raises(Unsendable, match="Point is in no module that was sent"):
        dumps([Point(1, 2)], is_shipped=lambda kind: kind is Colour)


def nested(depth: int, make: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
def test_depth_is_bounded_on_both_sides(make: Any) -> None:
    assert returned(nested(DEPTH_MAX, make)) == nested(DEPTH_MAX, make)
    with pytest.raises(Unsendable, match="nested deeper than"):
        dumps(nested(DEPTH_MAX + 1, make))
    text = json.dumps(nested(DEPTH_MAX, make), default=list)
    for deep in ("[" * 250 + text + "]" * 250, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match=r"nested too deep|is no JSON"):
            loads(deep, classes)


def test_brackets_in_strings_are_no_depth_and_hide_none() -> None:
    text = ["[" * 1000, ']}\\"' * 1000, (1, "{[" * 500)]
    assert returned(text) == text
    hidden = '["]",' * 500 + '{"":["tuple"]}' + "]" * 500
    with pytest.raises(ValueError, match="nested too deep"):
        loads(hidden, classes)


def test_a_value_twice_is_written_twice_but_itself_is_refused() -> None:
    shared = [1]
    assert returned([shared, (shared, shared)]) == [[1], ([1], [1])]


def test_keys_made_to_collide_end_in_bounded_time() -> None:
    prime = sys.hash_info.modulus
    keys = [{"": ["int", f"{number * prime:x}"]} for number in range(2**8, 60_000)]
    # Quadratic it takes longer than the test may.
    with pytest.raises(ValueError, match="collide"):
        loads(json.dumps({"": ["set", *keys]}), classes)


def test_many_sets_whose_keys_collide_have_no_more_time_than_one() -> None:
    prime = sys.hash_info.modulus
    slow = {"": ["set", *({"": ["tuple", *[0] * 60, {"": ["int", f"{n * prime:x}"]}]} for n in range(16, 1000))]}
    with pytest.raises(ValueError, match="collide"):
        loads(json.dumps([slow] * 60), classes)


def test_a_dataclass_that_does_something_at_its_end_is_not_made() -> None:
    @dataclasses.dataclass
    class Folder:
        path: str

        def __del__(self) -> None:
            pytest.fail("this is what a stranger would have removed")

    with pytest.raises(ValueError, match="no dataclass"):
        loads('{"":["data","m:Folder","path","/"]}', lambda module, name: Folder)


def test_flags_take_no_more_than_they_can_forget() -> None:
    known = len(Mask._value2member_map_)
    for value in (1 << 64, -(1 << 64), 1 << 100_000):
        with pytest.raises(ValueError, match="no such value"):
            loads(json.dumps({"": ["flag", "m:Mask", {"": ["int", f"{value:x}"]}]}), lambda module, name: Mask)
    assert len(Mask._value2member_map_) == known
    assert loads('{"": ["flag", "m:Mask", 5]}'.replace(": ", ":"), lambda module, name: Mask) == Mask(5)


def test_large_sets_and_dicts_that_are_honest_are_taken() -> None:
    numbers = set(range(50_000))
    assert returned(numbers) == numbers
    squares = {number: number * number for number in range(20_000)}
    assert returned(squares) == squares


def test_long_numbers_are_refused_whatever_pythons_limit_is() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        for text in ("9" * 100_000, '[{"":["tuple"]},' + "9" * 100_000 + "]"):
            with pytest.raises(ValueError, match="a number has 100000 digits"):
                loads(text, classes)
    finally:
        sys.set_int_max_str_digits(before)


def test_pickles_are_written_and_read_only_where_both_sides_trust() -> None:
    value = Other()
    with pytest.raises(Unsendable):
        dumps([value])
    text = dumps([value], trust=True)
    with pytest.raises(ValueError, match="trust=True"):
        loads(text, classes)
    assert type(loads(text, classes, trust=True)[0]) is Other
    assert dumps([1], trust=True) == "[1]"
    with pytest.raises(Unsendable, match="cannot send result"):
        dumps(threading.Lock(), trust=True)
    broken = json.dumps({"": ["pickle", "gAWMAg=="]})
    with pytest.raises(ValueError, match="a pickle cannot be read"):
        loads(broken, classes, trust=True)


def test_a_pickle_bomb_is_never_opened() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("it went off",)

    import base64

    text = json.dumps([{"": ["pickle", base64.b64encode(pickle.dumps(Bomb())).decode()]}])
    with pytest.raises(ValueError, match="trust=True"):
        loads(text, classes)
