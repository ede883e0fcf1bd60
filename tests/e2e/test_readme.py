"""Every command of README.md, taken from it and run: a command that is added there without a test fails here.

The lines run as they stand, from a folder that looks like a checkout, with a home directory of their own; only what
README.md has in capitals is filled in. The two commands of "Try it" are test_scripts.py's.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.namespaces import Machine, one_machine, two_machines, why_not
from tests.e2e.processes import BOUND_S, wait_until
from tests.guests import ROOT

SECTIONS_WITH_COMMANDS = [
    "Try it", "By hand", "In a browser", "From the command line", "Python functions", "Many inputs", "Two machines",
    "HTTP beyond the machine", "What is kept", "Who is there", "Options",
]  # fmt: skip
PROGRAMS = ["From the command line", "Python functions", "Many inputs"]
PLACEHOLDERS = {"PEER_ID", "WORKER_PEER_ID", "ADDRESS_OF_A"}
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="README.md posts tasks with curl")


def readme() -> str:
    return (ROOT / "README.md").read_text()


def blocks(section: str, language: str = "sh") -> list[str]:
    """Return a section's code blocks in that language, in order."""
    body = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", readme(), re.MULTILINE | re.DOTALL)
    assert body is not None, section
    return re.findall(rf"^```{language}\n(.*?)^```$", body[1], re.MULTILINE | re.DOTALL)


def commands(section: str) -> list[str]:
    """Return the commands of a section's code blocks, in order."""
    return [line for block in blocks(section) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def look_like_checkout(directory: Path) -> Path:
    """Make directory a checkout by links, so that what commands write beside it is not written to the real one."""
    directory.mkdir()
    for name in (
        ".venv",
        "cmd",
        "scripts",
        "wasm",
        "ww",
        "schema",
        "examples",
        "docs",
        "pyproject.toml",
        "constraints.txt",
    ):
        (directory / name).symlink_to(ROOT / name)
    return directory


class Shell:
    """The terminals of one user on one machine."""

    def __init__(self, directory: Path, machine: Machine | None = None) -> None:
        """Work in directory, which is made. Without a machine of its own, ports are whichever are free."""
        self.directory = look_like_checkout(directory)
        self.values: dict[str, str] = {}
        self._prefix = machine.prefix if machine else ()
        self._has_ports = machine is not None
        (directory / "home").mkdir()
        of_ours = ("WW_", "XDG_", "PYTEST_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(of_ours)}
        self._environment["HOME"] = str(directory / "home")
        if not self._has_ports:
            self._environment["WW_HTTP"] = "127.0.0.1:0"
        self._running: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def _fill_in(self, line: str) -> str:
        # The longest first: PEER_ID is part of WORKER_PEER_ID.
        for name in sorted(self.values, key=len, reverse=True):
            line = line.replace(name, self.values[name])
        return line

    def run(self, line: str, directory: Path | None = None) -> str:
        """Run a command to its end, in the shell's directory unless told otherwise, and return what it printed."""
        done = subprocess.run(
            [*self._prefix, "sh", "-c", self._fill_in(line)],
            cwd=directory or self.directory, env=self._environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_python(self, program: str) -> str:
        """Run a program that is README.md's, and return what it printed."""
        where = self.values.get("localhost:8080", "localhost:8080")
        program = self._fill_in(program.replace("Client()", f'Client("http://{where}")'))
        (self.directory / "program.py").write_text(program)
        return self.run(".venv/bin/python program.py")

    def start(self, line: str, ready: str) -> "subprocess.Popen[str]":
        """Start a command that stays, and wait for a line of its log."""
        process, _ = self._start(line, ready)
        return process

    def start_gateway(self, line: str) -> "subprocess.Popen[str]":
        """Start one and take note of its peer id, which is all that it prints."""
        process, http = self._start(line, r"HTTP on http://(\S+)")
        assert process.stdout is not None
        self.values["PEER_ID"] = process.stdout.readline().strip()
        if self._has_ports:
            assert http[1] == "127.0.0.1:8080"
        else:
            self.values["localhost:8080"] = http[1]
            self._environment["WW_GATEWAY"] = f"http://{http[1]}"
        return process

    def _start(self, line: str, ready: str) -> tuple["subprocess.Popen[str]", re.Match[str]]:
        process = subprocess.Popen(
            # env sets the variables before a command and is replaced by it: no shell stands between us and the process.
            [*self._prefix, "env", *shlex.split(self._fill_in(line))],
            cwd=self.directory, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # a terminal's process group
        )  # fmt: skip
        log: list[str] = []

        def read() -> None:
            assert process.stderr is not None
            log.extend(process.stderr)  # line by line, as they come

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        self._running.append((process, reader))
        with contextlib.suppress(AssertionError):  # the one below shows the log
            wait_until(lambda: re.search(ready, "".join(log)) or not reader.is_alive())
        found = re.search(ready, "".join(log))
        assert found is not None, f"no {ready!r} from {line}\n{''.join(log)}"
        return process, found

    def press_ctrl_c(self, process: "subprocess.Popen[str]", exit_code: int = 0) -> None:
        """Send what a terminal sends: everything that runs in it gets the signal."""
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(BOUND_S) == exit_code

    def close(self) -> None:
        """Leave nothing of what was started."""
        for process, reader in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join(BOUND_S)
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()


@contextlib.contextmanager
def shell_in(directory: Path, machine: Machine | None) -> Iterator[Shell]:
    shell = Shell(directory, machine)
    try:
        yield shell
    finally:
        shell.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell on a machine of its own, where localhost:8080 is free; on this one where that is not permitted."""
    with (
        contextlib.nullcontext() if why_not() else one_machine() as machine,
        shell_in(tmp_path / "checkout", machine) as shell,
    ):
        yield shell


def test_all_commands_are_in_sections_that_are_run() -> None:
    titles = re.findall(r"^## (.*)$", readme(), re.MULTILINE)
    assert [title for title in titles if blocks(title)] == SECTIONS_WITH_COMMANDS
    fences = re.findall(r"^ *(?:```|~~~).*$", readme(), re.MULTILINE)
    known = {"```sh", "```text", "```python", "```"}
    assert set(fences) == known, "commands stand in sh blocks, what they print in text blocks"
    programs = [program for title in PROGRAMS for program in blocks(title, "python")]
    assert fences.count("```python") == len(programs), "run by the tests of these sections"
    assert sum(len(blocks(title)) for title in titles) == fences.count("```sh"), "none stands before the first section"
    prose = re.sub(r"^```.*?^```$", "", readme(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^(?: {4}|\t).*$", prose, re.MULTILINE) == [], "an indented line would be code that nobody runs"


def test_only_known_placeholders_are_to_be_filled_in() -> None:
    lines = [line for section in SECTIONS_WITH_COMMANDS for line in commands(section)]
    words = {word for line in lines for word in re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)*\b(?!=)", line)}
    assert words - {"POST", "DELETE", "IP", "CA", "FALSE"} == PLACEHOLDERS


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", readme()) + re.findall(r'src(?:set)?="([^":]+)"', readme())
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_what_the_readme_names_in_passing_is_there(shell: Shell) -> None:
    named = re.findall(r"`([^`\s]+)`", readme())
    assert "scripts/build-guests" in named
    paths = [name for name in named if re.match(r"(scripts|cmd|wasm|bench|docs|schema|ww)/", name)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    commands_named = ("gateway", "worker", "cluster ls", "ticket create", "token create")
    helps = "".join(shell.run(f".venv/bin/ww {name} --help") for name in commands_named)
    assert [name for name in named if name.startswith("--") and name not in helps] == []


@needs_curl
@pytest.mark.timeout(120)
def test_by_hand(shell: Shell) -> None:
    setup, gateway_line, worker_line, *curls, scheduler_line, dial_line = commands("By hand")
    shell.run(setup, ROOT)  # should it have something to do, .venv must not come to name a folder that goes
    gateway = shell.start_gateway(gateway_line)
    worker = shell.start(worker_line, "joined gateway")

    post, see, wait, post_echo, wait_echo, pack, post_files, wait_files, fetch, post_spin, delete, listing, workers = (
        curls
    )
    posted = json.loads(shell.run(post))
    assert (posted["id"], posted["description"]) == ("task1", "Hash puzzle")
    assert json.loads(shell.run(see))["module"] == posted["module"]
    task = json.loads(shell.run(wait))
    assert (task["status"], [result["result"] for result in task["results"]]) == ("succeeded", ["2832"] * 3)
    assert json.loads(shell.run(post)) == task, "the same id with the same fields"
    shell.run(post_echo)
    (result,) = json.loads(shell.run(wait_echo))["results"]
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("hello\nworld", "NAME=ww\n", 0)
    shell.run(pack)
    shell.run(post_files)
    (result,) = json.loads(shell.run(wait_files))["results"]
    assert (result["state"], result["stdout"]) == ("succeeded", "mkdir 0\nput 0\n")
    shell.run(fetch)
    with zipfile.ZipFile(shell.directory / "out.zip") as archive:
        assert archive.read("out/note") == b"hello"
        assert archive.read("pyproject.toml") == (ROOT / "pyproject.toml").read_bytes()
    shell.run(post_spin)
    assert json.loads(shell.run(delete))["status"] == "cancelled"
    assert [task["id"] for task in json.loads(shell.run(listing))] == [f"task{number}" for number in (4, 3, 2, 1)]
    assert len(json.loads(shell.run(workers))) == 1
    shell.press_ctrl_c(worker)
    shell.press_ctrl_c(gateway)

    gateway = shell.start_gateway(scheduler_line)
    worker = shell.start(dial_line, "joined gateway")
    assert len(json.loads(shell.run(listing))) == 4, "the same gateway again"
    shell.press_ctrl_c(worker)
    shell.press_ctrl_c(gateway)
    home = shell.directory / "home"
    assert {path.relative_to(home) for path in home.glob(".*/*")} == {Path(".local/state"), Path(".cache/ww")}
    assert (home / ".local/state/ww/gateway.key").exists()


@needs_curl
@pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "deno").exists(), reason="README.md starts Deno: scripts/setup deno")
@pytest.mark.skipif(not (ROOT / "ww" / "web").is_dir(), reason="ww/web is not built: scripts/web")
def test_in_a_browser(shell: Shell) -> None:
    setup, deno_line, post, wait, post_twice, wait_twice = commands("In a browser")
    (gateway_line,) = [line for line in commands("By hand") if line.endswith("ww gateway")]
    (worker_line,) = [line for line in commands("By hand") if line.endswith("ww worker --dial PEER_ID")]
    shell.run(setup, ROOT)
    gateway = shell.start_gateway(gateway_line)
    deno = shell.start(deno_line, "joined gateway")
    worker = shell.start(worker_line, "joined gateway")
    for path in ("", "worker"):
        assert "<script" in shell.run(f"curl -sS localhost:8080/{path}")
    shell.run(post)
    (result,) = json.loads(shell.run(wait))["results"]
    (of_deno,) = [each for each in json.loads(shell.run("curl -sS localhost:8080/workers")) if each["kind"] == "deno"]
    assert (result["result"], result["worker"]) == ("2832", of_deno["peer"])
    shell.run(post_twice)
    assert [each["result"] for each in json.loads(shell.run(wait_twice))["results"]] == ["2832"]
    shell.press_ctrl_c(worker)
    shell.press_ctrl_c(deno)
    shell.press_ctrl_c(gateway)


def test_from_the_command_line(shell: Shell) -> None:
    puzzle, echo, files, detach, listing, status, cancel, logs, workers = commands("From the command line")
    (gateway_line,) = [line for line in commands("By hand") if line.endswith("ww gateway")]
    (worker_line,) = [line for line in commands("By hand") if line.endswith("ww worker --dial PEER_ID")]
    gateway = shell.start_gateway(gateway_line)
    worker = shell.start(worker_line, "joined gateway")
    assert shell.run(puzzle) == "2832\n"
    assert shell.run(echo) == "hello\n"
    shell.run(files)
    assert (shell.directory / "results" / "out" / "note").read_text() == "hello"
    assert shell.run(detach) == "task5\n"
    assert [line.split()[0] for line in shell.run(listing).splitlines()][:2] == ["ID", "task5"]
    assert "task5" in shell.run(status)
    assert shell.run(cancel).splitlines()[1].split() == ["task5", "cancelled"]
    assert shell.run(logs) == ""
    assert shell.run(workers).startswith("PEER")
    (program,) = blocks("From the command line", "python")
    assert shell.run_python(program) == "['2832', '2832', '2832']\n"
    shell.press_ctrl_c(worker)
    shell.press_ctrl_c(gateway)


@pytest.mark.timeout(240)
def test_python_functions(shell: Shell) -> None:
    (program,) = blocks("Python functions", "python")
    assert shell.run_python(program).splitlines() == ["9 9 [1, 4, 9, 16]", str(sum(n * n for n in range(1000)))]
    pi, sieve, pythagorean, words = map(shell.run, commands("Python functions"))
    assert pi.startswith("pi is about 3.14")
    assert sieve.startswith("148,933 primes below 2,000,000")
    assert "11 triples" in pythagorean
    assert re.match(r"[\d,]+ words in \d+ files", words)


@needs_curl
@pytest.mark.timeout(120)
def test_many_inputs(shell: Shell) -> None:
    make, map_folder, again, place, lines, head, tail, job, *rest = commands("Many inputs")
    make_lines, post, results, pack, post_zip, run_native, map_native = rest
    (gateway_line,) = [line for line in commands("By hand") if line.endswith("ww gateway")]
    (worker_line,) = [line for line in commands("By hand") if line.endswith("ww worker --dial PEER_ID")]
    gateway = shell.start_gateway(gateway_line)
    worker = shell.start(worker_line, "joined gateway")

    def files_of(folder: str) -> dict[str, str]:
        paths = (path for path in (shell.directory / folder).iterdir() if not path.name.startswith(".ww-map"))
        return {path.name: path.read_text() for path in paths}

    shell.run(make)
    shell.run(map_folder)
    assert files_of("outputs") == {f"{n}.txt": f"line {n}\n" for n in (1, 2, 3)}
    assert "0 succeeded, 0 failed, 3 were there" in shell.run(f"{again} 2>&1")
    shell.run(place)
    assert files_of("copies") == {f"{n}.txt": f"cat 0 line {n}\n\n" for n in (1, 2, 3)}
    found = shell.run(lines).split()
    assert (len(found), found[0]) == (10, "2832")
    for line in (head, tail):
        shell.run(line)
    assert shell.run(job) == "[0] hello\n[0] a\n[1] bye\n[1] b\n"
    shell.run(make_lines)
    assert json.loads(shell.run(post))["batch"] is True
    told = [json.loads(line) for line in shell.run(results).splitlines() if line]
    assert [result["run"] for result in told] == list(range(1000)), "in the order of the lines, to the last"
    assert [result["result"] for result in told[:10]] == found
    shell.run(pack)
    task = json.loads(shell.run(post_zip))
    assert (task["status"], {result["stdout"] for result in task["results"]}) == (
        "succeeded", {f"line {n}\n" for n in (1, 2, 3)}
    )  # fmt: skip
    batch_program, native_program = blocks("Many inputs", "python")
    assert int(shell.run_python(batch_program)) == sum(int(result["result"]) for result in told)
    assert shell.run(run_native) == "2832\n"
    shell.run(map_native)
    assert files_of("more") == files_of("outputs")
    assert shell.run_python(native_program) == "['2832']\n"
    shell.press_ctrl_c(worker)
    shell.press_ctrl_c(gateway)


def test_options(shell: Shell) -> None:
    gateway_help, worker_help, doctor, worker_line = commands("Options")
    assert "WW_HTTP" in shell.run(gateway_help)
    assert "WW_SLOTS" in shell.run(worker_help)
    assert "seccomp" in shell.run(doctor)
    (gateway_line,) = [line for line in commands("By hand") if line.endswith("ww gateway")]
    shell.start_gateway(gateway_line)
    shell.start(worker_line, "joined gateway .* with 1 slot")


@needs_curl
@pytest.mark.timeout(120)
def test_two_machines(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(why_not())
    lan_gateway, lan_ticket, protect, lan_worker, *rest = commands("Two machines")
    far_gateway, far_ticket, listing, drain, ban = rest
    post, _, wait = [line for line in commands("By hand") if line.startswith("curl")][:3]
    with (
        two_machines() as (machine_a, machine_b),
        shell_in(tmp_path / "a", machine_a) as a,
        shell_in(tmp_path / "b", machine_b) as b,
    ):

        def bring_ticket(make: str, shell: Shell = b) -> None:
            (a.directory / "ticket.txt").unlink(missing_ok=True)
            a.run(make)
            assert (a.directory / "ticket.txt").stat().st_mode & 0o077 == 0
            if shell is not a:
                shutil.copy(a.directory / "ticket.txt", shell.directory / "ticket.txt")
            shell.run(protect)

        a.values["ADDRESS_OF_A"] = machine_a.address
        gateway = a.start_gateway(lan_gateway)
        bring_ticket(lan_ticket)
        worker = b.start(lan_worker, "joined gateway")
        b.press_ctrl_c(worker)
        b.press_ctrl_c(b.start(lan_worker, "joined gateway"))  # it is remembered
        a.press_ctrl_c(gateway)

        gateway = a.start_gateway(far_gateway)
        bring_ticket(far_ticket)
        far_worker = lan_worker.replace(" --lan", "").replace("worker.key", "other.key")
        worker = b.start(far_worker, "joined gateway")
        a.values["WORKER_PEER_ID"] = b.run(".venv/bin/ww id --key other.key").strip()
        a.run(post)
        task = json.loads(a.run(wait))
        assert [result["result"] for result in task["results"]] == ["2832"] * 3
        assert {result["worker"] for result in task["results"]} == {a.values["WORKER_PEER_ID"]}
        with pytest.raises(AssertionError, match=r"refused|connect"):
            b.run(f"curl -sS --max-time 5 http://{machine_a.address}:8080/tasks")
        assert a.values["WORKER_PEER_ID"] in a.run(listing)
        a.run(drain)
        assert "draining connected" in a.run(listing)
        a.run(ban)
        wait_until(lambda: "banned draining away" in a.run(listing))
        b.press_ctrl_c(worker)

        # What the text says: a ticket is good once, and it holds on A too.
        bring_ticket(far_ticket, a)
        a.start(far_worker.replace("other.key", "own.key"), "joined gateway")
        a.start(far_worker.replace("other.key", "another.key"), "refuses this node")
        a.press_ctrl_c(gateway)

        # And a list may be there instead, which may grow.
        (a.directory / "list.txt").touch()
        a.start_gateway(far_gateway.replace("--admit ticket", "--admit allow:list.txt"))
        b.start(far_worker.replace("other.key", "third.key"), "refuses this node")
        third = b.run(".venv/bin/ww id --key third.key").strip()
        (a.directory / "list.txt").write_text(f"{third}\n")
        wait_until(lambda: third in a.run("curl -s localhost:8080/workers"))


@needs_curl
@pytest.mark.skipif(shutil.which("openssl") is None, reason="README.md makes a certificate with openssl")
def test_http_beyond_the_machine(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(why_not())
    certify, create, gateway_line, listing, curl = commands("HTTP beyond the machine")
    with (
        two_machines() as (machine_a, machine_b),
        shell_in(tmp_path / "a", machine_a) as a,
        shell_in(tmp_path / "b", machine_b) as b,
    ):
        a.values["ADDRESS_OF_A"] = b.values["ADDRESS_OF_A"] = machine_a.address
        for line in (certify, create):
            a.run(line)
        gateway = a.start(gateway_line, "HTTP on https://")
        for name in ("cert.pem", "alice.token"):
            shutil.copy(a.directory / name, b.directory / name)
        assert b.run(listing).startswith("ID")
        assert json.loads(b.run(curl)) == []
        assert json.loads(b.run(re.sub(r'-H "[^"]*"', "", curl)))["status"] == 401
        secret = (a.directory / "alice.token").read_text().strip()
        assert secret not in (a.directory / "tokens.toml").read_text()
        assert "alice" in a.run(".venv/bin/ww token ls --file tokens.toml")
        a.run(".venv/bin/ww token revoke alice --file tokens.toml")
        wait_until(lambda: json.loads(b.run(curl)) != [])
        assert json.loads(b.run(curl))["status"] == 401
        a.press_ctrl_c(gateway)


def test_what_is_kept(shell: Shell) -> None:
    check, backup, restore = commands("What is kept")
    (gateway_line,) = [line for line in commands("By hand") if line.endswith("ww gateway")]
    (detach,) = [line for line in commands("From the command line") if "--detach" in line]
    gateway = shell.start_gateway(gateway_line)
    shell.run(detach)
    assert shell.run(check) == "ok: 1 tasks, 0 results, 0 payloads\n"
    assert shell.run(backup).startswith("ww.backup: ")
    assert (shell.directory / "ww.backup").stat().st_mode & 0o077 == 0
    shell.run(restore)
    assert {path.name for path in (shell.directory / "restored").iterdir()} == {"gateway"}, "no keys"
    assert shell.run(f"{check} --state restored") == "ok: 1 tasks, 0 results, 0 payloads\n"
    shell.press_ctrl_c(gateway)


def test_who_is_there(shell: Shell) -> None:
    listing, workers, watch, listen, emit = commands("Who is there")
    (gateway_line,) = [line for line in commands("By hand") if line.endswith("ww gateway")]
    shell.start_gateway(gateway_line)
    listener = shell.start(listen, "listening on")
    (worker_line,) = [line for line in commands("By hand") if line.endswith("ww worker --dial PEER_ID")]
    shell.start(worker_line, "joined gateway")
    wait_until(lambda: len(shell.run(listing).splitlines()) == 3)
    (worker,) = json.loads(shell.run(workers))
    assert worker["role"] == "worker"
    assert {line.split()[0] for line in shell.run(emit).splitlines()[1:]} == {worker["peer"], shell.values["PEER_ID"]}
    assert listener.stdout is not None
    assert listener.stdout.readline().startswith("TIME")
    watching, _ = shell._start(watch, "")
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("PEER")
    for process in (watching, listener):
        shell.press_ctrl_c(process, exit_code=130)
