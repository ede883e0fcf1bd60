"""An address chooses its client."""

import sys
from types import ModuleType
from typing import Any

import pytest

from ww.client import AsyncClient, Client, aconnect, connect
from ww.errors import UsageError


def test_urls_are_http() -> None:
    with connect("http://127.0.0.1:1", timeout_s=1.0) as client:
        assert type(client) is Client
    assert type(aconnect("https://example.org")) is AsyncClient
    with pytest.raises(UsageError, match="expected http://HOST:PORT"):
        connect("http://")


def test_all_else_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        def __init__(self, target: str, **settings: Any) -> None:
            self.made_of = target, settings

    module = ModuleType("ww.client.native")
    module.NativeClient = module.AsyncNativeClient = Native  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ww.client.native", module)
    for target in ("12D3KooWx", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWx"):
        for make in (connect, aconnect):
            made: Any = make(target, timeout_s=1.0)
            assert made.made_of == (target, {"timeout_s": 1.0})
