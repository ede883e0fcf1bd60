"""A confined process with a file system, and wasmtime in it: requests in as lines of JSON, answers out.

Between an executor and the unit that it would have: what is tried on it is the confinement and the file system, not
pool, wire and engine. Its first argument is JSON too. Any system call that is not on the list kills it.
"""

import base64
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import wasmtime

from tests.guests import guest
from tests.sandbox.probe import become_ordinary_user
from ww.sandbox import confine, linux, seccomp
from ww.sandbox.directory import Directory
from ww.sandbox.invocation import GuestFault, RunLimits

assemble = seccomp.assemble


def assemble_strictly(architecture: seccomp.Architecture, allowed: list[int], pid: int) -> bytes:
    return assemble(architecture, allowed, pid, refused=seccomp._KILL)


class Guests:
    def __init__(self, module: bytes) -> None:
        self._engine = wasmtime.Engine()
        self._linker = wasmtime.Linker(self._engine)
        self._linker.define_wasi()
        self._module = wasmtime.Module(self._engine, module)

    def run(self, args: list[str], dirs: list[tuple[str, str]]) -> str:
        wasi = wasmtime.WasiConfig()
        wasi.argv = ["files.wasm", *args]
        wasi.inherit_stdout()
        for here, name in dirs:
            wasi.preopen_dir(here, name)
        store = wasmtime.Store(self._engine)
        store.set_wasi(wasi)
        start = self._linker.instantiate(store, self._module).exports(store)["_start"]
        assert isinstance(start, wasmtime.Func)
        try:
            start(store)
        except wasmtime.ExitTrap as end:
            if end.code:
                raise
        said = os.pread(1, 1 << 20, 0)
        os.ftruncate(1, 0)
        os.lseek(1, 0, os.SEEK_SET)
        return said.decode()


def answer(request: dict[str, Any], guests: Guests, directory: Directory) -> Any:
    limits = RunLimits(10, 1 << 30, 1 << 20, **request.get("limits", {}))
    match request["do"]:
        case "fill":
            directory.fill(base64.b64decode(request["zip"]), limits)
        case "run":
            return guests.run(request["args"], directory.dirs(request.get("dirs", [])))
        case "collect":
            return base64.b64encode(directory.collect(request["paths"], limits)).decode()
        case "used":
            used = directory.used()
            return [used.size_bytes, used.count]
        case "fault":
            fault = directory.fault(limits)
            return fault and fault.detail
        case "clear":
            start = time.perf_counter()
            for _ in range(request.get("times", 1)):
                directory.clear()
            return time.perf_counter() - start
        case "cap":
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["most"], 256 << 20))
    return None


def main() -> None:
    told = json.loads(sys.argv[1])
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.memfd_create("output"), 1)
    if told.get("as_user"):
        become_ordinary_user()
    if told.get("strictly", True):
        seccomp.assemble = assemble_strictly
    if told.get("no_mount"):

        def refuse(*_: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

        linux.mount = refuse
    module = guest("files")
    space = confine.Space(Path(told["directory"]), told["bytes_max"], told["count_max"])
    start = time.perf_counter()
    protections = confine.confine(
        confine.ConfinementConfig(without=told.get("without", ())),
        descriptors={1, 2, requests.fileno(), answers.fileno()},
        space=space,
    )
    took_s = time.perf_counter() - start
    states = {protection.name: [protection.state, protection.detail] for protection in protections}
    guests = Guests(module)  # not before: it starts threads
    directory = Directory(is_mounted=states[confine.FILE_SYSTEM][0] == confine.GIVEN)
    print(json.dumps({"states": states, "took_s": took_s}), file=answers, flush=True)
    for line in requests:
        request, start = json.loads(line), time.perf_counter()
        try:
            said = {"ok": answer(request, guests, directory)}
        except GuestFault as fault:
            said = {"fault": fault.reason, "detail": fault.detail}
        except OSError as error:
            said = {"error": str(error)}
        said["took_s"] = time.perf_counter() - start
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
