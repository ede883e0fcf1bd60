"""The sandbox of web/ in a Node process, driven as the Python one is.

Holds its building, its process, and the translation of what it is asked and answers. Records pass as they are.
"""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.guests import ROOT
from ww.errors import BadModule
from ww.outcome import read_invocation
from ww.records import NOTHING, read_outcomes
from ww.sandbox.codec import result_of
from ww.sandbox.invocation import Result

WEB: Final = ROOT / "web"
_LINE_BYTES_MAX: Final = 256 << 20


class Refused(Exception):
    """A group that was refused, by a code of ww/errors.py."""


def is_there() -> bool:
    """Whether what builds it is installed: scripts/web does that."""
    return shutil.which("node") is not None and (WEB / "node_modules" / ".bin" / "vite").exists()


def build(folder: Path) -> Path:
    """Build it into a folder; return what Node runs."""
    vite = WEB / "node_modules" / ".bin" / "vite"
    config = WEB / "test" / "sandbox" / "vite.config.ts"
    subprocess.run([vite, "build", "--config", config, "--outDir", folder, "--emptyOutDir"], cwd=WEB, check=True)
    return folder / "same.mjs"


@dataclass(slots=True)
class NodeSandbox:
    """One slot."""

    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, script: Path) -> "NodeSandbox":
        pipe = asyncio.subprocess.PIPE
        started = await asyncio.create_subprocess_exec("node", script, stdin=pipe, stdout=pipe, limit=_LINE_BYTES_MAX)
        return cls(started)

    async def aclose(self) -> None:
        # V8 does not stop a thread that fills memory for ever before half a minute has passed, and waits for it.
        self.process.kill()
        await self.process.wait()

    async def send(self, module: bytes, message: Any) -> Result:
        """Run a module once with a worker.Invocation, and return its Result."""
        return (await self.group(module, message, NOTHING))[0]

    async def group(self, module: bytes, message: Any, inputs: bytes) -> Sequence[Result]:
        """Run a group; BadModule when the module does not compile, Refused when the group is none."""
        invocation = read_invocation(message)
        limits = message.limits
        asked = {
            "module": _text(module),
            "metered": invocation.deterministic,
            "inputs": _text(inputs),
            "task": {
                "entry": invocation.entry,
                "arguments": [str(value) for value in invocation.arguments],
                "args": list(invocation.args),
                "env": [list(pair) for pair in invocation.env],
                "stdin": _text(bytes(invocation.stdin)),
                "deterministic": invocation.deterministic,
                "seed": str(invocation.seed),
                "limits": {
                    name: getattr(limits, name)
                    for name in ("durationSeconds", "memoryBytes", "outputBytes", "cpuSeconds", "fuel")
                },
            },
        }
        answer = await self._ask(asked)
        if "code" in answer:
            raise (BadModule if answer["code"] == "bad_module" else Refused)(f"{answer['code']}: {answer['message']}")
        outcomes = sorted(read_outcomes(base64.b64decode(answer["outcomes"])), key=lambda outcome: outcome.place)
        return [result_of(outcome) for outcome in outcomes]

    async def _ask(self, asked: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        line = await self.process.stdout.readline()
        assert line, "the process ended"
        return json.loads(line)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
