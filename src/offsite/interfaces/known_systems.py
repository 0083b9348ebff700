"""Which certificate a remote system has, as far as this user has seen: trust on first use, then pinned.

A line of ~/.config/offsite/known_systems is `HOST:PORT SHA-256`, the digest of the certificate's DER form.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from offsite.errors import BadParameter, CertificateChanged, OffsiteError

_LINE = re.compile(r"(\S+) ([0-9a-f]{64})")
_FILE_BYTES_MAX = 1 << 20


class Trust(Protocol):
    """Whether a certificate is that of the system that is meant."""

    def context(self) -> ssl.SSLContext:
        """For the handshake."""
        ...

    def refusal(self, place: str, error: ssl.SSLCertVerificationError) -> OffsiteError:
        """What to say when the handshake found a certificate bad."""
        ...

    def check(self, place: str, certificate: bytes) -> None:
        """Raises CertificateChanged, before anything was sent to `place`. `certificate` is of DER form."""
        ...


class TrustFile:
    """The certificate in a file, or one signed by it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may hold the system's own
        try:
            self._context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise BadParameter(f"{path} cannot be read as a certificate in PEM form: {error}") from error

    def context(self) -> ssl.SSLContext:
        return self._context

    def refusal(self, place: str, error: ssl.SSLCertVerificationError) -> OffsiteError:
        return CertificateChanged(
            f"the certificate of {place} does not go with {self._path}: {error.verify_message}; nothing was sent to it"
        )

    def check(self, place: str, certificate: bytes) -> None:
        """The handshake has checked it."""


class TrustFirst:
    """The certificate that was seen the first time, which is written down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # `check` does it

    def context(self) -> ssl.SSLContext:
        return self._context

    def refusal(self, place: str, error: ssl.SSLCertVerificationError) -> OffsiteError:
        return CertificateChanged(f"the certificate of {place} is refused: {error.verify_message}")

    def check(self, place: str, certificate: bytes) -> None:
        seen = hashlib.sha256(certificate).hexdigest()
        known = self._known().get(place)
        if known is None:
            self._remember(place, seen)
            print(f"The certificate of {place} is trusted from now on: SHA-256 {seen}", file=sys.stderr)
        elif known != seen:
            raise CertificateChanged(
                f"the certificate of {place} has changed: it is {seen} now and was {known}. Either the system was set "
                "up anew, or somebody else answers in its place. Nothing was sent to it. If the change is right, "
                f"remove its line from {self._path}"
            )

    def _known(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        with self._path.open() as file:
            lines = file.read(_FILE_BYTES_MAX).splitlines()
        found = {}
        for number, line in enumerate(lines, 1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise BadParameter(f"line {number} of {self._path} is not `HOST:PORT SHA-256`; mend or remove it")
            found[match[1]] = match[2]
        return found

    def _remember(self, place: str, seen: str) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(f"{place} {seen}\n")


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """See the XDG base directory specification."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "offsite" / "known_systems"
