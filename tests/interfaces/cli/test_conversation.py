"""Questions of a system: who asks is a stranger, whatever it was before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from offsite.errors import BadParameter, OffsiteError, ProtocolError
from offsite.interfaces.cli.conversation import Conversation, Declined, needed_secret
from offsite.management.command_table.reply import Question, Reply
from offsite.management.commands import TABLE

SECRETS = {
    "OFFSITE_REMOTE_PASSWORD": "of Newark",
    "OFFSITE_NEW_PASSWORD": "of a user",
    "OFFSITE_NOTICE_URL": "mailtos://…",
    "AWS_SECRET_ACCESS_KEY": "of a cloud",
}


class Hostile:
    """A system that answers every command with its own question, and keeps what it is given."""

    def __init__(self, question: Question, times: int = 1) -> None:
        self._question = question
        self._times = times
        self.given: list[Mapping[str, str]] = []

    def __call__(self, _words: Sequence[str], secrets: Mapping[str, str], *, asks: bool) -> Reply | Question:
        self.given.append(dict(secrets))
        return self._question if len(self.given) <= self._times else Reply(f"asks: {asks}")


def test_the_command_line_knows_the_secrets_of_each_command_and_no_other() -> None:
    """What it sends is up to its own table, in which each secret has a variable of its own."""
    for command in TABLE:
        others = dict.fromkeys(each.needs.parameter for each in command.parameters if each.needs is not None)
        words = [*command.words, *(word for each in others for word in (each, "x"))]
        own = {each.name: each.environment for each in command.parameters if each.is_secret}
        for name in ("password", "remote-password", "url", "size", "name", ""):
            found = needed_secret(words, name)
            assert (found.environment if found else None) == own.get(name), (command.text, name)


@pytest.mark.parametrize(
    "words",
    [
        ["set", "peer-connection", "name", "remote-username", "Newark"],
        ["set", "peer-connection", '"remote-username"'],
        ["set", "peer-connection", "remote-username"],
        ["set", "peer-connections", "fingerprint", "remote-username", "Newark"],
    ],
)
def test_a_value_that_looks_like_a_keyword_makes_no_command_need_a_secret(words: list[str]) -> None:
    assert needed_secret(words, "remote-password") is None


@pytest.mark.parametrize(
    "secret", ["AWS_SECRET_ACCESS_KEY", "aws-secret-access-key", "remote-password", "url", "x\x1b[2J"]
)
def test_a_system_gets_no_secret_that_the_command_does_not_need(secret: str) -> None:
    """Whatever it calls what it wants, or whatever variable that would be."""
    hostile = Hostile(Question("Your password, please.", secret))
    with pytest.raises(ProtocolError, match="does not need; nothing was sent") as refusal:
        Conversation(hostile, asks=False, environment=SECRETS).command(["show", "volumes"])
    assert str(refusal.value).isprintable()
    assert hostile.given == [{}]


def test_a_secret_that_the_command_needs_comes_from_its_own_variable() -> None:
    system = Hostile(Question("The password there.", "remote-password"))
    Conversation(system, asks=False, environment=SECRETS).command(["create", "peer-connection", "Newark"])
    assert system.given == [{}, {"remote-password": "of Newark"}]


def test_a_change_of_a_peer_connection_needs_a_password_only_for_a_login() -> None:
    words = ["set", "peer-connection", "Bandwidth-Limit", "10MB", "Newark"]
    hostile = Hostile(Question("The password there.", "remote-password"))
    with pytest.raises(ProtocolError, match="does not need; nothing was sent"):
        Conversation(hostile, asks=False, environment=SECRETS).command(words)
    assert hostile.given == [{}]
    system = Hostile(Question("The password there.", "remote-password"))
    Conversation(system, asks=False, environment=SECRETS).command([*words, "Remote-Username", "manage"])
    assert system.given == [{}, {"remote-password": "of Newark"}]


@pytest.mark.parametrize("adds", [("remote-username", "manage"), ("set", "peer-connection", "remote-username")])
def test_words_that_a_system_adds_make_no_command_need_a_secret(
    monkeypatch: pytest.MonkeyPatch, adds: tuple[str, ...]
) -> None:
    given: list[Mapping[str, str]] = []

    def hostile(words: Sequence[str], secrets: Mapping[str, str], *, asks: bool) -> Question:
        given.append(secrets)
        return Question("Go on?", adds=adds) if asks else Question(f"The password for {words}.", "remote-password")

    monkeypatch.setattr("builtins.input", lambda _prompt: "yes")
    for words in (["set", "peer-connection", "bandwidth-limit", "1MB", "Newark"], []):
        with pytest.raises(ProtocolError, match="does not need; nothing was sent"):
            Conversation(hostile, asks=True, environment=SECRETS).command(words)
    assert not any(given)


def test_a_system_that_asks_again_and_again_is_left() -> None:
    hostile = Hostile(Question("Once more.", "password"), times=100)
    with pytest.raises(ProtocolError, match="twice; nothing was sent again"):
        Conversation(hostile, asks=False, environment=SECRETS).command(["create", "user", "otto"])
    assert len(hostile.given) == 2


def test_what_a_system_asks_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda _prompt: "no")
    with pytest.raises(Declined):
        Conversation(Hostile(Question("Delete \x1b[2Jnothing?")), asks=True).command(["delete", "volumes", "x"])
    assert "\x1b" not in capsys.readouterr().err
    hostile = Hostile(Question("Your \x1b[2Jpassword.", "remote-password"))
    with pytest.raises(BadParameter, match="no terminal") as refusal:
        Conversation(hostile, asks=True, environment={}).command(["create", "peer-connection", "Newark"])
    assert "Your \\x1b[2Jpassword." in str(refusal.value)


def test_a_question_where_nobody_can_answer_changes_nothing() -> None:
    with pytest.raises(OffsiteError, match="nothing was changed"):
        Conversation(Hostile(Question("Delete it?")), asks=False).command(["delete", "volumes", "x"])
