"""Who is logged in: session keys, kept in memory only.

A session ends half an hour after its last use, twelve hours after the login, by logout, and as soon as its user is
deleted or gets another password or role: the user is looked up at each request.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from offsite.clock import Clock
from offsite.errors import AuthenticationFailed
from offsite.management.accounts.users import USERS_MAX, User, UserChanged
from offsite.return_codes import ReturnCode

IDLE_SECONDS = 1800.0  # as on ME4
LIFETIME_SECONDS = 12 * 3600.0
SESSIONS_OF_USER_MAX = 32  # so that nobody ends sessions of others by opening many
SESSIONS_MAX = USERS_MAX * SESSIONS_OF_USER_MAX


class SessionExpired(AuthenticationFailed):
    """A session key that is unknown, has expired, or belongs to a user whose role or password changed."""

    code = ReturnCode.SESSION_EXPIRED


@dataclass(frozen=True, slots=True)
class _Session:
    user: User
    opened_at: float  # monotonic
    used_at: float


class Sessions:
    """The sessions of a system. Safe to use from any thread."""

    def __init__(self, clock: Clock, current: Callable[[User], User]) -> None:
        """`current` gives a user as they are now, or raises UserChanged."""
        self._clock = clock
        self._current = current
        self._lock = threading.Lock()
        # By the key's hash, so that how long a look-up takes tells nothing of a key. Longest unused first.
        self._sessions: dict[bytes, _Session] = {}

    def open(self, user: User) -> str:
        """A new session's key: 128 random bits in hex. With too many of the user, the one unused for longest ends."""
        key = secrets.token_hex(16)
        now = self._clock.monotonic()
        with self._lock:
            self._sessions[_hashed(key)] = _Session(user, now, now)
            own = [hashed for hashed, each in self._sessions.items() if each.user.name == user.name]
            for hashed in own[:-SESSIONS_OF_USER_MAX]:
                del self._sessions[hashed]
        return key

    def user(self, key: str) -> User:
        """Whose session it is, as they are now; its half hour starts anew. Raises SessionExpired."""
        hashed, now = _hashed(key), self._clock.monotonic()
        with self._lock:
            found = self._sessions.pop(hashed, None)
            if found is None or now - found.used_at > IDLE_SECONDS or now - found.opened_at > LIFETIME_SECONDS:
                raise SessionExpired("Invalid sessionkey")
            self._sessions[hashed] = replace(found, used_at=now)
        try:
            return self._current(found.user)
        except UserChanged as error:
            self.close(key)
            raise SessionExpired("Invalid sessionkey") from error

    def close(self, key: str) -> None:
        with self._lock:
            self._sessions.pop(_hashed(key), None)

    def close_all(self, user_name: str) -> None:
        """Forgets the sessions of a user who was changed or deleted: they are over in any case."""
        with self._lock:
            for hashed, each in list(self._sessions.items()):
                if each.user.name == user_name:
                    del self._sessions[hashed]


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
