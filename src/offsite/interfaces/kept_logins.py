"""Logins of programs that send name and password with every request, as Prometheus does.

Checking a password costs a tenth of a second on purpose. So each login is checked once and stands for a
session, which ends as any other does: half an hour after its last use, when the password or the role of its
user changes, or when the user is deleted.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading

from offsite.management.sessions import SessionExpired, Sessions
from offsite.management.users import User, Users

KEPT_MAX = 16


class KeptLogins:
    """Safe to use from any thread."""

    def __init__(self, users: Users, sessions: Sessions) -> None:
        self._users = users
        self._sessions = sessions
        self._salt = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._keys: dict[bytes, str] = {}  # keys of sessions, by a hash of name and password; oldest first

    def user(self, name: str, password: str, source: str) -> User:
        """As `Users.authenticate`, and as often as that when the login is a wrong one."""
        login = hmac.digest(self._salt, repr((name, password)).encode(), hashlib.sha256)
        with self._lock:
            key = self._keys.get(login)
        if key is not None:
            try:
                return self._sessions.user(key)
            except SessionExpired:
                with self._lock:
                    self._keys.pop(login, None)
        user = self._users.authenticate(name, password, source)
        key = self._sessions.open(user)
        with self._lock:
            self._keys[login] = key
            if len(self._keys) > KEPT_MAX:
                del self._keys[next(iter(self._keys))]
        return user
