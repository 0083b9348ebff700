"""Who is logged in: session keys, kept in memory only, each good for half an hour after its last use."""

from __future__ import annotations

import hashlib
import secrets
import threading

from offsite.clock import Clock
from offsite.errors import AuthenticationFailed
from offsite.management.users import User

IDLE_SECONDS = 1800.0  # as on ME4
SESSIONS_MAX = 256


class SessionExpired(AuthenticationFailed):
    """A session key that is unknown, has expired, or belongs to a user whose role or password changed."""

    code = -10027


class Sessions:
    """The sessions of a system. Safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By the key's hash, so that how long a look-up takes tells nothing of a key. Longest unused first.
        self._sessions: dict[bytes, tuple[User, float]] = {}

    def open(self, user: User) -> str:
        """A new session's key: 32 hex digits. With too many sessions, the one unused for longest ends."""
        key = secrets.token_hex(16)
        with self._lock:
            self._sessions[_hashed(key)] = (user, self._clock.monotonic())
            if len(self._sessions) > SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
        return key

    def user(self, key: str) -> User:
        """Whose session it is; its half hour starts anew. Raises SessionExpired."""
        hashed, now = _hashed(key), self._clock.monotonic()
        with self._lock:
            found = self._sessions.pop(hashed, None)
            if found is not None and now - found[1] <= IDLE_SECONDS:
                self._sessions[hashed] = (found[0], now)
                return found[0]
        raise SessionExpired("Invalid sessionkey")

    def close(self, key: str) -> None:
        with self._lock:
            self._sessions.pop(_hashed(key), None)

    def close_all(self, user_name: str) -> None:
        """Ends the sessions of a user whose password or role changed, or who was deleted."""
        with self._lock:
            for hashed, (user, _) in list(self._sessions.items()):
                if user.name == user_name:
                    del self._sessions[hashed]


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
