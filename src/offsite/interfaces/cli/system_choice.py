"""Which system the command line speaks to: by options, or by the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from offsite.interfaces.cli import client as clients
from offsite.interfaces.cli.conversation import is_terminal, secret, yes_or_no
from offsite.interfaces.cli.options import OptionError

if TYPE_CHECKING:
    from offsite.interfaces.cli.known_systems import Trust

PASSWORD_VARIABLE = "OFFSITE_PASSWORD"


@contextmanager
def connected(
    options: Mapping[str, str], environment: Mapping[str, str], *, asks: bool = True
) -> Iterator[clients.Client]:
    """A client of that system, logged in and, at the end, logged out. Raises OptionError when none is chosen.

    Where nobody is to be asked, what is not known already is refused."""
    state, url = _choice(options, environment)
    if state is not None:
        yield clients.local(Path(state).expanduser())
        return
    client = _remote(url, options, environment, asks=asks)
    client.log_in()
    try:
        yield client
    finally:
        client.log_out()


def _choice(options: Mapping[str, str], environment: Mapping[str, str]) -> tuple[str | None, str]:
    """State directory, or URL. An option goes before any variable."""
    if "state" in options and "system" in options:
        raise OptionError("--state and --system are both given; give only one")
    for given in (options.get, lambda name: environment.get(f"OFFSITE_{name.upper()}")):
        state, url = given("state"), given("system")
        if state:
            return state, ""
        if url:
            return None, url
    raise OptionError(
        "no system specified; give --state DIR or --system https://USER@HOST before or after the command, or set "
        "OFFSITE_STATE or OFFSITE_SYSTEM"
    )


def _remote(url: str, options: Mapping[str, str], environment: Mapping[str, str], *, asks: bool) -> clients.Client:
    from offsite.interfaces.cli.known_systems import TrustFile, TrustKnown, default_path

    user, host, port = clients.parse_system(url)
    certificate = options.get("certificate")
    if certificate:
        trust: Trust = TrustFile(Path(certificate))
    else:
        # --yes answers questions about commands; who gets the password is for somebody who has compared.
        trust = TrustKnown(
            default_path(environment), options.get("fingerprint"), yes_or_no if asks and is_terminal() else None
        )
    if not asks and PASSWORD_VARIABLE not in environment:
        raise OptionError(f"the password is not asked for here; set {PASSWORD_VARIABLE}")
    password = secret(f"Logging in as {user} to {host}.", PASSWORD_VARIABLE, environment)
    return clients.remote(host, port, user, password, trust)
