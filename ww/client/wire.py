"""How calls go over HTTP: the gateway's address, the token, and what can go wrong on the way.

Holds all that both shells know of httpx but for its clients. The token is in no message and no repr, goes to the
gateway's own address only (redirects are not followed), and in the open to this machine alone.
"""

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from ww import __version__
from ww.client.call import Answer, Call, Failure, one_line
from ww.errors import PeerError, UsageError

DEFAULT_URL: Final = "http://127.0.0.1:8080"
ANSWER_BYTES_MAX: Final = 256 << 20
Verify = bool | str | Path | ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the gateway is and how to talk to it."""

    url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    connect_timeout_s: float = 5.0
    timeout_s: float = 30.0
    """Seconds without a byte, beyond those that a call is meant to take."""
    verify: Verify = True
    """A file of certificates to trust instead of the system's, or a context; False trusts any."""
    insecure: bool = False
    """Whether a token may go over plain HTTP to another machine."""
    answer_bytes_max: int = ANSWER_BYTES_MAX


class Wire:
    """One client's way to its gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.url, is_loopback = _check_url(settings.url)
        if settings.token is not None:
            _check_token(settings.token)
            if not self.url.startswith("https:") and not is_loopback and not settings.insecure:
                why = "everybody on the way could read it: expected https, or insecure"
                raise UsageError(f"the token would go to {self.url} over plain HTTP, {why}", "token")
        self._is_loopback = is_loopback

    def client_options(self) -> dict[str, Any]:
        """Return what httpx's clients are made with."""
        settings = self._settings
        headers = {"User-Agent": f"ww/{__version__}"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        return {
            "base_url": self.url,
            "headers": headers,
            "follow_redirects": False,
            # Without TLS no certificates: reading them takes longer than most requests.
            "verify": _trust(settings.verify) if self.url.startswith("https:") else False,
            # Proxies lead elsewhere, also from this machine to itself.
            "trust_env": not self._is_loopback,
        }

    def request(self, call: Call) -> dict[str, Any]:
        """Return what httpx's `stream` is given for a call."""
        settings = self._settings
        timeout = httpx.Timeout(settings.timeout_s + call.extra_s, connect=settings.connect_timeout_s)
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.query),
            "headers": dict(call.headers),
            "files": list(call.parts) or None,
            "content": call.content,
            "timeout": timeout,
        }

    def collect(self, body: bytearray, piece: bytes) -> None:
        """Add a piece of an answer to its body. PeerError past the limit."""
        body += piece
        if len(body) > self._settings.answer_bytes_max:
            raise PeerError(f"the answer has more than {self._settings.answer_bytes_max} bytes, the limit")

    def answer(self, response: httpx.Response, body: bytes | bytearray) -> Answer:
        """Return what came back."""
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(body))

    def failure(self, error: httpx.HTTPError) -> Failure:
        """Return, in one line, why nothing came back."""
        causes = _causes(error)
        for cause in causes:
            if isinstance(cause, ssl.SSLError):
                return Failure(PeerError(f"{self.url} cannot be trusted: {_tls_text(cause)}"), is_final=True)
        if isinstance(error, httpx.ConnectTimeout):
            why = f"it does not answer within {self._settings.connect_timeout_s:g} s"
        elif isinstance(error, httpx.TimeoutException):
            why = f"it says nothing for {self._settings.timeout_s:g} s"
        elif isinstance(error, httpx.ConnectError):
            said = [_os_text(cause) for cause in causes if isinstance(cause, OSError) and cause.strerror]
            why = one_line(said[-1]).lower() if said else "it cannot be connected to"
        elif isinstance(error, httpx.TransportError):
            why = "the connection broke"
        else:
            return Failure(PeerError(f"the answer of {self.url} cannot be read"), is_final=True)
        return Failure(PeerError(f"no gateway at {self.url}: {why}"))

    def __repr__(self) -> str:
        return f"{self.url!r}"


def is_stream(response: httpx.Response, media: str) -> bool:
    """Whether an answer is the stream of that content type that was hoped for."""
    return response.status_code == 200 and response.headers.get("content-type", "").startswith(media)


def _check_url(url: str) -> tuple[str, bool]:
    """Return a gateway's address without its last slash, and whether it is this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        host, parts = None, urlsplit("")
    if parts.username is not None or parts.password is not None:
        raise UsageError("the gateway's address has a password in it: expected a token beside it", "url")
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or not url.isprintable():
        raise UsageError(f"{one_line(url[:80])!r} is no gateway's address: expected http://HOST:PORT", "url")
    return url.rstrip("/"), _is_loopback(host)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_token(token: str) -> None:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("that is no token: expected letters, digits and signs in one word", "token")


def _trust(verify: Verify) -> bool | ssl.SSLContext:
    if isinstance(verify, bool | ssl.SSLContext):
        return verify
    try:
        return ssl.create_default_context(cafile=str(verify))
    except OSError as error:  # an SSLError is one
        why = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(f"{verify}: {why}", "verify") from None


def _causes(error: BaseException) -> list[BaseException]:
    """Return all that led to an error: what it was raised from, and what groups hold."""
    found: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        if (each := pending.pop()) is not None and each not in found and len(found) < 50:
            found.append(each)
            pending += [each.__cause__, each.__context__]
            pending += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return found


def _os_text(error: OSError) -> str:
    """Return what went wrong: asyncio has words of its own for it, with an address in them; those of names stay."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error.strerror)


def _tls_text(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return one_line(error.verify_message or "its certificate is not known")
    return one_line((error.reason or "no TLS there").lower().replace("_", " "))
