"""How many peers a task's runs are given to, and how many of them must agree: as far as a submission says so.

Holds the reading of `replicas` and `quorum`, and what a task may not ask for beside them. Must not know how runs are
given out, or votes counted: quorum.py. In words: docs/http.md.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ww.errors import UsageError
from ww.gateway.fields import REPLICAS_MAX
from ww.gateway.spec import Spread


def complete(replicas: int | None, quorum: int | None, field: str = "quorum") -> tuple[int, int]:
    """Return both, where one was said or none: a quorum is a majority, and of one peer where nothing was.

    UsageError, of that field, when it is too large.
    """
    if replicas is None:
        quorum = quorum or 1
        return min(2 * quorum - 1, REPLICAS_MAX), quorum
    if quorum is None:
        return replicas, replicas // 2 + 1
    if quorum > replicas:
        raise UsageError(f"{field}: {quorum} of {replicas} replicas cannot agree; expected at most {replicas}", field)
    return replicas, quorum


def read_replicas(given: Collection[str], values: dict[str, Any], grants: object) -> None:
    """Complete what is said of replicas and quorum, among values of a Spec; given names the fields that were.

    UsageError when what else is said cannot be compared.
    """
    is_default = not ("replicas" in given or "quorum" in given)
    if not is_default:
        said = {name: values[name] if name in given else None for name in ("replicas", "quorum")}
        values["replicas"], values["quorum"] = complete(said["replicas"], said["quorum"])
    if values["replicas"] > 1:
        _check(values, grants, is_default=is_default)


def _check(values: Mapping[str, Any], grants: object, *, is_default: bool) -> None:
    """Refuse what has no one result that peers could agree on, or what is done more than once."""
    if not values["deterministic"]:
        name, why, expected = "deterministic", "others compute the same only then", "deterministic=true"
    elif values["retries"]:
        name, why, expected = "retries", "what fails does so for each of them", "retries=0"
    elif grants:
        name, why, expected = "grants", "each of them would call what is granted", "no grants"
    elif values["spread"] != Spread.PULL:
        name, why, expected = "spread", "they are whoever is free", "spread=pull"
    else:
        return
    of = f"{values['quorum']} of {values['replicas']} replicas must agree"
    of, expected = (f"{of} by this gateway's default", f"{expected} or quorum=1") if is_default else (of, expected)
    raise UsageError(f"{name}: {of}, and {why}; expected {expected}", name)
