"""The wire contract, loaded once from schema/*.capnp: the bottom of everything that speaks Cap'n Proto.

Holds the loaded modules and nothing else; knows no connection and no policy. The comments in schema/*.capnp are the
specification: read vat.capnp first, then channel.capnp and worker.capnp.
"""

from pathlib import Path
from typing import Any, Final

import capnp


def _schema_directory() -> Path:
    """Find the schema files: beside this module in a wheel, at the top of the tree in a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "schema"
    return installed if installed.is_dir() else here.parent / "schema"


def _load(name: str) -> Any:
    # Without the folder that holds /capnp/*.capnp in imports, a schema that needs it aborts the process.
    return capnp.load(str(_schema_directory() / name), imports=[str(Path(capnp.__file__).resolve().parent.parent)])


vat: Final[Any] = _load("vat.capnp")
channel: Final[Any] = _load("channel.capnp")
worker: Final[Any] = _load("worker.capnp")
sandbox: Final[Any] = _load("sandbox.capnp")
discovery: Final[Any] = _load("discovery.capnp")
cluster: Final[Any] = _load("cluster.capnp")
operator: Final[Any] = _load("operator.capnp")
tasks: Final[Any] = _load("tasks.capnp")
