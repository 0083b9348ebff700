"""Users: create, set, delete, show."""

from __future__ import annotations

from offsite.management.accounts.users import User
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, keyword, positional, secret
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Reply
from offsite.management.startup import first_password
from offsite.management.system import Context

COMMANDS = Subject("Users")

USER = ObjectType[User](
    "users",
    "user",
    (
        properties.text("username", lambda user: user.name, "User", key=True),
        properties.text("roles", lambda user: user.role.word, "Role"),
    ),
)
ROLE = values.choice(*(role.word for role in Role))
PASSWORD = secret(
    "password",
    values.secret("password"),
    "New password of the user.",
    environment="OFFSITE_NEW_PASSWORD",
    new=True,
)


@COMMANDS.command(
    "create user",
    "Creates a user. The role monitor may look at everything; the role manage may also change it.",
    keyword("roles", ROLE, "Role of the user.", default="monitor"),
    PASSWORD,
    positional("name", values.name("user"), "Name of the new user.", named=True),
    examples=("create user roles manage anna",),
    returns=(USER,),
)
def create_user(context: Context, name: str, password: str, roles: str) -> Reply:
    users = context.system.users
    users.create(name, password, Role[roles.upper()])
    return Reply(f"User {name} was created.", (USER.row(users.get(name)),))


@COMMANDS.command(
    "set password",
    "Changes the password of a user and closes the user's sessions.",
    PASSWORD,
    positional("name", values.reference("user"), "Name of the user."),
)
def set_password(context: Context, name: str, password: str) -> Reply:
    context.system.users.set_password(name, password)
    context.system.sessions.close_all(name)
    forgotten = first_password.forget(context.system.state_directory, name)
    return Reply(f"The password of user {name} was changed.{forgotten}")


def _check_role(context: Context, name: str, roles: str = Role.MANAGE.word) -> None:
    context.system.users.check_dispensable(name, Role[roles.upper()])


@COMMANDS.command(
    "set user",
    "Changes the role of a user and closes the user's sessions. At least one user with the role manage has to remain.",
    keyword("roles", ROLE, "Role of the user.", required=True),
    positional("name", values.reference("user"), "Name of the user."),
    returns=(USER,),
    acceptance=_check_role,
)
def set_user(context: Context, name: str, roles: str) -> Reply:
    users = context.system.users
    users.set_role(name, Role[roles.upper()])
    context.system.sessions.close_all(name)
    return Reply(f"User {name} was changed.", (USER.row(users.get(name)),))


@COMMANDS.command(
    "delete user",
    "Deletes a user. At least one user with the role manage has to remain.",
    positional("name", values.reference("user"), "Name of the user."),
    confirmation=lambda context, name: f"Delete user {context.system.users.get(name).name}?",
    acceptance=lambda context, name: context.system.users.check_dispensable(name),
)
def delete_user(context: Context, name: str) -> Reply:
    context.system.users.delete(name)
    context.system.sessions.close_all(name)
    forgotten = first_password.forget(context.system.state_directory, name)
    return Reply(f"User {name} was deleted.{forgotten}")


@COMMANDS.command(
    "show users",
    "Lists the users.",
    positional("name", values.reference("user"), "Name of the user to show. Default: all.", required=False),
    role=Role.MONITOR,
    returns=(USER,),
)
def show_users(context: Context, name: str | None = None) -> Reply:
    users = context.system.users
    return Reply(rows=tuple(USER.row(each) for each in ([users.get(name)] if name is not None else users.all())))
