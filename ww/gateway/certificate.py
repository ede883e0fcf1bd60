"""The certificate that HTTPS is spoken with, read again when its files change.

Holds the standard library's context around it. Must not know HTTP. The protocol between nodes is net/tls.py's, and has
nothing to do with this.
"""

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Final

from ww.errors import UsageError

log = logging.getLogger("ww.gateway")

_LOOK_EVERY_S: Final = 2.0

_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate, its chain and its key. New connections get what the files hold, old ones keep what they had."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """Read both files, PEM. UsageError when they are not as they should be."""
        self._files = cert_file, key_file
        self._stamp = self._look()
        self.context = self._load(_new_context())
        self._check_key_is_private()

    def _look(self) -> _Stamp:
        statuses = []
        for flag, path in zip(("--tls-cert", "--tls-key"), self._files, strict=True):
            try:
                status = os.stat(path)
            except OSError as error:
                raise UsageError(f"{flag} {path.name}: {(error.strerror or 'cannot be read').lower()}") from None
            statuses.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(statuses)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        cert, key = self._files
        try:
            # Without a terminal to ask, a key with a passphrase is one that cannot be read.
            context.load_cert_chain(cert, key, password=lambda: "")
        except ssl.SSLError as error:
            why = "they do not belong together" if "MISMATCH" in (error.reason or "") else "one of them is no PEM file"
            expected = "expected a certificate with its chain, and its key without a passphrase"
            raise UsageError(f"--tls-cert {cert.name}, --tls-key {key.name}: {why}; {expected}") from None
        except OSError as error:
            why = (error.strerror or "cannot be read").lower()
            raise UsageError(f"--tls-cert {cert.name}, --tls-key {key.name}: {why}") from None
        return context

    def _check_key_is_private(self) -> None:
        if self._files[1].stat().st_mode & 0o007:
            log.warning("--tls-key %s: everybody on this machine can use it (chmod 600)", self._files[1].name)

    def refresh(self) -> None:
        """Use what the files hold now, if they changed. What is wrong with them is logged, and nothing changes."""
        stamp = self._stamp
        try:
            if (stamp := self._look()) == self._stamp:
                return
            self._load(_new_context())  # a try: the one in use stays whole
            self._load(self.context)
            log.info("--tls-cert %s was read again", self._files[0].name)
        except UsageError as error:
            log.error("%s; the certificate stays as it was", error)
        self._stamp = stamp

    async def keep_fresh(self) -> None:
        """Look for changes, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await asyncio.to_thread(self.refresh)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context
