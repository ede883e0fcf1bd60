"""What a process keeps of Python programs between runs: instances that have loaded one, and a state to go back to.

Holds how an instance comes to that state and back to it, and which of several are kept. Must not know what a run is:
python_program.py does. All that a run can change is its memory, its globals and its handles: component_core.py refuses
components that could change more. Memory that grew cannot shrink: such an instance is given up, and another one brought
to the same state.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

import wasmtime

from ww.sandbox.checkpoint import Checkpoint, Pages
from ww.sandbox.python_host import Host
from ww.sandbox.python_link import Code, HostFunction, Instance

_FUEL_MAX: Final = (1 << 63) - 1


@dataclass(slots=True, eq=False)
class Maker:
    """What instances of a component are made of."""

    code: Code
    hosts: list[HostFunction]
    host: Host
    metered: bool

    def make(self, memory_bytes: int) -> Instance:
        """Make one. Raises Trap or WasmtimeError when it does not start."""
        fuel = _FUEL_MAX if self.metered else None
        return Instance(self.code, self.hosts, memory_bytes, fuel, lambda instance: self.host.enter(instance, {}))


class Kept:
    """An instance that has loaded a program, and the state that it goes back to."""

    def __init__(self, maker: Maker, instance: Instance, memory_bytes: int, pages: Pages) -> None:
        """Take the state of an instance as it is now. OSError when there is no memory for it."""
        self._maker = maker
        self._memory_bytes = memory_bytes
        instance.renew(memory_bytes, _FUEL_MAX if maker.metered else None)
        instance.save()
        self._globals = instance.globals()
        self._handles = dict(maker.host.handles)
        self._base, self._size = instance.base, instance.size
        self._checkpoint = Checkpoint(self._base, self._size, pages)
        self._checkpoint.apply(self._base)
        self._instance: Instance | None = instance
        self._is_changed = False
        """Whether a run was in it since it was in that state."""
        self._used_bytes = 0

    @property
    def bytes(self) -> int:
        """How much memory its image takes."""
        return self._checkpoint.file_bytes

    def begin(self, fuel: int | None) -> Instance:
        """Return the instance, in that state, ready for a run. Raises as `Maker.make` does."""
        maker = self._maker
        self.settle()
        instance = self._instance
        if instance is None:
            instance = maker.make(self._memory_bytes)
            try:
                instance.grow(self._size)
                if instance.size != self._size:
                    raise wasmtime.WasmtimeError("an instance is larger than the state that it is to have")
                instance.set_globals(self._globals)
                instance.restore()
                self._base = instance.base
                self._checkpoint.apply(self._base)
            except BaseException:
                instance.close()
                raise
            self._instance = instance
        instance.renew(self._memory_bytes, fuel)
        maker.host.enter(instance, self._handles)
        self._is_changed = True
        return instance

    @property
    def used_bytes(self) -> int:
        """How much memory a run has, about, by what the one before it wrote to."""
        instance = self._instance
        if instance is not None and instance.size != self._size:
            return instance.size
        return min(self._size, self._checkpoint.file_bytes + self._used_bytes)

    def settle(self) -> None:
        """Bring the instance back to that state after a run. Idempotent."""
        instance, is_changed = self._instance, self._is_changed
        self._is_changed = False
        if instance is None or not is_changed:
            return
        if instance.size != self._size or instance.base != self._base:
            self.drop_instance()
            return
        try:
            self._used_bytes = self._checkpoint.go_back(self._base)
            instance.renew(self._memory_bytes, _FUEL_MAX if self._maker.metered else None)
            instance.restore()
        except (OSError, wasmtime.WasmtimeError, wasmtime.Trap):
            # Whatever it is now, nobody meets it.
            self.drop_instance()

    def drop_instance(self) -> None:
        """Give the instance up."""
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.close()

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self.drop_instance()
        self._checkpoint.close()


@dataclass(slots=True)
class Shelf:
    """The programs of a child process that are kept, as many of the latest ones as fit."""

    count_max: int
    bytes_max: int
    """Of their images; the latest one is kept whatever it takes."""
    _kept: "OrderedDict[Hashable, Kept]" = field(default_factory=OrderedDict)

    def find(self, key: Hashable) -> Kept | None:
        """Return what is kept of a program."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def put(self, key: Hashable, kept: Kept) -> None:
        """Keep a program, and give up what does not fit beside it."""
        self._kept[key] = kept
        while len(self._kept) > 1 and (len(self._kept) > self.count_max or self._bytes() > self.bytes_max):
            _, oldest = self._kept.popitem(last=False)
            oldest.close()

    def settle(self) -> None:
        """Bring the one that was run last back to its state."""
        if self._kept:
            next(reversed(self._kept.values())).settle()

    def clear(self) -> None:
        """Give all up."""
        while self._kept:
            _, kept = self._kept.popitem()
            kept.close()

    def __len__(self) -> int:
        return len(self._kept)

    def _bytes(self) -> int:
        return sum(kept.bytes for kept in self._kept.values())
