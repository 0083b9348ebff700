"""Which parameters the URL of a notice may have, by its service, in apprise's own parse of the URL.

Many that apprise knows make it read files of this machine (`template`, `pgpprv`), fetch addresses (`attach`), or wait
and try again by itself, which is done here. So there is a list of what is taken, and anything else is refused, also
what a newer apprise brings. What the receiving end does with a parameter is not this system's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offsite.errors import BadParameter

_OF_ALL = frozenset({"verify"})  # whether certificates are checked: an operator's choice
_HEADERS, _ALL_OWN = ("+",), ("+", "-", ":")

# fmt: off
_ALLOWED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "apprise": ("method version to tags", _HEADERS),
    "discord": ("tts avatar thread footer fields flags ping batch", ()),
    "form": ("method", _ALL_OWN),
    "gchat": ("workspace key token thread", ()),
    "gotify": ("priority", ()),
    "ilert": ("key dedup priority route", ()),
    "incidentio": ("source token dedup", ()),
    "jira": ("region batch priority entity alias tags to", ()),
    "json": ("method", _ALL_OWN),
    "mailgun": ("name from region to cc bcc batch", ()),
    "mailto": ("from name smtp mode reply to cc bcc", ()),
    "matrix": ("mode version msgtype token to", ()),
    "mmost": ("channel channels team botname mode to", ()),
    "nctalk": ("secret silent url_prefix", _HEADERS),
    "ntfy": ("delay email priority xtags mode token auth to", ()),
    "opsgenie": ("region priority entity alias tags to batch", ()),
    "pagerduty": ("group class region severity dedup", ()),
    "pbul": ("to", ()),
    "pover": ("priority sound interval expire to", ()),
    "rocket": ("mode avatar webhook to", ()),
    "rsyslog": ("facility logpid", ()),
    "sendgrid": ("to cc bcc", ()),
    "signal": ("from status to batch", ()),
    "slack": ("footer timestamp mode token to", ()),
    "splunk": ("apikey routing_key route entity_id", ()),
    "squadcast": ("key region dedup priority", ()),
    "synology": ("token", _HEADERS),
    "tgram": ("detect silent preview topic thread to", ()),
    "twilio": ("from sid token apikey method to", ()),
    "webex": ("token mode to", ()),
    "workflow": ("id pa powerautomate route routeid wrap sig ver api-version sp sv", ()),
    "xml": ("method", _ALL_OWN),
    "zulip": ("to token", ()),
}
# fmt: on
_OTHER_NAMES = {"victorops": "splunk", "wxteams": "webex"}


def check_parameters(parsed: Mapping[str, Any]) -> None:
    """Raises BadParameter for what must not be in a URL that apprise has parsed so; without any value of it."""
    schema = str(parsed["schema"]).lower()
    service = _service(schema)
    words, prefixes = _ALLOWED[service]
    allowed = _OF_ALL | set(words.split())
    for name, value in parsed["qsd"].items():
        if not f"{name}{value}".isprintable():
            raise BadParameter("the URL has parameters with unprintable characters")
        if name.lower().strip() not in allowed and not name.startswith(prefixes):
            taken = ", ".join([*sorted(allowed), *(f"{prefix}NAME" for prefix in prefixes)])
            raise BadParameter(
                f"the URL has the parameter {name[:32]!r}, which {schema}:// does not accept; leave it out. Accepted "
                f"parameters: {taken}"
            )


def _service(schema: str) -> str:
    """The key of `_ALLOWED`: a scheme with `s` at its end is the same over TLS."""
    name = _OTHER_NAMES.get(schema, schema)
    return name if name in _ALLOWED else name.removesuffix("s")
