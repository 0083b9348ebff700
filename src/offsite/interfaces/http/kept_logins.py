"""Logins of programs that send name and password with every request, as Prometheus does.

Checking a password costs a tenth of a second on purpose. So each login is checked once and stands for a
session, which ends as any other does: half an hour after its last use, when the password or the role of its
user changes, or when the user is deleted.

A kept login is looked for as a part of an attempt that the limits on guessing count, and is kept for the network that
it came from: nobody guesses here more often than elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading

from offsite.admission import network_of
from offsite.management.accounts.sessions import SessionExpired, Sessions
from offsite.management.accounts.users import User, Users

KEPT_MAX = 16


class KeptLogins:
    """Safe to use from any thread."""

    def __init__(self, users: Users, sessions: Sessions) -> None:
        self._users = users
        self._sessions = sessions
        self._salt = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._keys: dict[bytes, str] = {}  # of sessions, by a hash of who, password and network; oldest first

    def user(self, name: str, password: str, source: str) -> User:
        """As `Users.authenticate`, and as often as that when the login is a wrong one."""
        login = hmac.digest(self._salt, repr((name, password, network_of(source))).encode(), hashlib.sha256)
        user = self._users.authenticate(name, password, source, lambda: self._kept(login))
        with self._lock:
            is_kept = login in self._keys
        if not is_kept:
            self._keep(login, self._sessions.open(user))
        return user

    def _kept(self, login: bytes) -> User | None:
        with self._lock:
            key = self._keys.get(login)
        try:
            return None if key is None else self._sessions.user(key)
        except SessionExpired:
            with self._lock:
                self._keys.pop(login, None)
            return None

    def _keep(self, login: bytes, key: str) -> None:
        with self._lock:
            self._keys[login] = key
            if len(self._keys) > KEPT_MAX:
                del self._keys[next(iter(self._keys))]
