"""Users, their roles and their passwords.

A password is kept as its argon2id hash (RFC 9106). Verifying one is made costly, so it is bounded: few at a
time, few that wait, a cap on the length, and limits on guessing (login_throttle). A user who does not exist
costs the same time as a wrong password, so that names cannot be found out.

Each user has a generation, a random word that is new whenever the user is made, or gets another password or role.
Whoever was let in as an earlier one is let in no more, also when a user of the same name is made later.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from offsite.clock import Clock
from offsite.errors import (
    AuthenticationFailed,
    BadParameter,
    ErrorClass,
    InUse,
    LimitReached,
    NameInUse,
    ObjectNotFound,
)
from offsite.escaping import shown
from offsite.events import LOGIN_FAILED, LOGINS_LIMITED, USER_CHANGED, Report
from offsite.management.accounts.login_throttle import Outcome, Refusal, Throttle, Ticket
from offsite.management.accounts.tables import users as table
from offsite.management.command_table.command import Role
from offsite.names import check_name
from offsite.return_codes import ReturnCode
from offsite.store.database import Database

FIRST_USER = "manage"
PASSWORD_BYTES_MIN = 8
PASSWORD_BYTES_MAX = 256
USERS_MAX = 64
VERIFICATIONS_AT_ONCE = 2  # each takes 64 MiB and a core for some 50 ms; one more for users known where they are
WAITING_MAX = {True: 32, False: 8}  # attempts of users known where they are, and others
WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class User:
    name: str
    role: Role
    generation: str = field(default="", compare=False)  # none: let in by something else than a record


LOCAL_USER = User("local", Role.MANAGE)
"""Whoever may use the control socket: the kernel says so, and no record."""


Kept = Callable[[], User | None]


class UserChanged(AuthenticationFailed):
    """The user was deleted, or got another password or role, after they were let in."""

    code = ReturnCode.USER_CHANGED


class TooManyLogins(AuthenticationFailed):
    """The password was not checked: too many were wrong, or are being checked."""

    code = ReturnCode.TOO_MANY_LOGINS
    error_class = ErrorClass.TRANSIENT


class Users:
    """The users of a system. Safe to use from any thread."""

    def __init__(self, database: Database, report: Report, clock: Clock, hasher: PasswordHasher | None = None) -> None:
        """`hasher` is by default that of argon2-cffi: RFC 9106's second recommended set, 64 MiB and 3 passes."""
        self._database = database
        self._report = report
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._throttle = Throttle()
        self._settled = threading.Condition()  # guards the throttle, and `_waiting`
        self._waiting = {True: 0, False: 0}  # attempts that wait, by whether their user is known where they are
        self._verifications = {
            False: threading.BoundedSemaphore(VERIFICATIONS_AT_ONCE),
            True: threading.BoundedSemaphore(1),
        }

    def create(self, name: str, password: str, role: Role) -> None:
        """Raises BadParameter for a name or password outside its rules, NameInUse, LimitReached for one too many."""
        _check_user_name(name)
        check_password(password)
        password_hash = self._hasher.hash(password)
        with self._database.transaction() as connection:
            if _find(connection, name) is not None:
                raise NameInUse(f"user {name!r} already exists; choose another name")
            if connection.execute(select(func.count()).select_from(table)).scalar_one() >= USERS_MAX:
                raise LimitReached(f"there are {USERS_MAX} users, which is the maximum; delete one first")
            connection.execute(
                insert(table).values(
                    name=name,
                    password_hash=password_hash,
                    role=role.word,
                    created_at=self._clock.now(),
                    generation=_new_generation(),
                )
            )
        self._report(USER_CHANGED, f"User {name} was created with the role {role.word}.")

    def set_password(self, name: str, password: str) -> None:
        check_password(password)
        password_hash = self._hasher.hash(password)
        with self._database.transaction() as connection:
            _change(connection, name, password_hash=password_hash)
        self._report(USER_CHANGED, f"The password of user {name} was changed.")

    def set_role(self, name: str, role: Role) -> None:
        """Raises InUse when no user with the role manage would remain."""
        with self._database.transaction() as connection:
            _check_dispensable(connection, name, role)
            _change(connection, name, role=role.word)
        self._report(USER_CHANGED, f"User {name} now has the role {role.word}.")

    def delete(self, name: str) -> None:
        """Raises ObjectNotFound, or InUse when no user with the role manage would remain."""
        with self._database.transaction() as connection:
            _check_dispensable(connection, name)
            connection.execute(delete(table).where(table.c.name == name))
        self._report(USER_CHANGED, f"User {name} was deleted.")

    def check_dispensable(self, name: str, role: Role | None = None) -> None:
        """Whether the user could be deleted, or get this role. Raises ObjectNotFound, or InUse when no user with the
        role manage would remain."""
        with self._database.read() as connection:
            _check_dispensable(connection, name, role)

    def get(self, name: str) -> User:
        with self._database.read() as connection:
            found = _find(connection, name)
        if found is None:
            raise _unknown(name)
        return found

    def all(self) -> list[User]:
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.name))
            return [_user(each) for each in rows]

    def current(self, user: User) -> User:
        """Raises UserChanged unless `user` is still as they were let in."""
        if not user.generation:
            return user
        with self._database.read() as connection:
            found = _find(connection, user.name)
        if found is None or found.generation != user.generation:
            raise UserChanged(f"user {shown(user.name)} was changed or deleted after the login; log in again")
        return found

    def authenticate(self, name: str, password: str, address: str, kept: Kept | None = None) -> User:
        """The user with this name and password, or AuthenticationFailed, which does not say what was wrong.

        `address` is where the attempt came from, for the limits on guessing, and for the event. `kept` gives the user
        when the same login was checked before, which spares the check of the password.
        """
        with self._attempt(name, address) as attempt:
            if kept is not None:
                if (user := kept()) is not None:
                    return user  # it counts for nothing: not as a failure, and forgives none
                attempt.outcome = "failed"  # also if its password is not checked: it was compared with kept ones
            user = self._check(name, password, attempt.ticket.is_known)
            attempt.outcome = "failed" if user is None else "succeeded"
        if user is None:
            self._report(LOGIN_FAILED, f"A login as {shown(name)} from {address} failed.")
            raise AuthenticationFailed("the user name or the password is wrong")
        return user

    def may_manage(self, name: str, password: str, address: str) -> bool:
        """For another system at `address`: is it a user who may manage? Raises TooManyLogins.

        A right password of a user who may not counts as a wrong one, so that it cannot be told from one here.
        """
        with self._attempt(name, address) as attempt:
            user = self._check(name, password, attempt.ticket.is_known)
            allowed = user is not None and user.role >= Role.MANAGE
            attempt.outcome = "succeeded" if allowed else "failed"
        if not allowed:
            self._report(LOGIN_FAILED, f"A login as {shown(name)} from a system at {address} failed.")
        return allowed

    @contextmanager
    def _attempt(self, name: str, address: str) -> Iterator[_Attempt]:
        """Counts an attempt as long as it lasts, and after that by its outcome. Raises TooManyLogins."""
        attempt = _Attempt(self._admit(name[:PASSWORD_BYTES_MAX], address))
        try:
            yield attempt
        finally:
            with self._settled:
                self._throttle.settle(attempt.ticket, attempt.outcome, self._clock.monotonic())
                self._settled.notify_all()

    def _admit(self, name: str, address: str) -> Ticket:
        until = monotonic() + WAIT_SECONDS
        with self._settled:
            while (asked := self._throttle.ask(name, address, self._clock.monotonic())) is None:
                known = self._throttle.is_known(name, address, self._clock.monotonic())
                self._wait(known=known, until=until)
        if isinstance(asked, Ticket):
            return asked
        self._tell(asked, name)
        raise TooManyLogins(f"too many logins {asked.whose} failed; try again in {asked.wait_seconds:.0f} seconds")

    def _wait(self, *, known: bool, until: float) -> None:
        """With `_settled` held: until another attempt has ended. Raises TooManyLogins."""
        left = until - monotonic()
        if self._waiting[known] >= WAITING_MAX[known] or left <= 0:
            raise TooManyLogins("too many logins are being checked; try again in a moment")
        self._waiting[known] += 1
        try:
            self._settled.wait(left)
        finally:
            self._waiting[known] -= 1

    def _tell(self, refusal: Refusal, name: str) -> None:
        if refusal.is_first:
            self._report(
                LOGINS_LIMITED,
                f"Too many logins {refusal.whose} failed within a minute, the last one as {shown(name)}: further ones "
                "are refused without a check. Users can still log in from addresses from which they logged in before.",
            )

    def _check(self, name: str, password: str, is_known: bool) -> User | None:
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.name == name[:PASSWORD_BYTES_MAX])).first()
        right = self._verify(self._nobody if row is None else row.password_hash, password, is_known)
        return self.current(_user(row)) if right and row is not None else None

    def _verify(self, password_hash: str, password: str, is_known: bool) -> bool:
        if len(password.encode(errors="surrogatepass")) > PASSWORD_BYTES_MAX:
            return False
        places = self._verifications[is_known]
        until = monotonic() + WAIT_SECONDS
        with self._settled:
            while not places.acquire(blocking=False):
                self._wait(known=is_known, until=until)
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False
        finally:
            places.release()
            with self._settled:
                self._settled.notify_all()


@dataclass(slots=True)
class _Attempt:
    ticket: Ticket
    outcome: Outcome = "not checked"


def check_password(password: str) -> None:
    """Raises BadParameter, which never repeats the password."""
    length = len(password.encode(errors="surrogatepass"))
    if not PASSWORD_BYTES_MIN <= length <= PASSWORD_BYTES_MAX:
        raise BadParameter(f"the password has {length} bytes; {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} are allowed")
    if not password.isprintable():
        raise BadParameter("the password contains unprintable characters, which are not allowed")


def _check_user_name(name: str) -> None:
    check_name(name, "user name")
    if ":" in name:  # RFC 7617 section 2: it ends the user name of HTTP Basic authentication
        raise BadParameter(f"user name {name!r} contains ':', which is not allowed")
    if name == LOCAL_USER.name:
        raise BadParameter(f"user name {name!r} is reserved for users of the control socket; choose another name")


def _change(connection: Connection, name: str, **values: str) -> None:
    change = update(table).where(table.c.name == name).values(**values, generation=_new_generation())
    if connection.execute(change).rowcount == 0:
        raise _unknown(name)


def _check_dispensable(connection: Connection, name: str, role: Role | None = None) -> None:
    """Whether the user may do without their present role, which `role` takes the place of."""
    if _find(connection, name) is None:
        raise _unknown(name)
    others = select(func.count()).where(table.c.role == Role.MANAGE.word, table.c.name != name)
    if role is not Role.MANAGE and connection.execute(others).scalar_one() == 0:
        raise InUse(f"user {name!r} is the last one with the role manage; one such user is required")


def _find(connection: Connection, name: str) -> User | None:
    row = connection.execute(select(table).where(table.c.name == name)).first()
    return None if row is None else _user(row)


def _user(row: Row[Any]) -> User:
    return User(row.name, Role[row.role.upper()], row.generation)


def _new_generation() -> str:
    return secrets.token_hex(16)


def _unknown(name: str) -> ObjectNotFound:
    return ObjectNotFound(f"user {shown(name)} does not exist; `show users` lists all users")
