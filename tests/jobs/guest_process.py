"""What of the guest is Python, in a process of its own: the sandbox's files, beside which nothing of ww is.

`answers` loads a zip there and calls it: what comes back is what the component's load and call return. What takes no
sandbox to be seen is tested so in milliseconds.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path

from ww.python import build

_MAIN = """
import base64, json, sys
sys.path.insert(0, sys.argv[1])
from ww.python.guest.runtime import Runtime

class Host:
    def start(self, name, requests):
        raise SystemExit("no calls here")

asked = json.load(sys.stdin)
runtime = Runtime(Host(), lambda: [])
code = base64.b64decode(asked["code"])
found = [runtime.load(asked["name"], code, json.dumps(asked["grants"]).encode())]
if found[0][0] == 0:
    found += [runtime.call(base64.b64decode(request)) for request in asked["requests"]]
sys.__stdout__.write("\\n" + json.dumps([base64.b64encode(one).decode() for one in found]))
"""


def make(folder: Path) -> Path:
    """Put the guest's Python files into a folder; return it."""
    root = Path(build.__file__).parent.parent
    for name, file in build._FILES.items():
        to = folder / name
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes((root / file).read_bytes())
    return folder


def answers(folder: Path, name: str, code: bytes, requests: list[bytes], grants: tuple[str, ...] = ()) -> list[bytes]:
    """Return what load returned, and what each call did."""
    asked = {
        "name": name,
        "code": base64.b64encode(code).decode(),
        "grants": list(grants),
        "requests": [base64.b64encode(request).decode() for request in requests],
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", _MAIN, str(folder)],
        input=json.dumps(asked), capture_output=True, text=True, timeout=50, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [base64.b64decode(one) for one in json.loads(done.stdout.splitlines()[-1])]
