"""What a page may not do, asked of a browser that enforces it; and that nothing amiss in one goes unseen here."""

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium
from tests.browser.tabs import origin_of
from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import Gateway

PAGES = ["/", "/worker", "/api"]
STRICT = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "connect-src": ["'self'"],
    "img-src": ["'self'"],
    "worker-src": ["'self'"],
    "base-uri": ["'none'"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'none'"],
}


@pytest.fixture(scope="module")
def gateway(chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.gateway()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_only_from_its_gateway_and_goes_by_a_strict_policy(
    chromium: Chromium, gateway: Gateway, path: str
) -> None:
    guests = ["'wasm-unsafe-eval'"] if path == "/worker" else []
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.context.new_page()
        answer = page.goto(path, wait_until="load")
        assert answer is not None
        policy = {
            name: values for name, *values in map(str.split, answer.headers["content-security-policy"].split(";"))
        }
        assert policy == STRICT | {"script-src": ["'self'", *guests]}
        assert page.evaluate("crossOriginIsolated"), "it has its process to itself, and fine clocks"
        assert len(profile.requests) >= 3, "a page, a script and a style at least"
        assert {url.startswith(f"{origin_of(gateway)}/") for url in profile.requests} == {True}


@pytest.mark.parametrize(
    ("attempt", "seen"),
    [
        ("fetch('http://127.0.0.1:9/').catch(() => {})", r"connect-src"),
        ("new Image().src = 'http://127.0.0.1:9/spy.png'", r"img-src|foreign request"),
        ("document.head.append(Object.assign(document.createElement('script'), {text: 'stolen = 1'}))", r"script-src"),
        # Not at once: what playwright evaluates itself may evaluate.
        ("void setTimeout(() => eval('1'))", r"script-src|thrown: EvalError"),
        ("document.body.setAttribute('style', 'color: red')", r"style-src"),
        ("new WebSocket('ws://127.0.0.1:9/')", r"connect-src"),
        ("void setTimeout(() => { throw new Error('on its own') })", r"thrown: .*on its own"),
        ("console.error('said so')", r"console: said so"),
    ],
)
def test_what_a_page_may_not_do_is_refused_and_seen(
    chromium: Chromium, gateway: Gateway, attempt: str, seen: str
) -> None:
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.open("/api")
        page.evaluate(f"() => {{ try {{ {attempt} }} catch (error) {{ }} }}")
        chromium.until(lambda: profile.problems, "it is seen")
        profile.expect(seen)
        # Chromium says it in its own words as well.
        profile.expect(r"Content Security Policy")
        assert page.evaluate("typeof stolen") == "undefined"


def test_no_other_page_can_frame_one(chromium: Chromium, gateway: Gateway) -> None:
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.context.new_page()
        page.set_content(f'<iframe src="{origin_of(gateway)}/"></iframe>')
        chromium.until(lambda: profile.problems, "it is refused")
        profile.expect(r"frame-ancestors")
