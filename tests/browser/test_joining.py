"""How a tab joins a gateway: as whom, let in by what, over TLS, and again when the gateway was away."""

import re
from pathlib import Path

import httpx

from tests.browser.chromium import Chromium
from tests.browser.tabs import join, origin_of, worker_of
from tests.e2e.leftovers import CleanCluster
from tests.e2e.test_http_perimeter import write_certificate
from tests.guests import guest


def test_a_tab_comes_back_to_a_gateway_that_was_restarted(chromium: Chromium, cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    with chromium.profile(origin_of(gateway)) as profile:
        # What a browser says by itself when nobody answers.
        profile.expect(r"WebSocket connection to '[^']*/peer' failed")
        tab = join(chromium, profile, gateway)
        first = gateway.post(guest("hash"), input=0, difficulty=3)
        assert gateway.ended(first["id"])["results"][0]["worker"] == tab.peer_id
        http = gateway.http
        cluster.lose(gateway)
        again = cluster.gateway(http=http)
        chromium.until(lambda: worker_of(again, tab.peer_id), "the same peer is back")
        second = again.post(guest("hash"), input=1, difficulty=3)
        (result,) = again.ended(second["id"])["results"]
        assert (result["result"], result["worker"]) == ("2823", tab.peer_id)


def test_a_tab_is_let_in_by_a_ticket_alone(chromium: Chromium, cluster: CleanCluster) -> None:
    gateway = cluster.gateway("--admit", "ticket")
    made = cluster.program("ticket", "create")
    ticket = made.stdout_line()
    assert made.wait() == 0
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.open("/worker#slots=1&autojoin")
        page.get_by_text("refused").first.wait_for()
        assert gateway.workers() == []
        tab = join(chromium, profile, gateway, more=f"&ticket={ticket}")
        # Its key is remembered: the next time it needs no ticket, though another tab's key does.
        tab.page.goto("about:blank")
        chromium.until(lambda: gateway.workers() == [])


def test_a_tab_joins_over_tls_where_http_has_tokens(chromium: Chromium, cluster: CleanCluster, tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    tokens = tmp_path / "tokens.toml"
    made = cluster.program("token", "create", "alice", "--file", str(tokens))
    secret = made.stdout_line()
    assert made.wait() == 0
    gateway = cluster.program(
        "gateway", "--http", "127.0.0.1:0", "--token-file", str(tokens), "--tls-cert", str(cert), "--tls-key", str(key)
    )
    origin = gateway.logged(r"HTTP on (https://\S+)")[1]
    bearer = {"Authorization": f"Bearer {secret}"}
    with (
        httpx.Client(base_url=origin, verify=False, headers=bearer) as client,
        chromium.profile(origin, ignore_https_errors=True) as profile,
    ):
        # The page asks for no token: its key is what the gateway goes by.
        profile.open("/worker#slots=1&autojoin")
        (worker,) = chromium.until(lambda: client.get("/workers").json(), "a tab joins")
        assert (worker["kind"], worker["slots"]) == ("browser", 1)
        posted = client.post("/tasks?wait=20", data={"input": 0, "difficulty": 3}, files={"wasm": guest("hash")}).json()
        assert [(each["result"], each["worker"]) for each in posted["results"]] == [("2832", worker["peer"])]
    assert not re.search("ERROR", gateway.log), gateway.log
