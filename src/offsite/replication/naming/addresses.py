"""Addresses of systems, as people write them. No I/O here."""

from __future__ import annotations

from offsite.errors import BadParameter

PEER_PORT = 7443
HOST_CHARACTERS_MAX = 255
_NOT_IN_HOSTS = "\"'<>,;/\\@[]()"


def check_host(host: str) -> str:
    """Returns `host`, or raises BadParameter: what can be neither a name nor an address of a machine."""
    bad = sorted({each for each in host if each in _NOT_IN_HOSTS or each.isspace() or not each.isprintable()})
    if not 1 <= len(host) <= HOST_CHARACTERS_MAX or bad:
        raise BadParameter(
            f"host {host[:100]!r} is neither a host name nor an IP address of at most {HOST_CHARACTERS_MAX} characters"
        )
    return host


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of HOST, HOST:PORT, or [IPv6]:PORT. Raises BadParameter."""
    host, port = text.strip(), str(PEER_PORT)
    if host.startswith("["):
        host, closed, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
        if not closed or not rest.startswith(":" if rest else ""):
            host = ""
    elif host.count(":") == 1:
        host, port = host.split(":")
    try:
        check_host(host)
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise BadParameter(f"port {port[:100]!r} is outside 1 to 65535")
    except BadParameter as error:
        raise BadParameter(
            f"address {text[:300]!r} is not HOST, HOST:PORT or [IPv6]:PORT with a port of 1 to 65535: {error}"
        ) from error
    return host, int(port)


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
