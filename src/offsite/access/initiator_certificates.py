"""Which certificates initiators hold, and which of them are good no more.

            issued                              revoked, by itself or with all of its initiator
    (none) ───────▶ on record ──────────────────────────▶ revoked, for ever
        │               ▲                                     ▲
        │ a host shows one that is not on record:             │
        ├── its initiator was never revoked ──▶ on record     │ (older versions kept no record of what they issued)
        └── it was: refused ──────────────────────────────────┘

The authority's signature and the dates are checked by TLS before anything here is asked. No clock decides here: what
was revoked stays so when the clock is put back. Revoking an initiator revokes also what is not on record, and what is
issued after that is good again, for it is on record.

A full record lets go of what it can do without: certificates that ended long ago, which TLS refuses, and revoked ones
of initiators that were revoked, which are refused without being on record. One that was revoked by itself stays: it
would be put on record again as a good one, by a host that comes with it while the clock is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from offsite.access.tables import initiator_certificates as table
from offsite.access.tables import revoked_initiators
from offsite.errors import BadParameter, LimitReached, NotAllowed, ObjectNotFound, StateDirectoryError
from offsite.escaping import escaped
from offsite.return_codes import ReturnCode
from offsite.store.database import Database

CERTIFICATES_MAX = 10_000
ENDED_LONG_SECONDS = 90 * 86400.0

_log = structlog.get_logger("offsite.certificates")


class CertificateRevoked(NotAllowed):
    """A host has shown a certificate that was revoked."""

    code = ReturnCode.CERTIFICATE_REVOKED


@dataclass(frozen=True, slots=True)
class InitiatorCertificate:
    serial: str  # hexadecimal
    name: str  # of the initiator tls:NAME
    issued_at: float | None  # none: not known, as an older version issued it
    ends_at: float
    revoked_at: float | None


class InitiatorCertificates:
    """The record of them. Safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, pem: str, issued_at: float) -> InitiatorCertificate:
        """Durably, before anybody gets the certificate. Raises LimitReached for one too many."""
        found = _read(x509.load_pem_x509_certificate(pem.encode()), issued_at)
        with self._database.transaction() as connection:
            if _is_full(connection):
                _let_go(connection, issued_at)
            if _is_full(connection):
                raise LimitReached(
                    f"{CERTIFICATES_MAX} certificates of initiators are kept, which is the maximum; revoke all "
                    "certificates of an initiator that no longer exists"
                )
            _insert(connection, found)
        return found

    def check(self, der: bytes) -> None:
        """Raises CertificateRevoked. `der` is a certificate that the authority has signed."""
        found = _read(x509.load_der_x509_certificate(der), None)
        with self._database.read() as connection:
            is_known = _check(connection, found)
        if not is_known:
            self._note(found)

    def all(self, name: str | None = None) -> list[InitiatorCertificate]:
        """By name, the newest first; of one initiator only when a `name` is given."""
        chosen = select(table).order_by(table.c.name, table.c.ends_at.desc(), table.c.serial)
        if name is not None:
            chosen = chosen.where(table.c.name == name)
        with self._database.read() as connection:
            return [InitiatorCertificate(**row) for row in connection.execute(chosen).mappings()]

    def get(self, serial: str) -> InitiatorCertificate:
        """Raises ObjectNotFound."""
        with self._database.read() as connection:
            return _get(connection, serial)

    def check_revocable(self, serial: str) -> None:
        """Raises ObjectNotFound, or BadParameter when it is already revoked."""
        with self._database.read() as connection:
            _revocable(connection, serial)

    def revoke(self, serial: str, now: float) -> InitiatorCertificate:
        """Raises what `check_revocable` raises."""
        with self._database.transaction() as connection:
            found = _revocable(connection, serial)
            connection.execute(update(table).where(table.c.serial == serial).values(revoked_at=now))
            return replace(found, revoked_at=now)

    def revoke_all(self, name: str, now: float) -> int:
        """Those of an initiator, on record or not. Returns how many are on record that were good before."""
        with self._database.transaction() as connection:
            statement = upsert(revoked_initiators).values(name=name, revoked_at=now)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"revoked_at": now}))
            good = (table.c.name == name) & table.c.revoked_at.is_(None)
            return connection.execute(update(table).where(good).values(revoked_at=now)).rowcount

    def _note(self, found: InitiatorCertificate) -> None:
        """Raises CertificateRevoked: a revocation may have come since it was looked for."""
        try:
            with self._database.transaction() as connection:
                if not _check(connection, found):
                    _insert(connection, found)
        except StateDirectoryError as error:  # hosts get in on a full disk, too; it is noted another time
            _log.warning("cannot record a certificate", initiator=found.name, reason=str(error))


def _get(connection: Connection, serial: str) -> InitiatorCertificate:
    row = connection.execute(select(table).where(table.c.serial == serial)).mappings().first()
    if row is None:
        raise ObjectNotFound(
            f"certificate {serial[:64]!r} does not exist; `show initiator-certificates` lists all certificates"
        )
    return InitiatorCertificate(**row)


def _revocable(connection: Connection, serial: str) -> InitiatorCertificate:
    found = _get(connection, serial)
    if found.revoked_at is not None:
        raise BadParameter(f"certificate {serial} of initiator tls:{found.name} is already revoked")
    return found


def _check(connection: Connection, found: InitiatorCertificate) -> bool:
    """Whether it is on record, and good. Raises CertificateRevoked."""
    known = connection.execute(select(table.c.revoked_at).where(table.c.serial == found.serial)).first()
    others = select(revoked_initiators).where(revoked_initiators.c.name == found.name)
    revoked = known.revoked_at is not None if known else connection.execute(others).first() is not None
    if revoked:
        raise CertificateRevoked(f"certificate {found.serial} of initiator tls:{escaped(found.name)} was revoked")
    return known is not None


def _is_full(connection: Connection) -> bool:
    return bool(connection.execute(select(func.count()).select_from(table)).scalar_one() >= CERTIFICATES_MAX)


def _let_go(connection: Connection, now: float) -> None:
    revoked = table.c.revoked_at.is_not(None)
    over = ~revoked & (table.c.ends_at < now - ENDED_LONG_SECONDS)
    connection.execute(delete(table).where(over | (revoked & table.c.name.in_(select(revoked_initiators.c.name)))))


def _insert(connection: Connection, found: InitiatorCertificate) -> None:
    values = {each: getattr(found, each) for each in ("serial", "name", "issued_at", "ends_at", "revoked_at")}
    connection.execute(upsert(table).values(values).on_conflict_do_nothing())


def _read(certificate: x509.Certificate, issued_at: float | None) -> InitiatorCertificate:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return InitiatorCertificate(
        serial=f"{certificate.serial_number:x}",
        name=str(names[0].value) if names else "",
        issued_at=issued_at,
        ends_at=certificate.not_valid_after_utc.timestamp(),
        revoked_at=None,
    )
