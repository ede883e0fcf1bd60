"""What a task is made of: files, folders and values as the parts of a form, and what cannot be sent."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.guests import guest
from ww.client.submission import prepare, read_digest, read_module
from ww.errors import UsageError

NOOP = guest("noop")
DIGEST = f"sha256:{hashlib.sha256(NOOP).hexdigest()}"


def texts(**fields: Any) -> list[tuple[str, str]]:
    """Return the text fields of a task with id t."""
    parts = prepare(NOOP, {"id": "t", **fields}).parts(by_digest=True)  # type: ignore[typeddict-item]
    assert parts[0] == ("id", (None, b"t"))
    return [(name, content.decode()) for name, (_, content) in parts[1:-1]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"input": 0, "difficulty": 3}, [("input", "0"), ("difficulty", "3")]),
        ({"duration_s": 5, "start_s": 0.5}, [("duration", "5"), ("start", "0.5")]),
        ({"delay_s": 1e-7}, [("delay", "0.0000001")]),
        ({"duration_s": 100.0, "cpus": 1e9}, [("duration", "100"), ("cpus", "1000000000")]),
        ({"memory_bytes": 1, "files_bytes_max": 3}, [("memory", "1"), ("files_max", "3")]),
        ({"args": ["a", ""], "dirs": ("d",)}, [("args", "a"), ("args", ""), ("dirs", "d")]),
        ({"env": {"A": "1=2"}, "labels": {"gpu": "yes"}}, [("env", "A=1=2"), ("labels", "gpu=yes")]),
        ({"deterministic": True, "seed": 7}, [("deterministic", "true"), ("seed", "7")]),
        ({"priority": -5, "retries": 0, "name": "n"}, [("priority", "-5"), ("retries", "0"), ("name", "n")]),
        ({"name": None, "fuel": None}, []),
    ],
)  # fmt: skip
def test_fields(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert texts(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"colour": "blue"}, "colour"),
        ({"input": "3"}, "input"),
        ({"input": True}, "input"),
        ({"duration_s": float("nan")}, "duration"),
        ({"duration_s": "5"}, "duration"),
        ({"args": "hello"}, "args"),
        ({"args": [1]}, "args"),
        ({"env": ["A=1"]}, "env"),
        ({"env": {"A": 1}}, "env"),
        ({"deterministic": 1}, "deterministic"),
        ({"stdin": 7}, "stdin"),
        ({"files": 7}, "files"),
        ({"files": "/nowhere/at/all"}, "files"),
        ({"id": 7}, "id"),
    ],
)
def test_what_cannot_be_sent(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        prepare(NOOP, fields)  # type: ignore[arg-type]
    assert refused.value.field == field
    assert "\n" not in str(refused.value)


def test_the_value_of_a_variable_is_in_no_message() -> None:
    with pytest.raises(UsageError) as refused:
        prepare(NOOP, {"env": {"KEY": b"secret"}})  # type: ignore[dict-item]
    assert "secret" not in str(refused.value)


def test_an_id_is_made_once(tmp_path: Path) -> None:
    submission = prepare(NOOP, {})
    assert UUID(submission.id).version == 7
    assert submission.parts(by_digest=True)[0] == submission.parts(by_digest=False)[0]


def test_a_module_by_path_bytes_or_digest(tmp_path: Path) -> None:
    (tmp_path / "noop.wasm").write_bytes(NOOP)
    for source in (NOOP, tmp_path / "noop.wasm", str(tmp_path / "noop.wasm")):
        module = read_module(source)
        assert (module.digest, module.content) == (DIGEST, NOOP)
    assert (read_module(DIGEST).digest, read_module(DIGEST).content) == (DIGEST, None)
    assert read_digest(DIGEST.removeprefix("sha256:")) == DIGEST
    for wrong in ("sha256:12", "sha256:" + "g" * 64, tmp_path / "none.wasm"):
        with pytest.raises(UsageError):
            read_module(wrong)


def test_the_form_has_the_bytes_or_the_digest() -> None:
    submission = prepare(NOOP, {})
    assert submission.parts(by_digest=False)[-1] == ("wasm", ("guest.wasm", NOOP))
    assert submission.parts(by_digest=True)[-1] == ("module", (None, DIGEST.encode()))
    assert prepare(DIGEST, {}).parts(by_digest=False)[-1] == ("module", (None, DIGEST.encode()))


def test_stdin_is_sent_byte_by_byte() -> None:
    assert prepare(NOOP, {"stdin": b"\xff\r\n\0"}).fields[-1] == ("stdin", ("stdin", b"\xff\r\n\0"))
    assert prepare(NOOP, {"stdin": "ü"}).fields[-1] == ("stdin", ("stdin", "ü".encode()))


def test_a_folder_becomes_a_zip_that_is_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    (name, (_, content)) = prepare(NOOP, {"files": tmp_path}).fields[-1]
    assert name == "files"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["a/b.txt", "empty/"]
        assert archive.read("a/b.txt") == b"hello"
    assert prepare(NOOP, {"files": str(tmp_path)}).fields[-1][1][1] == content
    (tmp_path / "in.zip").write_bytes(content)
    assert prepare(NOOP, {"files": tmp_path / "in.zip"}).fields[-1] == ("files", ("files.zip", content))
    assert prepare(NOOP, {"files": content}).fields[-1] == ("files", ("files.zip", content))
