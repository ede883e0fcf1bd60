"""Peer ids, key files and signatures."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ww.errors import UsageError
from ww.identity import Identity, PeerId


def test_peer_id_has_the_libp2p_form() -> None:
    # RFC 8032, test 1, public key; its peer id computed by hand from the libp2p specification's rules.
    peer_id = PeerId(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
    assert str(peer_id).startswith("12D3KooW")
    assert len(str(peer_id)) == 52
    assert PeerId.parse(str(peer_id)) == peer_id


@given(st.binary(min_size=32, max_size=32))
def test_every_key_survives_its_text_form(key: bytes) -> None:
    assert PeerId.parse(str(PeerId(key))).public_key == key


@given(st.text(max_size=80))
def test_other_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="is no peer id"):
        PeerId.parse(text)


def test_a_key_file_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "node.key"
    first = Identity.load(path)
    first.close()
    second = Identity.load(path)
    second.close()
    assert first.peer_id == second.peer_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    Identity.load(path).close()
    path.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        Identity.load(path)


def test_a_key_file_without_a_key_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.touch(mode=0o600)
    path.write_text("no key")
    with pytest.raises(UsageError, match="holds no Ed25519 key"):
        Identity.load(path)
    assert path.read_text() == "no key"


def test_two_processes_never_share_a_key(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    identity = Identity.load(path)
    program = "import sys; from pathlib import Path; from ww.identity import Identity; Identity.load(Path(sys.argv[1]))"
    run = [sys.executable, "-c", program, str(path)]
    held = subprocess.run(run, capture_output=True, text=True, env=os.environ, check=False)
    assert "in use by another process" in held.stderr
    assert Identity.load(path, lock=False).peer_id == identity.peer_id
    identity.close()
    assert subprocess.run(run, capture_output=True, env=os.environ, check=False).returncode == 0


def test_those_that_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    path, peers = tmp_path / "client.key", list[PeerId]()
    begin = threading.Barrier(8)

    def load() -> None:
        begin.wait()
        peers.append(Identity.load(path, lock=False).peer_id)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(peers) == 8
    assert set(peers) == {Identity.load(path).peer_id}


def test_an_empty_key_file_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "key").touch(0o600)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="key file key is empty"):
            Identity.load(path, lock=False)
    assert path.read_bytes() == b""


def test_a_signature_holds_for_its_domain_and_message_alone() -> None:
    identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    signature = identity.sign(b"survey", b"hello")
    assert identity.peer_id.verify(b"survey", b"hello", signature)
    assert not identity.peer_id.verify(b"heartbeat", b"hello", signature)
    assert not identity.peer_id.verify(b"surveyh", b"ello", signature)
    assert not identity.peer_id.verify(b"survey", b"hellO", signature)
    assert not Identity.generate().peer_id.verify(b"survey", b"hello", signature)
