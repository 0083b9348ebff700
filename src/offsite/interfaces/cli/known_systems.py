"""Which certificate a remote system has: asked about at the first contact, then pinned.

    not known ──▶ --fingerprint given ──same──▶ written down, trusted
        │               └─other──▶ refused
        ├──▶ somebody at a terminal ──yes──▶ written down, trusted
        │               └─no──▶ refused
        └──▶ nobody to ask ──▶ refused

A line of ~/.config/offsite/known_systems is `HOST:PORT SHA-256`, the digest of the certificate's DER form.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from offsite.errors import BadParameter, CertificateChanged, ErrorClass, OffsiteError
from offsite.return_codes import ReturnCode
from offsite.units import format_instant

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(rf"(\S+) ({_SHA256.pattern})")
_FILE_BYTES_MAX = 1 << 20


Asks = Callable[[str], bool]
"""Shows a question to whoever sits at the terminal; whether the answer is yes."""


class Trust(Protocol):
    """Whether a certificate is that of the system that is meant."""

    def context(self) -> ssl.SSLContext:
        """For the handshake."""
        ...

    def refusal(self, place: str, error: ssl.SSLCertVerificationError) -> OffsiteError:
        """What to say when the handshake found a certificate bad."""
        ...

    def check(self, place: str, certificate: bytes) -> bool:
        """Raises CertificateChanged, before anything was sent to `place`. `certificate` is of DER form.

        Returns whether somebody was asked, which takes longer than a system waits for a request.
        """
        ...


_DATES = (9, 10)  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED


def _by_which_clock(error: ssl.SSLCertVerificationError) -> str:
    """Where only dates are wrong, it is a clock more often than a certificate."""
    if error.verify_code not in _DATES:
        return ""
    return f" by the clock of this machine, which shows {format_instant(time.time())}; check that clock"


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
        why = error.verify_message + _by_which_clock(error)
        return CertificateChanged(f"the certificate of {place} does not match {self._path}: {why}; nothing was sent")

    def check(self, place: str, certificate: bytes) -> bool:
        """The handshake has checked it."""
        del place, certificate
        return False


class UnknownCertificate(OffsiteError):
    """The certificate of the system is not yet trusted, and nobody is there to confirm it."""

    code = ReturnCode.UNKNOWN_CERTIFICATE
    error_class = ErrorClass.OPERATOR


class TrustKnown:
    """The certificate that is written down, or that the user says is right: by `fingerprint`, or when `asks`."""

    def __init__(self, path: Path, fingerprint: str | None = None, asks: Asks | None = None) -> None:
        """`fingerprint` is a SHA-256 in hexadecimal; colons and upper case may stand in it."""
        self._path = path
        self._expected = None if fingerprint is None else _plain(fingerprint)
        self._asks = asks
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # `check` does it

    def context(self) -> ssl.SSLContext:
        return self._context

    def refusal(self, place: str, error: ssl.SSLCertVerificationError) -> OffsiteError:
        return CertificateChanged(f"the certificate of {place} is refused: {error.verify_message}")

    def check(self, place: str, certificate: bytes) -> bool:
        seen = hashlib.sha256(certificate).hexdigest()
        known = self._known()
        if self._expected is not None:
            if seen != self._expected:
                raise CertificateChanged(
                    f"the certificate of {place} has the SHA-256 {seen}, but --fingerprint says {self._expected}; "
                    "nothing was sent"
                )
            if known.get(place) != seen:
                self._write(known | {place: seen})
        elif place not in known:
            self._ask(place, seen)
            self._write(known | {place: seen})
            return True
        elif known[place] != seen:
            raise CertificateChanged(
                f"the certificate of {place} has changed: its SHA-256 was {known[place]} and is now {seen}. Either the "
                "system was set up again, or another system answers under this address. Nothing was sent. If the "
                f"change is expected, give --fingerprint {seen} once, or remove the line of {place} from {self._path}"
            )
        return False

    def _ask(self, place: str, seen: str) -> None:
        """Raises UnknownCertificate unless somebody says that it is the right one."""
        if self._asks is None:
            raise UnknownCertificate(
                f"the certificate of {place} is not trusted yet: SHA-256 {seen}. Nothing was sent. Compare it with the "
                f"output of `offsite show system` on the machine itself; if they match, give --fingerprint {seen} once"
            )
        question = (
            f"The certificate of {place} is not trusted yet: SHA-256 {seen}. Compare it with the output of `offsite "
            "show system` on the machine itself: this system will receive your password."
        )
        if not self._asks(question):
            raise UnknownCertificate(f"the certificate of {place} was not trusted; nothing was sent")

    def _known(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        with self._path.open() as file:
            lines = file.read(_FILE_BYTES_MAX).splitlines()
        found = {}
        for number, line in enumerate(lines, 1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise BadParameter(f"line {number} of {self._path} is not `HOST:PORT SHA-256`; correct or remove it")
            found[match[1]] = match[2]
        return found

    def _write(self, known: Mapping[str, str]) -> None:
        """Whole or not at all: a file cut short would make every system unknown."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        made.write_text("".join(f"{place} {digest}\n" for place, digest in known.items()))
        made.replace(self._path)


def _plain(fingerprint: str) -> str:
    """Raises BadParameter."""
    plain = fingerprint.replace(":", "").lower()
    if not _SHA256.fullmatch(plain):
        raise BadParameter(f"--fingerprint {fingerprint[:100]!r} is not a SHA-256; 64 hexadecimal digits are required")
    return plain


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """See the XDG base directory specification."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "offsite" / "known_systems"
