"""Users, their roles and their passwords.

A password is kept as its argon2id hash (RFC 9106). Verifying one is made costly, so it is bounded: few at a
time, a cap on the length, and after some failures from one source a pause before the next try. A user who
does not exist costs the same time as a wrong password, so that names cannot be found out.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import Connection, delete, func, insert, select, update

from offsite.clock import Clock
from offsite.errors import AuthenticationFailed, BadParameter, InUse, NameInUse, ObjectNotFound
from offsite.events import LOGIN_FAILED, USER_CHANGED, Report
from offsite.management.table import Role
from offsite.management.values import shown
from offsite.names import check_name
from offsite.store.database import Database
from offsite.store.tables.management import users as table

FIRST_USER = "manage"
PASSWORD_BYTES_MIN = 8
PASSWORD_BYTES_MAX = 256
USERS_MAX = 64
VERIFICATIONS_AT_ONCE = 2  # each takes 64 MiB and a core for some 50 ms
VERIFICATION_WAIT_SECONDS = 10.0
FAILURES_MAX = 5  # from one source, then it waits
PAUSE_SECONDS = 30.0
SOURCES_MAX = 1024


@dataclass(frozen=True, slots=True)
class User:
    name: str
    role: Role


class Users:
    """The users of a system. Safe to use from any thread."""

    def __init__(self, database: Database, report: Report, clock: Clock, hasher: PasswordHasher | None = None) -> None:
        """`hasher` is by default that of argon2-cffi: RFC 9106's second recommended set, 64 MiB and 3 passes."""
        self._database = database
        self._report = report
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._verifications = threading.BoundedSemaphore(VERIFICATIONS_AT_ONCE)
        self._failures = Failures(clock)

    def create(self, name: str, password: str, role: Role) -> None:
        """Raises BadParameter for a name or password outside its rules, NameInUse, InUse for one too many."""
        _check_user_name(name)
        check_password(password)
        password_hash = self._hasher.hash(password)
        with self._database.transaction() as connection:
            if _find(connection, name) is not None:
                raise NameInUse(f"user {name!r} exists already; choose another name")
            if connection.execute(select(func.count()).select_from(table)).scalar_one() >= USERS_MAX:
                raise InUse(f"there are {USERS_MAX} users, and no more are allowed; delete one first")
            connection.execute(
                insert(table).values(
                    name=name, password_hash=password_hash, role=role.word, created_at=self._clock.now()
                )
            )
        self._report(USER_CHANGED, f"User {name} was created with the role {role.word}.")

    def set_password(self, name: str, password: str) -> None:
        check_password(password)
        self._change(name, password_hash=self._hasher.hash(password))
        self._report(USER_CHANGED, f"The password of user {name} was changed.")

    def set_role(self, name: str, role: Role) -> None:
        """Raises InUse when no user with the role manage would remain."""
        self._change(name, role=role.word)
        self._report(USER_CHANGED, f"User {name} has the role {role.word} now.")

    def delete(self, name: str) -> None:
        """Raises ObjectNotFound, or InUse when no user with the role manage would remain."""
        with self._database.transaction() as connection:
            if connection.execute(delete(table).where(table.c.name == name)).rowcount == 0:
                raise _unknown(name)
            _check_one_manages(connection, name)
        self._report(USER_CHANGED, f"User {name} was deleted.")

    def get(self, name: str) -> User:
        with self._database.read() as connection:
            found = _find(connection, name)
        if found is None:
            raise _unknown(name)
        return found

    def all(self) -> list[User]:
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.name))
            return [User(each.name, Role[each.role.upper()]) for each in rows]

    def authenticate(self, name: str, password: str, source: str) -> User:
        """The user with this name and password, or AuthenticationFailed, which does not say what was wrong.

        `source` is where the attempt came from, for the pause after some failures, and for the event.
        """
        self._failures.check(source)
        user = self._check(name, password)
        if user is None:
            self._failures.add(source)
            self._report(LOGIN_FAILED, f"A login as {shown(name)} from {source} failed.")
            raise AuthenticationFailed("the user name or the password is wrong")
        self._failures.clear(source)
        return user

    def may_manage(self, name: str, password: str) -> bool:
        """For other systems, whose addresses replication keeps from guessing: is it a user who may manage?"""
        user = self._check(name, password)
        if user is None:
            self._report(LOGIN_FAILED, f"A login as {shown(name)} from another system failed.")
        return user is not None and user.role >= Role.MANAGE

    def _check(self, name: str, password: str) -> User | None:
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.name == name[:PASSWORD_BYTES_MAX])).first()
        right = self._verify(self._nobody if row is None else row.password_hash, password)
        return User(row.name, Role[row.role.upper()]) if right and row is not None else None

    def _verify(self, password_hash: str, password: str) -> bool:
        if len(password.encode()) > PASSWORD_BYTES_MAX:
            return False
        if not self._verifications.acquire(timeout=VERIFICATION_WAIT_SECONDS):
            raise AuthenticationFailed("too many logins are being checked just now; try again")
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False
        finally:
            self._verifications.release()

    def _change(self, name: str, **values: str) -> None:
        with self._database.transaction() as connection:
            if connection.execute(update(table).where(table.c.name == name).values(**values)).rowcount == 0:
                raise _unknown(name)
            _check_one_manages(connection, name)


class Failures:
    """Counts failed logins by where they came from, so that guessing is slow. Bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._of: dict[str, tuple[int, float]] = {}  # source: failures, time of the last one; oldest first

    def check(self, source: str) -> None:
        """Raises AuthenticationFailed while `source` has to wait."""
        with self._lock:
            count, last = self._of.get(source, (0, 0.0))
        wait_seconds = last + PAUSE_SECONDS - self._clock.monotonic()
        if count >= FAILURES_MAX and wait_seconds > 0:
            raise AuthenticationFailed(f"{count} logins from {source} failed; try again in {wait_seconds:.0f} seconds")

    def add(self, source: str) -> None:
        now = self._clock.monotonic()
        with self._lock:
            count, last = self._of.pop(source, (0, now))
            self._of[source] = (1 if now - last > PAUSE_SECONDS else count + 1, now)
            if len(self._of) > SOURCES_MAX:
                del self._of[next(iter(self._of))]

    def clear(self, source: str) -> None:
        with self._lock:
            self._of.pop(source, None)


def check_password(password: str) -> None:
    """Raises BadParameter, which never repeats the password."""
    length = len(password.encode())
    if not PASSWORD_BYTES_MIN <= length <= PASSWORD_BYTES_MAX:
        raise BadParameter(f"the password has {length} bytes; {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} are allowed")
    if not password.isprintable():
        raise BadParameter("the password has characters that cannot be printed; none of those is allowed")


def _check_user_name(name: str) -> None:
    check_name(name, "user name")
    if ":" in name:  # RFC 7617 section 2: it ends the user name of HTTP Basic authentication
        raise BadParameter(f"user name {name!r} has ':', which is not allowed")


def _check_one_manages(connection: Connection, name: str) -> None:
    manage = select(func.count()).select_from(table).where(table.c.role == Role.MANAGE.word)
    if connection.execute(manage).scalar_one() == 0:
        raise InUse(f"user {name!r} is the last one with the role manage; one has to remain")


def _find(connection: Connection, name: str) -> User | None:
    row = connection.execute(select(table).where(table.c.name == name)).first()
    return None if row is None else User(row.name, Role[row.role.upper()])


def _unknown(name: str) -> ObjectNotFound:
    return ObjectNotFound(f"user {shown(name)} does not exist; `show users` lists those there are")
