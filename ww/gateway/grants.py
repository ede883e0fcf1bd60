"""Which functions a task's runs may have called: what a submission says of them, read and checked.

Holds the reading of the field `grants`. Must not know who calls (calls.py). What a run of such a function may use has
the names, bounds and defaults that a task's own fields have: fields.py.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from ww.errors import UsageError
from ww.gateway import fields as known
from ww.gateway.fields import shown
from ww.gateway.limits import RequestLimits
from ww.gateway.spec import Grant
from ww.gateway.strict_json import NoJson, read_json

_FUNCTION: Final = re.compile(known.FUNCTION_PATTERN)
_VALUES: Final = {
    each.name: each
    for each in known.VALUES
    if each.name in ("duration", "memory", "output", "fuel", "cpu_seconds", "retries")
}
_OTHERS: Final = ("name", "grants", "indirect")
LIMITS: Final = tuple(_VALUES)
"""What may be said of each beside its name and its own grants."""


def is_function(text: str) -> bool:
    """Whether a text can name a function, as module:qualname."""
    return len(text) <= known.FUNCTION_CHARACTERS_MAX and _FUNCTION.fullmatch(text) is not None


def read_grants(text: str, limits: RequestLimits) -> tuple[Grant, ...]:
    """Read a JSON array of objects. UsageError names the place that is wrong."""
    try:
        given = read_json(text)
    except NoJson as error:
        raise UsageError(f"grants: is no JSON that can be read: {error}", "grants") from None
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise UsageError("grants: expected an array of objects", "grants")
    if len(given) > known.GRANTS_MAX:
        raise UsageError(f"grants: {len(given)} are given, at most {known.GRANTS_MAX} are taken", "grants")
    found: dict[str, Grant] = {}
    for place, each in enumerate(given):
        try:
            grant = _grant(each, limits)
        except UsageError as error:
            raise UsageError(f"grants[{place}].{error}", "grants") from None
        if grant.name in found:
            raise UsageError(f"grants[{place}].name: {shown(grant.name)} is given more than once", "grants")
        found[grant.name] = grant
    for place, grant in enumerate(found.values()):
        if wrong := next((name for name in grant.grants if name not in found), None):
            what = f"{shown(wrong)} is none of those that are granted here"
            raise UsageError(f"grants[{place}].grants: {what}", "grants")
    return tuple(found.values())


def _grant(given: Mapping[str, Any], limits: RequestLimits) -> Grant:
    values = {each.to: known.defaults(limits).get(each.to, 0) for each in _VALUES.values()}
    values["output_bytes"] = limits.python_output_default_bytes
    name, grants, indirect = given.get("name"), given.get("grants"), given.get("indirect", False)
    for key, value in given.items():
        if key in _OTHERS or value is None:
            continue
        if key not in _VALUES:
            expected = " ".join(sorted((*_VALUES, *_OTHERS)))
            raise UsageError(f"{key[:60]}: no such member; known are {expected}")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise UsageError(f"{key}: expected a number")
        values[_VALUES[key].to] = _VALUES[key].read(_text(value), limits)
    if not isinstance(name, str) or not is_function(name):
        raise UsageError("name: expected a function as module:qualname")
    if grants is not None and not (isinstance(grants, list) and all(isinstance(each, str) for each in grants)):
        raise UsageError("grants: expected an array of names")
    if indirect is not None and not isinstance(indirect, bool):
        raise UsageError("indirect: expected true or false")
    return Grant(name=name, grants=tuple(dict.fromkeys(grants or ())), is_indirect=bool(indirect), **values)


def _text(value: float | str) -> str:
    """Return a number as a form has it, which knows no exponents."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.9f}".rstrip("0")
    return str(value)
