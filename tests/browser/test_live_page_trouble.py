"""The live page when something is wrong: texts that mean harm, a gateway that goes, a token that is taken back."""

from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.chromium import Chromium
from tests.browser.tabs import origin_of
from tests.e2e.leftovers import CleanCluster
from tests.guests import ROOT, guest

if TYPE_CHECKING:
    from playwright.sync_api import Page

BACKWARDS, ESCAPE = "\u202e", "\x1b"
HTML = "<img src=x onerror=alert(1)>"
ECHO = ROOT / "wasm" / "echo" / "echo.wasm"


def open_run(page: "Page", run: int) -> None:
    results = page.get_by_role("table", name="Results by run number")
    results.get_by_role("link", name=str(run), exact=True).click()


def test_what_others_wrote_is_shown_as_it_is_and_turns_nothing_round(chromium: Chromium, cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    name, about = f"{BACKWARDS}{HTML}", f"{ESCAPE}[31m{HTML}{BACKWARDS}"
    words = [f"{ESCAPE}[31mred", f"{BACKWARDS}{HTML}", "שלום"]
    task = gateway.post(guest("echo"), args=words, name=name, description=about)
    (result,) = gateway.ended(task["id"])["results"]
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.open("/")
        row = page.get_by_role("table", name="Tasks, newest first").get_by_role("row").filter(has_text="onerror")
        cell = row.get_by_role("rowheader")
        cell.wait_for()
        assert cell.evaluate("(cell) => [...cell.children].map((each) => each.textContent)") == [name, about]
        row.get_by_role("link").click()
        page.get_by_role("heading", level=1).get_by_text("onerror").wait_for()
        assert page.get_by_role("heading", level=1).text_content() == name
        chromium.until(lambda: "onerror" in page.title())
        assert BACKWARDS not in page.title()
        open_run(page, 0)
        output = page.get_by_role("dialog").get_by_label("stdout", exact=True)
        assert output.text_content() == result["stdout"]
        # Each of these is isolated from what stands beside it.
        open_texts = page.evaluate(
            """(mark) => [...document.querySelectorAll("body *")].filter((each) =>
              [...each.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.includes(mark)) &&
              getComputedStyle(each).unicodeBidi === "normal").map((each) => each.outerHTML)""",
            BACKWARDS,
        )
        assert open_texts == []
        assert page.locator("img").count() == 0


def test_output_that_is_no_text_is_saved_byte_for_byte(chromium: Chromium, cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    content = b"\xff\x00\x80 no text"
    files = {"wasm": ECHO.read_bytes(), "stdin": content}
    task = gateway.client.post("/tasks", files=files).raise_for_status().json()
    gateway.ended(task["id"])
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.open(f"/#task={task['id']}&run=0")
        run = page.get_by_role("dialog", name="Run 0")
        run.get_by_text("not UTF-8").wait_for()
        with page.expect_download() as saving:
            run.get_by_role("button", name="Save").click()
        assert saving.value.suggested_filename == "run-0.stdout"
        assert Path(saving.value.path()).read_bytes() == content


def test_a_quorum_is_asked_for_and_what_is_wrong_with_it_is_said_beside_it(
    chromium: Chromium, cluster: CleanCluster
) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    with chromium.profile(origin_of(gateway)) as profile:
        profile.expect(r"status of 422")
        page = profile.open("/")
        page.get_by_role("button", name="Submit a task").click()
        form = page.get_by_role("dialog", name="Submit a task")
        form.get_by_label("Module").set_input_files(ROOT / "wasm" / "hash" / "hash.wasm")
        form.get_by_text("functions to call").wait_for()
        options = form.get_by_text("Where and how it runs")
        options.click()
        form.get_by_label("Replicas").fill("3")
        form.get_by_label("Quorum").fill("4")
        for label, text in (
            ("Quorum", "4 of 3 replicas cannot agree"),
            ("Deterministic", "2 of 3 replicas must agree"),
        ):
            options.click()  # shut: the field opens it
            form.get_by_role("button", name="Submit").click()
            form.locator(".field", has=page.get_by_label(label)).get_by_text(text).wait_for()
            assert page.evaluate("document.activeElement.getAttribute('aria-invalid')") == "true"
            form.get_by_label("Quorum").fill("2")
        form.get_by_label("Deterministic").check()
        form.get_by_label("Labels of its workers").fill("room=nowhere")
        form.get_by_role("button", name="Submit").click()
        # Nobody can do it: the page says why it waits.
        page.locator("header").get_by_text("unsatisfiable").wait_for()
        page.get_by_role("paragraph").get_by_text("no connected worker has the labels room=nowhere").wait_for()
        page.get_by_text("2 of 3 agree").wait_for()


def test_a_page_outlives_its_gateway_and_says_since_when_it_is_not_live(
    chromium: Chromium, cluster: CleanCluster
) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    ended = gateway.post(guest("noop"), repeats=5, name="before")
    gateway.ended(ended["id"])
    with chromium.profile(origin_of(gateway)) as profile:
        profile.expect(r"ERR_|status of")
        page = profile.open("/")
        tasks, workers = (page.get_by_role("table", name=name) for name in ("Tasks, newest first", "Workers"))
        tasks.get_by_text("before").wait_for()
        workers.get_by_title(worker.peer_id).wait_for()
        http = gateway.http
        cluster.lose(gateway)
        page.get_by_text("reconnecting", exact=True).wait_for()
        page.get_by_role("alert").get_by_text("Not live since").wait_for()
        cluster.lose(worker)
        again = cluster.gateway(http=http)
        page.get_by_text("live", exact=True).wait_for()
        page.get_by_text("Not live since").wait_for(state="hidden")
        workers.get_by_title(worker.peer_id).wait_for(state="detached")
        tasks.get_by_text("before").wait_for()
        again.post(guest("noop"), name="after")
        tasks.get_by_text("after").wait_for()


def test_a_token_that_is_taken_back_is_asked_for_again(
    chromium: Chromium, cluster: CleanCluster, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"

    def token(name: str) -> str:
        made = cluster.program("token", "create", name, "--file", str(tokens))
        secret = made.stdout_line()
        assert made.wait() == 0
        return secret

    first, second = token("alice"), token("bob")
    gateway = cluster.gateway("--token-file", str(tokens))
    with chromium.profile(origin_of(gateway)) as profile:
        profile.expect(r"status of 401|ERR_")
        page = profile.open("/")
        asked = page.get_by_role("dialog", name="Token")
        asked.get_by_label("Token").fill(first)
        page.keyboard.press("Enter")
        page.get_by_text("live", exact=True).wait_for()
        assert cluster.program("token", "revoke", "alice", "--file", str(tokens)).wait() == 0
        asked.get_by_label("Token").fill(second)
        page.keyboard.press("Enter")
        page.get_by_text("live", exact=True).wait_for()
        assert cluster.program("token", "revoke", "bob", "--file", str(tokens)).wait() == 0
        asked.wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("refused", exact=True).wait_for()
        page.get_by_role("alert").get_by_text("Reload").wait_for()
