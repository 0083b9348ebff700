"""The URLs that notices go to: which are taken, what of them may be shown, and sending to one.

A URL holds secrets nearly everywhere: as its user, its password, its host, parts of its path, its parameters.
So nothing of it is ever part of a sentence or a log line but its scheme, and its host where that is a server
and not a token. apprise is loaded when it is needed first: that takes half a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from offsite.errors import BadParameter, ErrorClass, OffsiteError
from offsite.events import Severity
from offsite.management.notices.parameters import check_parameters
from offsite.return_codes import ReturnCode

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase

URL_BYTES_MAX = 4096
REASON_CHARACTERS_MAX = 300

# fmt: off
SERVERS = frozenset({
    "apprise", "apprises", "form", "forms", "gotify", "gotifys", "https", "json", "jsons", "mailto", "mailtos",
    "matrix", "matrixs", "mmost", "mmosts", "nctalk", "nctalks", "rocket", "rockets", "rsyslog", "signal", "signals",
    "synology", "synologys", "xml", "xmls",
})
"""Schemes whose host is a server, and may be shown."""

SCHEMES = SERVERS | {
    "discord", "gchat", "ilert", "incidentio", "jira", "mailgun", "ntfy", "ntfys", "opsgenie", "pagerduty", "pbul",
    "pover", "sendgrid", "slack", "splunk", "squadcast", "tgram", "twilio", "victorops", "webex", "workflow",
    "workflows", "wxteams", "zulip",
}
"""Schemes that are taken: they send over the network, and do nothing else. apprise knows others that show
windows on this machine's desktop, write to its log, or read and write its files. `https` is the URL of a web
hook as Slack, Discord and others give it out."""
# fmt: on

_LIBRARIES = ("apprise", "urllib3", "requests")
_SHORTEST_SECRET_CHARACTERS = 3
_HIDDEN = "\N{HORIZONTAL ELLIPSIS}"


class NoticeNotSent(OffsiteError):
    """The service of a notice did not take a message; the sentence says why, without the URL."""

    code = ReturnCode.NOTICE_NOT_SENT
    error_class = ErrorClass.TRANSIENT


def check_url(url: str) -> None:
    """Raises BadParameter for a URL that no notice can be sent to; its sentence has nothing secret in it."""
    if not 1 <= len(url.encode(errors="surrogatepass")) <= URL_BYTES_MAX or not url.isprintable() or " " in url:
        raise BadParameter(f"the URL must have 1 to {URL_BYTES_MAX} bytes, without spaces and unprintable characters")
    scheme = _scheme(url)
    if scheme not in SCHEMES:
        raise BadParameter(f"the URL does not begin with a supported scheme: {', '.join(sorted(SCHEMES))}")
    Service(url)


def shown_url(url: str) -> str:
    """What may be shown of `url`."""
    scheme = _scheme(url)
    try:
        parts = urlsplit(url)
        host = parts.hostname if scheme in SERVERS else None
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:  # no host, no port: apprise reads some that RFC 3986 does not know
        return f"{scheme}://{_HIDDEN}"
    return f"{scheme}://{host}{port}/{_HIDDEN}" if host else f"{scheme}://{_HIDDEN}"


class Service:
    """What a URL stands for. One thread at a time may send."""

    def __init__(self, url: str) -> None:
        """Raises BadParameter when apprise makes nothing of the URL, or when it must not have what it has."""
        self._secrets = _secrets(url)
        with _reasons() as reasons:
            service = _instantiate(url)
        if service is None or not SCHEMES & _schemes(service):
            raise BadParameter(
                f"invalid {_scheme(url)}:// URL{_reason(reasons, self._secrets)}; see https://appriseit.com/services/ "
                "for its syntax"
            )
        self._service = service

    @property
    def title_characters(self) -> int:
        return int(self._service.title_maxlen)

    @property
    def body_characters(self) -> int:
        return int(self._service.body_maxlen)

    def send(self, title: str, body: str, severity: Severity) -> None:
        """Sends one message, and waits until the service took it. Raises NoticeNotSent."""
        from apprise import NotifyType

        types = {
            Severity.INFORMATIONAL: NotifyType.INFO,
            Severity.RESOLVED: NotifyType.SUCCESS,
            Severity.WARNING: NotifyType.WARNING,
        }
        with _reasons() as reasons:
            try:
                done = self._service.notify(title=title, body=body, notify_type=types.get(severity, NotifyType.FAILURE))
            except Exception as error:  # noqa: BLE001 - a plugin of apprise may raise anything
                # Its own words are left out, as nobody knows what they repeat.
                raise NoticeNotSent(f"cannot send: {type(error).__name__}") from None
        if not done:
            raise NoticeNotSent(f"the service did not accept the message{_reason(reasons, self._secrets)}")


def _instantiate(url: str) -> NotifyBase | None:
    """What was looked at is what is used: the URL is parsed once."""
    from apprise import Apprise, AppriseAsset, plugins
    from apprise.common import PersistentStoreMode

    asset = AppriseAsset(
        app_id="Offsite",
        app_desc="Offsite",
        storage_mode=PersistentStoreMode.MEMORY,  # it keeps nothing on disk
        plugin_paths=[],
        secure_logging=True,
        http_redirects=False,  # or the other end could have this system fetch any address
    )
    parsed = plugins.url_to_dict(url, secure_logging=True)  # type: ignore[no-untyped-call]
    if parsed is None or str(parsed.get("schema")).lower() not in SCHEMES:
        return None
    check_parameters(parsed)
    if parsed["schema"] in ("matrix", "matrixs"):
        parsed["discovery"] = False  # as a redirect
    return Apprise.instantiate(parsed, asset=asset)


def _schemes(service: NotifyBase) -> set[str]:
    found: set[str] = set()
    for each in (service.protocol, service.secure_protocol):  # one, several, or none
        found |= {each} if isinstance(each, str) else set(each or ())
    return found


class _Reasons(logging.Handler):
    """The warnings that libraries log in one thread: apprise says only there why something failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self.lines) < 10:
            self.lines.append(record.getMessage())


@contextmanager
def _reasons() -> Iterator[list[str]]:
    """What the libraries have to say meanwhile. It reaches no log, for parts of the URL may be in it."""
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # without one, warnings would go to stderr
    handler = _Reasons()
    apprise = logging.getLogger(_LIBRARIES[0])
    apprise.addHandler(handler)
    try:
        yield handler.lines
    finally:
        apprise.removeHandler(handler)


def _reason(lines: list[str], secrets: list[str]) -> str:
    """The newest of what was said, without anything of the URL."""
    text = " ".join(lines[-1:]).replace("\r", " ").replace("\n", " ")
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    text = "".join(each if each.isprintable() else " " for each in text).strip().rstrip(".")
    return f": {text[:REASON_CHARACTERS_MAX]}" if text else ""


def _secrets(url: str) -> list[str]:
    """All of a URL that must not be repeated, longest first: everything but what `shown_url` shows."""
    _, _, rest = url.partition("://")
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    user, _, host = authority.rpartition("@")
    pieces = [rest, *user.split(":"), user, *path.split("/"), path]
    if _scheme(url) not in SERVERS:
        pieces += [authority, *host.split(":")]
    pieces += [value for _, value in parse_qsl(query)]
    both = {form for piece in pieces for form in (piece, unquote(piece))}
    return sorted((each for each in both if len(each) >= _SHORTEST_SECRET_CHARACTERS), key=len, reverse=True)


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else ""
