"""Zips of strangers: every trick is refused by name, and none reaches beyond the directory or its limits."""

import io
import mmap
import os
import random
import re
import stat
import struct
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guests import zipped
from ww import archive
from ww.errors import UsageError

ROOM = {"bytes_max": 1 << 20, "count_max": 100}


@dataclass
class Entry:
    """One entry, as it is to be written, be it true or not."""

    name: str | bytes
    content: bytes = b""
    mode: int = 0
    method: int = zipfile.ZIP_DEFLATED
    flags: int = 0


def zip_of(*entries: Entry | tuple[str | bytes, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Write a zip without asking whether it makes sense, as zipfile would."""
    body, directory = b"", b""
    for item in entries:
        entry = item if isinstance(item, Entry) else Entry(*item, method=method)
        name = entry.name.encode() if isinstance(entry.name, str) else entry.name
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = entry.content if entry.method == 0 else packer.compress(entry.content) + packer.flush()
        sizes = (zlib.crc32(entry.content), len(packed), len(entry.content), len(name), 0)
        common = struct.pack("<5H3I2H", 20, entry.flags, entry.method, 0, 33, *sizes)
        directory += b"PK\1\2\24\3" + common + struct.pack("<3H2I", 0, 0, 0, entry.mode << 16, len(body)) + name
        body += b"PK\3\4" + common + name + packed
    count = len(entries)
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def central(data: bytes, at: int, form: str, value: int, number: int = 0) -> bytes:
    """Change a field of the directory's entry of that number."""
    changed = bytearray(data)
    start = -1
    for _ in range(number + 1):
        start = changed.index(b"PK\1\2", start + 1)
    struct.pack_into(form, changed, start + at, value)
    return bytes(changed)


def tail(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, changed.rindex(b"PK\5\6") + at, value)
    return bytes(changed)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "folder").mkdir()
    yield tmp_path / "folder"
    assert os.listdir(tmp_path) == ["folder"]


def unpack(data: archive.Data, folder: Path, bytes_max: int = 1 << 20, count_max: int = 100) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        archive.unpack(data, fd, bytes_max=bytes_max, count_max=count_max)
    finally:
        os.close(fd)


def pack(folder: Path, *paths: str, bytes_max: int = 1 << 20, count_max: int = 100, level: int = 1) -> bytes:
    fd = os.open(folder, os.O_RDONLY)
    try:
        return archive.pack(fd, paths, bytes_max=bytes_max, count_max=count_max, level=level)
    finally:
        os.close(fd)


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_unpacked(folder: Path, method: int) -> None:
    files = {"a/b/c.txt": b"text", "a/d": b"", "gr\u00fc\u00df": bytes(300_000), "C": b"x"}
    data = zip_of(*files.items(), ("empty/", b""), method=method)
    archive.check(data, **ROOM)
    unpack(data, folder)
    assert content(folder) == files | {"a": None, "a/b": None, "empty": None}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert modes == {0o600, 0o700}, "nothing in a zip says what may be executed"


def test_no_entries_are_an_empty_folder(folder: Path) -> None:
    unpack(zip_of(), folder)
    assert content(folder) == {}


def test_what_other_tools_write_is_understood(folder: Path) -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

        def seek(self, *_: Any) -> int:
            raise OSError

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as writer:
        # Sizes behind the content, a comment, and names in UTF-8 that do not say so.
        writer.writestr("streamed", b"x" * 1000)
        writer.comment = b"PK\5\6 of " + bytes(100)
    unpack(stream.getvalue(), folder)
    assert content(folder) == {"streamed": b"x" * 1000}
    archive.check(zip_of(("\u00fc", b"text")), **ROOM)


def test_a_file_in_memory_or_on_disk_is_read_in_place(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "zip"
    path.write_bytes(zip_of(("a", b"text")))
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        memoryview(mapped) as view,
    ):
        archive.check(view, **ROOM)
    for data in (bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        archive.check(data, **ROOM)


LINK, PIPE, DEVICE, SOCKET = stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFSOCK
ONE = zip_of(("name", b"text"), method=zipfile.ZIP_STORED)
TWO = zip_of(("one", b"text"), ("two", b"text"))
TRICKS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the files are no zip, or not all of one"),
    "no zip": (b"#!/bin/sh\n" * 100, "no zip"),
    "cut off": (ONE[:-1], "no zip"),
    "its end is missing": (ONE[: ONE.index(b"PK\1\2")], "no zip"),
    "something before": (b"#!/bin/sh\n" + ONE, "does not begin or end where it says"),
    "something behind": (ONE + b"x", "no zip"),
    "several disks": (tail(ONE, 4, "<H", 1), "one of several"),
    "absolute": (zip_of(("/etc/passwd", b"")), "entry '/etc/passwd' is absolute"),
    "a drive": (zip_of(("C:/a", b"")), "entry 'C:/a' names a drive"),
    "a drive's own folder": (zip_of(("c:a", b"")), "names a drive"),
    "up": (zip_of(("../a", b"")), "entry '../a' has '..' in it"),
    "up later": (zip_of(("a/b/../../../c", b"")), "has '..' in it"),
    "up at the end": (zip_of(("a/..", b"")), "has '..' in it"),
    "up as a folder": (zip_of(("../", b"")), "has '..' in it"),
    "here": (zip_of(("./a", b"")), "has '.' in it"),
    "backslash": (zip_of(("..\\a", b"")), "has a backslash in it"),
    "nul": (zip_of(("a\0b", b"")), "entry 'a\\x00b' has a control character in it"),
    "escape": (zip_of(("a\x1b[2Jb", b"")), "has a control character in it"),
    "newline": (zip_of(("a\nb", b"")), "has a control character in it"),
    "empty component": (zip_of(("a//b", b"")), "has an empty name in it"),
    "empty name": (zip_of(("", b"")), "has an empty name in it"),
    "only a slash": (zip_of(("/", b"")), "entry '/' has an empty name in it"),
    "two slashes at the end": (zip_of(("a//", b"")), "has an empty name in it"),
    "not utf-8": (zip_of((b"a\xffb", b"")), "has a name that is not UTF-8"),
    "surrogates": (zip_of((b"\xed\xa0\x80", b"")), "has a name that is not UTF-8"),
    "too long": (zip_of(("/".join(["a" * 100] * 11), b"")), "has 1110 bytes, the limit is 1024"),
    "too long a name": (zip_of(("a/" + "b" * 256, b"")), "has a name of more than 255 bytes in it"),
    "twice": (zip_of(("one", b"1"), ("one", b"2")), "entry 'one' is there twice"),
    "a folder twice": (zip_of(("a/", b""), ("a/", b"")), "entry 'a/' is there twice"),
    "file, then folder": (zip_of(("a", b""), ("a/", b"")), "entry 'a/' is there twice"),
    "file, then in it": (zip_of(("a", b""), ("a/b", b"")), "entry 'a/b' is in 'a', which is a file"),
    "deep in a file": (zip_of(("a/b", b""), ("a/b/c/d", b"")), "is in 'a/b', which is a file"),
    "folder, then file": (zip_of(("a/b", b""), ("a", b"")), "entry 'a' is a file and a folder"),
    "link": (zip_of(Entry("a", b"/etc/passwd", LINK)), "entry 'a' is a link"),
    "link to a folder": (zip_of(Entry("a/", b"", LINK)), "entry 'a/' is a link"),
    "link, and in it": (zip_of(Entry("a", b"/etc", LINK), ("a/passwd", b"")), "entry 'a' is a link"),
    "pipe": (zip_of(Entry("a", b"", PIPE)), "is neither a file nor a folder"),
    "device": (zip_of(Entry("a", b"", DEVICE)), "is neither a file nor a folder"),
    "socket": (zip_of(Entry("a", b"", SOCKET)), "is neither a file nor a folder"),
    "folder by mode": (zip_of(Entry("a", b"", stat.S_IFDIR)), "by its mode or by its name, but not by both"),
    "file by mode": (zip_of(Entry("a/", b"", stat.S_IFREG)), "by its mode or by its name, but not by both"),
    "encrypted": (central(ONE, 8, "<H", 1), "entry 'name' is encrypted"),
    "encrypted strongly": (central(ONE, 8, "<H", 1 << 6), "is encrypted"),
    "encrypted in its own header": (ONE[:6] + b"\1" + ONE[7:], "is not where the directory says"),
    "bzip2": (zip_of(("a", b"x"), method=12), "is compressed by method 12; stored and deflated are known"),
    "lzma": (zip_of(("a", b"x"), method=14), "by method 14"),
    "another method in its own header": (ONE[:8] + b"\10" + ONE[9:], "is not where the directory says"),
    "another name in its own header": (ONE[:30] + b"eman" + ONE[34:], "is not where the directory says"),
    "content of a folder": (central(zip_of(("a/", b"")), 24, "<I", 5), "a size that it cannot have"),
    "stored, but smaller": (central(ONE, 24, "<I", 5), "a size that it cannot have"),
    "beyond the end": (central(ONE, 42, "<I", 5000), "is not where the directory says"),
    "in the middle": (central(ONE, 42, "<I", 3), "is not where the directory says"),
    "zip64 entry": (central(ONE, 42, "<I", 0xFFFFFFFF), "is in the form of ZIP64"),
    "zip64": (tail(ONE, 16, "<I", 0xFFFFFFFF), "is a ZIP64"),
    "zip64 by count": (tail(tail(ONE, 8, "<H", 0xFFFF), 10, "<H", 0xFFFF), "is a ZIP64"),
    "more entries than there are": (tail(tail(ONE, 8, "<H", 2), 10, "<H", 2), "directory ends too early"),
    "fewer entries than there are": (tail(tail(TWO, 8, "<H", 1), 10, "<H", 1), "another length than it says"),
    "a damaged directory": (ONE.replace(b"PK\1\2", b"PK\1\3"), "directory is damaged"),
    "a name beyond the directory": (central(ONE, 28, "<H", 500), "directory is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused_in_one_line(trick: str, folder: Path) -> None:
    data, words = TRICKS[trick]
    with pytest.raises(UsageError) as refused:
        archive.check(data, **ROOM)
    assert words in str(refused.value)
    assert refused.value.field == "files"
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250
    with pytest.raises(UsageError, match=re.escape(str(refused.value))):
        unpack(data, folder)
    assert content(folder) == {}


def overlapping(count: int) -> bytes:
    """Make a zip in which every entry quotes all that follow it, as David Fifield's bombs do."""
    kernel = zip_of(("k", bytes(1 << 20)))
    local = kernel[: kernel.index(b"PK\1\2")]
    record = bytearray(kernel[kernel.index(b"PK\1\2") : kernel.index(b"PK\5\6")])
    size = len(local) - 31
    headers, records = b"", b""
    for number in range(count):
        name = b"%04d" % number
        head = bytearray(local[:30])
        struct.pack_into("<H", head, 26, 4)
        follows = (count - number - 1) * 34
        start = number * 34
        struct.pack_into("<H", record, 28, 4)
        struct.pack_into("<I", record, 20, size + follows)
        struct.pack_into("<I", record, 42, start)
        headers += bytes(head) + name
        records += bytes(record[:46]) + name
    body = headers + local[31:]
    return body + records + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(records), len(body), 0)


def test_a_bomb_of_overlapping_entries_is_refused() -> None:
    with pytest.raises(UsageError, match="entries that overlap"):
        archive.check(overlapping(50), bytes_max=1 << 40, count_max=100)


def test_what_is_declared_beyond_the_limits_is_refused_with_the_figure(folder: Path) -> None:
    bomb = zip_of(*((str(number), bytes(1 << 20)) for number in range(3)))
    assert len(bomb) < 10_000
    for refuse in (archive.check, lambda data, **room: unpack(data, folder, **room)):
        with pytest.raises(UsageError, match="holds 3145728 bytes when it is unpacked, the limit is 3145727"):
            refuse(bomb, bytes_max=(3 << 20) - 1, count_max=100)
        with pytest.raises(UsageError, match="has 3 entries, the limit is 2 files and folders"):
            refuse(bomb, bytes_max=1 << 30, count_max=2)
    archive.check(bomb, bytes_max=3 << 20, count_max=3)
    assert content(folder) == {}


def test_folders_that_no_entry_names_count_too() -> None:
    data = zip_of(("a/b/c/d", b""), ("a/b/e", b""))
    archive.check(data, bytes_max=0, count_max=5)
    with pytest.raises(UsageError, match="more than 4 files and folders"):
        archive.check(data, bytes_max=0, count_max=4)


def test_a_huge_directory_costs_neither_memory_nor_time() -> None:
    names = "".join(f"{number:04x}" for number in range(65_000))
    record = b"PK\1\2" + bytes(42)
    directory = b"".join(
        record[:28] + struct.pack("<H", 200) + record[30:] + names[i : i + 200].encode() for i in range(65_000)
    )
    data = directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65_000, 65_000, len(directory), 0, 0)
    deep = zip_of(*((f"{number}" + "/x" * 300, b"") for number in range(50)))
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(UsageError, match="65000 entries"):
            archive.check(data, bytes_max=1 << 20, count_max=10_000)
        with pytest.raises(UsageError, match="more than 1000 files and folders"):
            archive.check(deep, bytes_max=1 << 20, count_max=1000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 2


def with_size(size: int, content: bytes) -> bytes:
    """Make a zip whose one file says it has another size, in both headers."""
    data = bytearray(zip_of(("bomb", content)))
    struct.pack_into("<I", data, 22, size)
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, size)
    return bytes(data)


@pytest.mark.parametrize("said", [0, 1000, (1 << 20) - 1])
def test_more_than_a_file_declares_is_not_written(folder: Path, said: int) -> None:
    data = with_size(said, bytes(64 << 20))
    archive.check(data, **ROOM)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=f"'bomb' holds more than the {said} bytes that it declares"):
            unpack(data, folder)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert (folder / "bomb").stat().st_size <= said


@pytest.mark.parametrize(
    "data",
    [
        with_size(1001, bytes(1000)),
        central(ONE, 16, "<I", 1),
        ONE[:34] + b"Text" + ONE[38:],
        central(zip_of(("a", b"x" * 1000)), 20, "<I", 5),
    ],
    ids=["less than declared", "another crc", "other content", "cut off"],
)
def test_what_is_damaged_is_refused(folder: Path, data: bytes) -> None:
    archive.check(data, **ROOM)
    with pytest.raises(UsageError, match="is damaged"):
        unpack(data, folder)


def test_nothing_that_exists_is_written_to(folder: Path, tmp_path: Path) -> None:
    victim = folder / "victim"
    victim.mkdir()
    (victim / "file").write_text("kept")
    work = folder / "work"
    for name, target in (("a", victim), ("a", victim / "file")):
        work.mkdir()
        (work / name).symlink_to(target)
        for data in (zip_of(("a/file", b"changed")), zip_of(("a", b"changed"))):
            with pytest.raises(FileExistsError):
                unpack(data, work)
        (work / name).unlink()
        work.rmdir()
    assert content(folder) == {"victim": None, "victim/file": b"kept"}


# Making.


def fill(folder: Path) -> None:
    (folder / "out" / "sub").mkdir(parents=True)
    (folder / "out" / "none").mkdir()
    (folder / "out" / "b").write_text("b" * 5000)
    (folder / "out" / "a").write_bytes(b"")
    (folder / "out" / "sub" / "gr\u00fc\u00df").write_bytes(random.Random(1).randbytes(600_000))
    (folder / "log").write_text("log\n" * 200_000)


def test_a_zip_that_is_made_is_read_by_others_and_by_us(folder: Path) -> None:
    fill(folder)
    for level in (0, 1, 9):
        made = pack(folder, "out", "/log", bytes_max=2 << 20, level=level)
        archive.check(made, bytes_max=2 << 20, count_max=7)
        with zipfile.ZipFile(io.BytesIO(made)) as reader:
            assert reader.testzip() is None
            assert reader.namelist() == ["log", "out/a", "out/b", "out/none/", "out/sub/gr\u00fc\u00df"]
            kinds = {info.filename: info.compress_type for info in reader.infolist()}
        assert kinds["log"] == (zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED)
        assert kinds["out/sub/gr\u00fc\u00df"] == zipfile.ZIP_STORED, "it does not get smaller"
        copy = folder / "copy"
        copy.mkdir()
        unpack(made, copy, bytes_max=2 << 20)
        assert content(copy) == {name: data for name, data in content(folder).items() if not name.startswith("copy")}
        for path in sorted(copy.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        copy.rmdir()


def test_the_same_content_gives_the_same_bytes(folder: Path) -> None:
    fill(folder)
    made = pack(folder, "/", bytes_max=2 << 20)
    (folder / "log").rename(folder / "again")
    (folder / "again").rename(folder / "log")
    os.utime(folder / "log", (1, 1))
    (folder / "log").chmod(0o777)
    assert pack(folder, "log", "./out/", "out/b", "/log", bytes_max=2 << 20) == made


def test_what_is_incompressible_at_its_end_only_is_not_larger_than_the_limit(folder: Path) -> None:
    (folder / "a").write_bytes(bytes(300_000) + random.Random(1).randbytes(700_000))
    (folder / "b").write_bytes(random.Random(2).randbytes(100))
    made = pack(folder, "/")
    assert len(made) <= archive.packed_bytes_max(1_000_100, 2)
    archive.check(made, **ROOM)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing", "there is no 'nothing'"),
        ("out/nothing/b", "there is no 'out/nothing/b'"),
        ("out/b/c", "there is no 'out/b/c'"),
        ("link", "'link' is a link, or behind one"),
        ("to-out/b", "'to-out/b' is a link, or behind one"),
        ("pipe", "is a link, or behind one"),
        ("../folder", "the path '../folder' has '..' in it"),
        ("", "the path '' is empty"),
        ("a\0b", "has a control character in it"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, path: str, words: str) -> None:
    fill(folder)
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "to-out").symlink_to("out")
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError) as refused:
        pack(folder, "log", path)
    assert words in str(refused.value)
    assert refused.value.field == "artifacts"


def test_links_in_a_folder_are_no_part_of_it(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "file").write_text("text")
    (folder / "out" / "up").symlink_to("..")
    (folder / "out" / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(folder / "out" / "pipe")
    os.link(folder / "out" / "file", folder / "out" / "same")
    with zipfile.ZipFile(io.BytesIO(pack(folder, "/"))) as reader:
        assert reader.namelist() == ["out/file", "out/same"]


def test_more_than_the_limits_is_refused_with_the_figure(folder: Path) -> None:
    fill(folder)
    with pytest.raises(UsageError, match=r"^the files have 605000 bytes, the limit is 604999$"):
        pack(folder, "out", bytes_max=604_999)
    pack(folder, "out", bytes_max=605_000, count_max=4)
    with pytest.raises(UsageError, match=r"^4 files are more than the limit, 3$"):
        pack(folder, "out", bytes_max=605_000, count_max=3)
    # Much that takes no room.
    for number in range(5):
        (folder / f"hole-{number}").touch()
        os.truncate(folder / f"hole-{number}", 100 << 30)
    with pytest.raises(UsageError, match="have 536870912000 bytes"):
        pack(folder, *(f"hole-{number}" for number in range(5)))
    with pytest.raises(UsageError, match="have 536870912000 bytes"):
        pack(folder, *(f"hole-{number}" for number in range(5)), bytes_max=1 << 50)


@pytest.mark.parametrize("name", ["..\\evil", "C:evil", "a\x1bb", "a\nb"])
def test_a_name_that_could_do_harm_elsewhere_is_not_given_on(folder: Path, name: str) -> None:
    (folder / name).write_text("text")
    with pytest.raises(UsageError) as refused:
        pack(folder, "/")
    assert refused.value.field == "artifacts"
    assert str(refused.value).isprintable()


def test_what_is_deeper_than_a_name_can_be_is_refused(folder: Path) -> None:
    (folder / Path(*["d" * 100] * 11)).mkdir(parents=True)
    with pytest.raises(UsageError, match="has 1110 bytes, the limit is 1024"):
        pack(folder, "/")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/", ""), (".", ""), ("./", ""), ("/out", "out"), ("./a//b/./c/", "a/b/c"), ("a.b/..c", "a.b/..c")],
)
def test_paths_are_understood_as_a_guest_says_them(path: str, name: str) -> None:
    assert archive.clean(path, "artifacts") == name


# Hostile zips by the thousand.

NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "a/b", "a/b/c", "a/", "b/c/", "../x", "/x", "a/../../x", ".", "..", "", "c:x", "a\\b", "a\0b"]
    ),
    st.lists(st.sampled_from(["a", "b", "..", ".", "", "c" * 300]), max_size=5).map("/".join),
    st.text(max_size=8),
)
CONTENTS = st.one_of(st.binary(max_size=200), st.integers(0, 30_000).map(bytes))


@st.composite
def hostile_zips(draw: st.DrawFn) -> bytes:
    """Draw a zip that lies: fields of its headers are changed, pieces are moved, and bytes flipped."""
    modes = st.sampled_from([0, 0, 0, stat.S_IFREG, stat.S_IFDIR, LINK])
    entry = st.builds(Entry, NAMES, CONTENTS, modes, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    data = bytearray(zip_of(*draw(st.lists(entry, max_size=6))))
    heads = [at for magic in (b"PK\3\4", b"PK\1\2", b"PK\5\6") for at in range(len(data)) if data.startswith(magic, at)]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.sampled_from(heads)) + draw(st.integers(4, 44))
        value = draw(st.sampled_from([0, 1, 5, 8, 100, 30_000, 0xFFFF, 1 << 20, 0xFFFFFFFF]))
        size = draw(st.sampled_from([1, 2, 4]))
        if at + size <= len(data):
            data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(data)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=hostile_zips())
def test_a_hostile_zip_stays_in_its_directory_and_its_limits(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "folder")
        folder.mkdir()
        try:
            archive.check(data, bytes_max=20_000, count_max=5)
            is_fine = True
        except UsageError:
            is_fine = False
        try:
            unpack(data, folder, bytes_max=20_000, count_max=5)
        except UsageError:
            pass
        else:
            assert is_fine, "unpack takes what check refuses"
        found = list(folder.rglob("*"))
        assert os.listdir(parent) == ["folder"]
        assert is_fine or not found
        assert len(found) <= 5
        assert sum(path.stat().st_size for path in found if path.is_file()) <= 20_000
        assert all(path.is_file() or path.is_dir() for path in found)
        assert not any(path.is_symlink() for path in found)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), end=st.binary(max_size=30))
def test_nonsense_is_refused_and_not_a_crash(data: bytes, end: bytes) -> None:
    with pytest.raises(UsageError):
        archive.check(data + b"PK\5\6" + end, bytes_max=1 << 20, count_max=0 if b"PK\1\2" not in data else 100)


GOOD_NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\:"), min_size=1, max_size=20
)


@settings(max_examples=100, deadline=None)
@given(
    tree=st.recursive(
        CONTENTS,
        lambda below: st.dictionaries(GOOD_NAMES.filter(lambda name: name not in (".", "..")), below, max_size=4),
    ).filter(lambda tree: isinstance(tree, dict)),
    level=st.sampled_from([0, 1]),
)
def test_what_is_packed_unpacks_to_the_same(tree: Any, level: int) -> None:
    def build(at: Path, below: Any) -> None:
        if isinstance(below, bytes):
            at.write_bytes(below)
            return
        at.mkdir()
        for name, further in below.items():
            build(at / name, further)

    with tempfile.TemporaryDirectory() as parent:
        one, other = Path(parent, "one"), Path(parent, "other")
        build(one, tree)
        other.mkdir()
        room = {"bytes_max": 10 << 20, "count_max": 1000}
        made = pack(one, ".", level=level, **room)
        assert len(made) <= archive.packed_bytes_max(10 << 20, 1000)
        archive.check(made, **room)
        unpack(made, other, **room)
        assert content(one) == content(other)
        assert pack(other, "/", level=level, **room) == made


def test_the_contents_of_a_zip_come_in_its_order_and_whole() -> None:
    data = zipped(b=b"second", a__c=b"x" * 600_000, d=b"")
    found = list(archive.contents(data, bytes_max=600_000, count_max=10))
    assert found == [("b", b"second"), ("a/c", b"x" * 600_000), ("d", b"")]
    with pytest.raises(UsageError, match=r"'a/c' has 600000 bytes, the limit is 599999"):
        next(archive.contents(data, bytes_max=599_999, count_max=10))
