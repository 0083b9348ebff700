"""The rules for names of volumes, snapshots, pools, peers and sets (ME4 administrator's guide)."""

from __future__ import annotations

from offsite.errors import BadParameter

NAME_BYTES_MAX = 32
FORBIDDEN = '",<\\'


def check_name(name: str, what: str) -> str:
    """Returns `name`, or raises BadParameter that tells which rule it breaks.

    `what` is the noun for the sentence: "volume name". The limit counts UTF-8 bytes, as on ME4.
    """
    size = len(name.encode(errors="surrogatepass"))
    if not name or size > NAME_BYTES_MAX:
        raise BadParameter(f"{what} {name!r} has {size} bytes; 1 to {NAME_BYTES_MAX} are allowed")
    bad = sorted({c for c in name if c in FORBIDDEN or not c.isprintable()})
    if bad:
        raise BadParameter(
            f'{what} {name!r} contains {" ".join(map(repr, bad))}; " , < \\ and unprintable characters are not allowed'
        )
    if name != name.strip():
        raise BadParameter(f"{what} {name!r} begins or ends with a space, which is not allowed")
    return name
