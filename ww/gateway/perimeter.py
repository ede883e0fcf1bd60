"""What stands between the network and the routes: who is let in, and what is told of it.

Holds the order of the ASGI middleware, each of which costs some microseconds. Must not know routes.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from starlette.middleware.cors import CORSMiddleware

from ww.gateway.access import Access
from ww.gateway.authority import Authority, Secrets
from ww.gateway.caller import Caller
from ww.gateway.endpoints import ENDPOINTS
from ww.gateway.metrics import Metrics
from ww.gateway.problem import failed, forbidden, unauthorized
from ww.gateway.quota import Quotas
from ww.gateway.readiness import Check, Readiness
from ww.gateway.same_origin import App, SameOrigin
from ww.gateway.task import Spec

_CORS_SECONDS: Final = 600
_METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
# Beside those that any page may send, and read.
_HEADERS_TAKEN: Final = ("Authorization", "Content-Type", "If-None-Match", "Last-Event-ID", "X-Request-ID")
_HEADERS_SHOWN: Final = ("ETag", "Location", "Retry-After", "X-Request-ID")


@dataclass(frozen=True, slots=True)
class PerimeterConfig:
    """Who may ask."""

    names: frozenset[str] = frozenset()
    """Host names of this gateway, in lower case, beside IP addresses and localhost."""
    origins: frozenset[str] = frozenset()
    """Web pages of others that are let in, as scheme://host[:port]."""
    any_address: bool = False
    """Whether every IP address is this gateway's: it listens beyond loopback."""
    behind_proxy: bool = False
    """Whether a proxy says where requests come from."""


@dataclass(slots=True)
class Perimeter:
    """One gateway's. Without anything given: everybody may ask, over loopback, for as much as the gateway holds."""

    config: PerimeterConfig = field(default_factory=PerimeterConfig)
    tokens: Secrets | None = None
    metrics: Metrics = field(default_factory=Metrics)
    quotas: Quotas | None = None
    readiness: Readiness | None = None

    def __post_init__(self) -> None:
        self.metrics.leave_out_durations({endpoint.template for endpoint in ENDPOINTS if endpoint.is_stream})

    def around(self, app: App) -> App:
        """Return an application that lets through to app whom it may."""
        config = self.config
        guarded: App = Authority(app, self.tokens, unauthorized, monotonic, behind_proxy=config.behind_proxy)
        if config.origins:
            guarded = CORSMiddleware(
                guarded,
                allow_origins=sorted(config.origins),
                allow_methods=_METHODS,
                allow_headers=_HEADERS_TAKEN,
                expose_headers=_HEADERS_SHOWN,
                max_age=_CORS_SECONDS,
            )
        return self.told(
            SameOrigin(guarded, forbidden, names=config.names, origins=config.origins, any_address=config.any_address)
        )

    def told(self, app: App) -> App:
        """Return an application whose requests are logged and counted, and nothing else."""
        return Access(app, failed, self.metrics)

    def admit(self, caller: Caller, spec: Spec) -> AbstractContextManager[None]:
        """Return a context to submit a task of that caller in.

        StoreError when nothing new is taken, Overloaded, with the name of the quota, when the caller holds too much.
        """
        self.require_room()
        return self.quotas.taking(caller, spec) if self.quotas is not None else nullcontext()

    def admit_nested(self, spec: Spec) -> AbstractContextManager[None]:
        """Return a context to submit a task in that a run called for. Raises as `admit` does."""
        self.require_room()
        return self.quotas.taking_nested(spec) if self.quotas is not None else nullcontext()

    def require_room(self) -> None:
        """Raise StoreError, with the reason, when nothing new may be put on disk."""
        if self.readiness is not None:
            self.readiness.require_room()

    def checks(self) -> list[Check]:
        """Say what is there for new work, and what is missing."""
        return self.readiness.checks() if self.readiness is not None else []

    def stop(self) -> None:
        """Note that the gateway is stopping."""
        if self.readiness is not None:
            self.readiness.is_stopping = True
