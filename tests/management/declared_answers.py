"""Commands as tests do them: whatever is answered has to be declared, as faces and programs go by the declaration."""

from __future__ import annotations

from offsite.errors import OffsiteError
from offsite.management import execution
from offsite.management.accounts.users import User
from offsite.management.command_table.answers import is_declared, undeclared_objects
from offsite.management.command_table.parser import UsageError, find
from offsite.management.command_table.reply import Question, Reply
from offsite.management.commands import TABLE
from offsite.management.execution import Request
from offsite.management.system import System


def execute(system: System, request: Request, user: User) -> Reply | Question:
    """As `execution.execute`."""
    try:
        answer = execution.execute(system, request, user)
    except UsageError:  # there may be no such command
        raise
    except OffsiteError as error:
        command, _ = find(TABLE, request.words)
        assert is_declared(command, error), f"{command.text} answers {type(error).__name__}, which it does not declare"
        raise
    if isinstance(answer, Reply):
        command, _ = find(TABLE, request.words)
        found = undeclared_objects(command, answer)
        assert not found, f"{command.text} answers with {found}, which it does not declare"
    return answer
