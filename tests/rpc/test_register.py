"""Tickets and who is let in by them: durable, limited, and secret."""

import asyncio
import contextlib
import hashlib
import sqlite3
import threading
from pathlib import Path

import pytest

from ww.errors import NotFound, StoreError, UsageError
from ww.identity import Identity, PeerId
from ww.rpc.admission import Only, Open, Tickets, Unbanned
from ww.rpc.register import Register, Standing

pytestmark = pytest.mark.anyio

PEERS = [Identity.generate().peer_id for _ in range(5)]


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "state" / "peers.db")


def test_a_ticket_enrols_so_many_peers_for_good(register: Register, tmp_path: Path) -> None:
    ticket = register.create_ticket(60.0, 2, now=1000.0)
    assert [register.enrol(peer, ticket, 1001.0) for peer in PEERS[:2]] == [None, None]
    assert "used as often" in (register.enrol(PEERS[2], ticket, 1001.0) or "")
    again = Register(tmp_path / "state" / "peers.db")
    (known,) = again.tickets()
    assert (known.uses_left, known.expires_at, known.is_revoked) == (0, 1060.0, False)
    assert [again.standing(peer).ticket for peer in PEERS[:3]] == [known.id, known.id, None]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[:-1] + ("a" if t[-1] != "a" else "b"), "not known"),
        (lambda t: t.replace(t.split("-")[1], "00000000"), "not known"),
    ],
)
def test_a_guess_is_not_known(register: Register, change: object, says: str) -> None:
    ticket = register.create_ticket(60.0, 1, now=0.0)
    assert callable(change)
    assert says in (register.enrol(PEERS[0], change(ticket), 1.0) or "")
    assert register.standing(PEERS[0]) == Standing()
    assert register.tickets()[0].uses_left == 1


def test_a_ticket_expires_and_can_be_revoked(register: Register) -> None:
    old, revoked = register.create_ticket(60.0, 1, now=0.0), register.create_ticket(600.0, 1, now=0.0)
    assert "expired" in (register.enrol(PEERS[0], old, 60.1) or "")
    register.revoke_ticket(revoked.split("-")[1])
    assert "revoked" in (register.enrol(PEERS[0], revoked, 1.0) or "")
    with pytest.raises(NotFound, match="no ticket 'nothing'"):
        register.revoke_ticket("nothing")


@pytest.mark.parametrize("text", ["", "wwt1", "wwt1-a", "wwt1--b", "wwt2-a-b", "wwt1-a-b-c", "wwt1-a-" + "x" * 200])
def test_what_is_no_ticket_is_refused_and_not_repeated(register: Register, text: str) -> None:
    with pytest.raises(UsageError, match="no ticket: expected wwt1-ID-SECRET") as caught:
        register.enrol(PEERS[0], text, 0.0)
    assert "xxx" not in str(caught.value)


def test_the_secret_is_nowhere_on_disk(register: Register, tmp_path: Path) -> None:
    ticket = register.create_ticket(60.0, 1, now=0.0)
    register.enrol(PEERS[0], ticket, 1.0)
    secret = ticket.split("-")[2].encode()
    files = list((tmp_path / "state").iterdir())
    assert files
    for file in files:
        assert secret not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


def test_a_ticket_for_one_lets_in_one_however_many_come_at_once(register: Register) -> None:
    ticket = register.create_ticket(60.0, 1, now=0.0)
    answers: list[str | None] = []
    go = threading.Barrier(len(PEERS))

    def come(peer: PeerId) -> None:
        go.wait(10)
        answers.append(register.enrol(peer, ticket, 1.0))

    threads = [threading.Thread(target=come, args=(peer,)) for peer in PEERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [answer is None for answer in answers].count(True) == 1
    assert sum(register.standing(peer).ticket is not None for peer in PEERS) == 1


async def test_who_has_enrolled_needs_no_ticket_any_more(register: Register) -> None:
    now = 0.0
    policy = Tickets(register, lambda: now)
    ticket = register.create_ticket(60.0, 1, now=0.0)
    assert "see --ticket-file" in (await policy.refusal(PEERS[0]) or "")
    assert "no ticket" in (await policy.refusal(PEERS[0], "nonsense") or "")
    assert await policy.refusal(PEERS[0], ticket) is None
    now = 1e9
    register.revoke_ticket(ticket.split("-")[1])
    for shown in ("", ticket, "nonsense"):
        assert await policy.refusal(PEERS[0], shown) is None
    assert "used as often" not in (await policy.refusal(PEERS[1], ticket) or "")
    assert register.tickets()[0].uses_left == 0


async def test_a_ban_stands_before_any_policy(register: Register) -> None:
    policies = [
        Unbanned(register, Open()),
        Unbanned(register, Only(PEERS[0])),
        Unbanned(register, Tickets(register, float)),
    ]
    ticket = register.create_ticket(60.0, 9, now=0.0)
    register.enrol(PEERS[0], ticket, 0.0)
    for policy in policies:
        assert await policy.refusal(PEERS[0]) is None
    register.set_banned(PEERS[0], True)
    for policy in policies:
        assert "banned" in (await policy.refusal(PEERS[0], ticket) or "")
    register.set_banned(PEERS[0], False)
    assert register.standing(PEERS[0]) == Standing(ticket.split("-")[1])


async def test_who_was_outvoted_too_often_is_told_so_until_that_is_lifted(register: Register) -> None:
    policy = Unbanned(register, Open())
    register.refuse(PEERS[0], 4)
    assert register.standing(PEERS[0]) == Standing(is_banned=True, disagreements=4)
    assert await policy.refusal(PEERS[0]) == "on 4 runs its result was outvoted"
    register.set_banned(PEERS[0], False)
    assert register.standing(PEERS[0]) == Standing()
    assert await policy.refusal(PEERS[0]) is None


async def test_a_register_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "peers.db").write_bytes(b"this is no database" * 100)
    register = Register(tmp_path / "peers.db")
    with pytest.raises(StoreError, match="cannot be used"):
        await asyncio.to_thread(register.tickets)
    assert "cannot be read" in (await Unbanned(register, Open()).refusal(PEERS[0]) or "")


def test_what_an_operator_says_of_a_peer_lasts(register: Register, tmp_path: Path) -> None:
    register.set_draining(PEERS[0], True)
    register.set_banned(PEERS[1], True)
    again = Register(tmp_path / "state" / "peers.db")
    assert again.standings() == {PEERS[0]: Standing(is_draining=True), PEERS[1]: Standing(is_banned=True)}
    assert again.standings([PEERS[1], PEERS[2]]) == {PEERS[1]: Standing(is_banned=True)}


def test_a_row_that_is_none_is_passed_over(
    register: Register, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register.set_banned(PEERS[0], True)
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "peers.db")) as database:
        database.execute("INSERT INTO peers (peer, banned) VALUES ('nonsense', 1)")
        database.commit()
    assert register.standings() == {PEERS[0]: Standing(is_banned=True)}
    assert "a row that is none" in caplog.text


def test_a_peer_uses_a_ticket_once(register: Register) -> None:
    ticket = register.create_ticket(60.0, 2, now=0.0)
    assert [register.enrol(PEERS[0], ticket, 1.0) for _ in range(5)] == [None] * 5
    assert register.tickets()[0].uses_left == 1


# Files of before tickets had a purpose.

_OLD = """
CREATE TABLE tickets (id TEXT PRIMARY KEY, hash BLOB NOT NULL, created_at REAL NOT NULL,
    expires_at REAL NOT NULL, uses_left INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0);
CREATE TABLE peers (peer TEXT PRIMARY KEY, ticket TEXT, enrolled_at REAL,
    banned INTEGER NOT NULL DEFAULT 0, draining INTEGER NOT NULL DEFAULT 0);
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file with a ticket that has one use left, a peer that came by it, and one that was banned."""
    path = tmp_path / "peers.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(_OLD)
        row = ("0123abcd", hashlib.sha256(b"secret").digest(), 0.0, 60.0, 1)
        database.execute("INSERT INTO tickets (id, hash, created_at, expires_at, uses_left) VALUES (?,?,?,?,?)", row)
        database.execute("INSERT INTO peers VALUES (?,?,?,?,?)", (str(PEERS[0]), "0123abcd", 1.0, 0, 1))
        database.execute("INSERT INTO peers VALUES (?,?,?,?,?)", (str(PEERS[1]), None, None, 1, 0))
        database.commit()
    return path


def test_what_an_older_file_says_holds(old: Path) -> None:
    for register in (Register(old), Register(old)):
        (ticket,) = register.tickets()
        assert (ticket.id, ticket.purpose, ticket.uses_left) == ("0123abcd", "work", 1)
        assert register.standings() == {
            PEERS[0]: Standing(ticket="0123abcd", is_draining=True), PEERS[1]: Standing(is_banned=True),
        }  # fmt: skip
    assert "one for work, not for tasks" in (register.enrol(PEERS[2], "wwt1-0123abcd-secret", 1.0, "tasks") or "")
    assert register.enrol(PEERS[2], "wwt1-0123abcd-secret", 1.0) is None
    assert register.tickets()[0].uses_left == 0


def test_a_peer_of_an_older_file_may_get_another_purpose(old: Path) -> None:
    register = Register(old)
    assert register.standing(PEERS[0]).ticket_for("tasks") is None
    ticket = register.create_ticket(60.0, 1, now=0.0, purpose="tasks")
    assert register.enrol(PEERS[0], ticket, 1.0, "tasks") is None
    standing = register.standing(PEERS[0])
    assert (standing.ticket, standing.tasks_ticket, standing.is_draining) == ("0123abcd", ticket.split("-")[1], True)
    assert {known.purpose for known in register.tickets()} == {"work", "tasks"}


def test_an_older_file_is_brought_up_once_however_many_open_it(old: Path) -> None:
    begin, seen = threading.Barrier(8), list[int]()

    def look() -> None:
        begin.wait()
        seen.append(len(Register(old).standings()))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2] * 8


def test_an_older_file_that_cannot_be_brought_up_stays_as_it_was(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old)) as database:
        database.execute("ALTER TABLE peers ADD COLUMN tasks_ticket TEXT")  # which the second step will stumble over
    with pytest.raises(StoreError, match="duplicate column"):
        Register(old).tickets()
    with contextlib.closing(sqlite3.connect(old)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(tickets)")]
        assert "purpose" not in columns
        assert database.execute("PRAGMA user_version").fetchone() == (0,)
