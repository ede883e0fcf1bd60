"""An address chooses its client, and which settings it may have."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ww.client import AsyncClient, Client, Retry, aconnect, connect
from ww.client.native import AsyncNativeClient, LinkConfig, NativeClient
from ww.errors import UsageError
from ww.identity import Identity

PEER = str(Identity.generate().peer_id)
TICKET = "wwt1-0123abcd-secretsecret"


def test_urls_are_http() -> None:
    with connect("http://127.0.0.1:1", timeout_s=1.0) as client:
        assert type(client) is Client
    assert type(aconnect("https://example.org", token="t", insecure=False)) is AsyncClient
    with pytest.raises(UsageError, match="expected http://HOST:PORT"):
        connect("http://")


@pytest.mark.parametrize(
    "target",
    [PEER, f"/p2p/{PEER}", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}/ticket/{TICKET}"],
)
def test_peers_are_native(target: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"retry": Retry(), "timeout_s": 1.0, "state_directory": tmp_path}
    with connect(target, **settings, key=tmp_path / "key", lan=True, namespace="lab") as client:
        assert type(client) is NativeClient
        assert TICKET not in repr(client)
    assert type(aconnect(target, **settings, addresses=["/ip4/127.0.0.1/tcp/1"])) is AsyncNativeClient
    assert type(aconnect(target, config=LinkConfig(lan=True), timeout_s=1.0)) is AsyncNativeClient
    assert not (tmp_path / "key").exists(), "nothing is made before it is needed"


@pytest.mark.parametrize("make", [connect, aconnect])
@pytest.mark.parametrize("name", sorted({field.name for field in fields(LinkConfig)} - {"connect_timeout_s"}))
def test_settings_of_a_link_are_not_http_s(make: Any, name: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: no setting of a client of HTTP, which has .*token") as refused:
        make("http://127.0.0.1:1", **{name: None})
    assert refused.value.field == name


@pytest.mark.parametrize("make", [connect, aconnect])
@pytest.mark.parametrize("name", ["token", "verify", "insecure", "answer_bytes_max", "tokne"])
def test_settings_of_http_are_not_a_link_s(make: Any, name: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: no setting of a native client, which has .*namespace") as refused:
        make(PEER, **{name: None})
    assert refused.value.field == name


def test_a_config_and_its_fields_are_not_both_given() -> None:
    with pytest.raises(UsageError, match=r"^lan: expected it in config"):
        connect(PEER, config=LinkConfig(), lan=True)


@pytest.mark.parametrize("target", ["", "localhost:8080", "ftp://x", f"x/ticket/{TICKET}", TICKET])
def test_what_is_no_address_is_refused_without_its_secret(target: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(target)
    assert refused.value.field == "target"
    assert "secretsecret" not in str(refused.value)
    assert "expected" in str(refused.value)
