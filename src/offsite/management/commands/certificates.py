"""Certificates of initiators: create, show, revoke."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.access.certificates import INITIATOR_DAYS, INITIATOR_DAYS_MAX
from offsite.access.initiator_certificates import InitiatorCertificate
from offsite.errors import BadParameter
from offsite.escaping import shown
from offsite.events import INITIATOR_CERTIFICATE_ISSUED, INITIATOR_CERTIFICATE_REVOKED
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Option, Role, Subject, keyword, positional
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Reply
from offsite.management.commands.mapping import resolve_initiators
from offsite.management.system import Context, System

COMMANDS = Subject("Certificates of initiators")


@dataclass(frozen=True, slots=True)
class IssuedView:
    """With the key, which is shown once and kept nowhere here."""

    name: str
    authority: str
    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class CertificateView:
    certificate: InitiatorCertificate
    now: float

    @property
    def status(self) -> str:
        if self.certificate.revoked_at is not None:
            return "revoked"
        return "valid" if self.now < self.certificate.ends_at else "expired"


ISSUED = ObjectType[IssuedView](
    "initiator-certificate",
    "initiator-certificate",
    (
        properties.text("id", lambda view: f"tls:{view.name}", "Initiator", of_type="initiator"),
        properties.text("ca-certificate", lambda view: view.authority),
        properties.text("certificate", lambda view: view.certificate),
        properties.text("private-key", lambda view: view.key),
    ),
)
CERTIFICATE = ObjectType[CertificateView](
    "initiator-certificates",
    "initiator-certificate-record",
    (
        properties.text("id", lambda view: f"tls:{view.certificate.name}", "Initiator", of_type="initiator"),
        properties.text("serial", lambda view: view.certificate.serial, "Serial", key=True),
        properties.text("status", lambda view: view.status, "Status"),
        properties.time("issued", lambda view: view.certificate.issued_at, "Issued"),
        properties.time("expiry", lambda view: view.certificate.ends_at, "Expires"),
        properties.time("revoked", lambda view: view.certificate.revoked_at, "Revoked", seldom=True),
    ),
)
REFERENCE = values.reference("initiator")
DIRECTORY = Option(
    "directory", "Directory for the files. Default: a directory with the name of the initiator.", values.path("dir")
)
SERIAL = values.reference("certificate serial")


@COMMANDS.command(
    "create initiator-certificate",
    "Creates a certificate and a key for a host that connects over TLS as the initiator tls:NAME. They are shown once "
    "and not stored. The command line writes them to files that qemu and libnbd can use.",
    keyword(
        "days", values.integer(1, INITIATOR_DAYS_MAX, "days"), "Validity of the certificate.", default=INITIATOR_DAYS
    ),
    positional("name", values.name("initiator"), "Name of the initiator.", named=True),
    options=(
        Option(
            "directory",
            "Directory for the files. Default: a directory with the name of the initiator.",
            values.path("dir"),
        ),
    ),
    examples=("create initiator-certificate web1", "create initiator-certificate days 90 web1"),
    returns=(ISSUED,),
)
def create_initiator_certificate(context: Context, name: str, days: int) -> Reply:
    system = context.system
    certificate, key = system.authority.issue(name, days)
    serial = system.certificates.add(certificate, system.clock.now()).serial
    message = f"Certificate {serial} for initiator tls:{name} was created, valid for {days} days."
    system.events.report(INITIATOR_CERTIFICATE_ISSUED, f"{message[:-1]}, by user {context.user.name}.")
    issued = IssuedView(name, system.authority.ca_path.read_text(), certificate, key)
    return Reply(message, (ISSUED.row(issued),))


@COMMANDS.command(
    "show initiator-certificates",
    "Lists the certificates of initiators: those created here, and those of an older version that hosts have used.",
    keyword("initiator", REFERENCE, "Nickname or tls:NAME of the initiator. Default: all."),
    role=Role.MONITOR,
    returns=(CERTIFICATE,),
)
def show_initiator_certificates(context: Context, initiator: str | None = None) -> Reply:
    system = context.system
    now = system.clock.now()
    found = system.certificates.all(None if initiator is None else _tls_name(system, initiator))
    return Reply(rows=tuple(CERTIFICATE.row(CertificateView(each, now)) for each in found))


def _check_revocable(context: Context, serial: str | None = None, initiator: str | None = None) -> None:
    _check_one(serial, initiator)
    if serial is not None:
        context.system.certificates.check_revocable(serial.lower())
    else:
        _tls_name(context.system, str(initiator))


def _question(context: Context, serial: str | None = None, initiator: str | None = None) -> str:
    del context
    whose = f"certificate {serial}" if serial is not None else f"all certificates of initiator {initiator}"
    return f"Revoke {whose}? Hosts that use it are disconnected. This cannot be undone."


@COMMANDS.command(
    "revoke initiator-certificate",
    "Revokes a certificate, or all certificates of an initiator, and disconnects the hosts that use them. This cannot "
    "be undone, but a new certificate can be created. Give either serial or initiator.",
    keyword("serial", SERIAL, "Serial number of the certificate, as in `show initiator-certificates`."),
    keyword(
        "initiator",
        REFERENCE,
        "Nickname or tls:NAME of the initiator. Also certificates that are not on record are revoked.",
    ),
    confirmation=_question,
    examples=("revoke initiator-certificate initiator tls:web1",),
    acts_on=("serial", "initiator"),
    acceptance=_check_revocable,
)
def revoke_initiator_certificate(context: Context, serial: str | None = None, initiator: str | None = None) -> Reply:
    system = context.system
    now = system.clock.now()
    if serial is not None:
        revoked = system.certificates.revoke(serial.lower(), now)
        what = f"Certificate {revoked.serial} of initiator tls:{revoked.name} was revoked"
    else:
        name = _tls_name(system, str(initiator))
        count = system.certificates.revoke_all(name, now)
        what = f"All certificates of initiator tls:{name} were revoked, {count} of them on record and valid"
    system.events.report(INITIATOR_CERTIFICATE_REVOKED, f"{what}, by user {context.user.name}.")
    left = sum(target.recheck() for target in system.targets)
    still = f" {left} connections are still open, because the disk does not answer." if left else ""
    return Reply(f"{what}.{still}")


def _check_one(serial: str | None, initiator: str | None) -> None:
    if (serial is None) == (initiator is None):
        raise BadParameter("give either serial, for one certificate, or initiator, for all its certificates")


def _tls_name(system: System, initiator: str) -> str:
    (id,) = resolve_initiators(system, [initiator])
    if id is None or not id.startswith("tls:"):
        raise BadParameter(
            f"initiator {shown(initiator)} cannot have certificates; only an initiator named tls:NAME can"
        )
    return id.removeprefix("tls:")
