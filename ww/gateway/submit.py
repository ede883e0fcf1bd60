"""Taking a task on: from the fields of a submission to a task on disk, wherever they came from.

Holds the order in which things are looked at. Must not know HTTP: POST /tasks and /ws both end here.
"""

from collections.abc import Mapping, Sequence

from ww.errors import Overloaded
from ww.gateway.caller import Caller
from ww.gateway.modules import ModuleStore
from ww.gateway.perimeter import Perimeter
from ww.gateway.request import RequestLimits, read_fields
from ww.gateway.scheduler import Scheduler
from ww.gateway.task import Spec
from ww.gateway.upload import Upload


class Submitter:
    """Takes submissions on, over one gateway's parts."""

    def __init__(self, scheduler: Scheduler, modules: ModuleStore, limits: RequestLimits, perimeter: Perimeter) -> None:
        self._scheduler = scheduler
        self._modules = modules
        self.limits = limits
        self._perimeter = perimeter

    def upload(self, name: str) -> Upload:
        """Make what takes in the file of that field."""
        in_use = self._scheduler.modules_in_use
        return self._modules.upload(in_use) if name == "wasm" else self._modules.upload_files(in_use)

    async def submit(
        self, fields: Sequence[tuple[str, str]], stdin: bytes, uploads: Mapping[str, Upload], caller: Caller
    ) -> tuple[str, bool]:
        """Take a task on, which is on disk on return: its id, and False when it was there already.

        uploads are finished. Raises what read_fields, the stores and Scheduler.submit do.
        """
        wasm, zipped = uploads.get("wasm"), uploads.get("files")
        size = None if zipped is None else zipped.size
        submission = read_fields(fields, stdin, wasm is not None, self.limits, files_size=size)
        if wasm is None:
            assert submission.module is not None
            digest = submission.module
            guest = await self._modules.guest(digest, submission.entry)
        else:
            digest = wasm.digest
            guest = await self._modules.examine(wasm, submission.entry)
        if zipped is not None:
            most = {"bytes_max": submission.files_bytes, "count_max": self.limits.files_count_max}
            await self._modules.examine_files(zipped, **most)
        spec = submission.spec(digest, guest, zipped.digest if zipped is not None else "", owner=caller.name)
        try:
            with self._perimeter.admit(caller, spec):
                created = await self._scheduler.submit(
                    spec, lambda: self._keep(spec, wasm, zipped), is_new=submission.is_id_made
                )
        except Overloaded:
            # Who asks again since an answer was lost is told that its task is there, whatever has no room now.
            if submission.is_id_made or not await self._scheduler.is_there(spec):
                raise
            created = False
        return spec.id, created

    async def _keep(self, spec: Spec, wasm: Upload | None, zipped: Upload | None) -> None:
        if wasm is None:
            await self._modules.require(spec.module)
        else:
            await wasm.keep()
        if zipped is not None:
            await zipped.keep()
