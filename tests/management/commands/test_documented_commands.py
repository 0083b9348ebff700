"""Each command that the documentation shows is done, page by page, by two systems; each that it mentions can be parsed.

A block of the documentation shows commands (behind `$`, or alone) and perhaps what they answer. They are done in the
order of the page. What a page takes for granted is set up before it, and before some of its commands. An answer that is
shown is compared in its sentence, but for numbers; a refusal that is shown has to come in these very words.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from offsite.errors import OffsiteError
from offsite.interfaces.cli import declared, reference, replicate_wait, verbs
from offsite.interfaces.cli.options import parse_options
from offsite.management.command_table.as_data import to_data
from offsite.management.command_table.parser import UsageError, find, parse, split
from offsite.management.command_table.reply import Question, Reply
from offsite.management.commands import TABLE
from offsite.management.execution import Request
from offsite.replication.peers import incarnation_records
from offsite.replication.peers.incarnation import Start, Verdict
from offsite.replication.peers.incarnation_records import RefusedStart
from offsite.replication.sets.status import Status
from offsite.units import MIB
from tests.management.declared_answers import execute
from tests.management.management_bench import MANAGE, PASSWORD, Bench, bench_in
from tests.management.notice_receivers import web_hook
from tests.systems import wait_until

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "commands.md"  # made from the table
PAGES = [*sorted({*ROOT.glob("docs/*.md")} - {REFERENCE}), ROOT / "README.md"]
WRITTEN_AT = 1_795_600_000.0  # 2026-11-25: what the pages show as the future stays so
_FENCED = re.compile(r"^( *)```[a-z]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_NUMBERS = re.compile(r"[\d.,]+( (B|KiB|MiB|GiB|TiB|s|min|h))?")
_VERBS = {each.text for each in verbs.COMMANDS.commands}
DEADLINE_SECONDS = 60.0


# -- what the pages say -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A command in a block of a page, on which system it is typed, and the lines that it answers there."""

    text: str
    system: str
    answer: tuple[str, ...]

    def __str__(self) -> str:
        return self.text


def shown_in(page: Path) -> Iterator[Shown]:
    for indent, block in _FENCED.findall(page.read_text()):
        lines = [line.removeprefix(indent) for line in block.replace("\\\n", " ").splitlines()]
        with_answers = any(line.startswith("$ ") for line in lines)
        starts = [at for at, line in enumerate(lines) if _is_command(line, with_answers)]
        system = "London"
        for start, end in pairwise([*starts, len(lines)]):
            text, _, comment = lines[start].removeprefix("$ ").partition("  #")
            system = "Newark" if "on Newark" in comment else system  # for the rest of the block
            answer = [line for line in lines[start + 1 : end] if line.strip()] if with_answers else []
            yield Shown(text.strip(), system, tuple(answer))


def _is_command(line: str, with_answers: bool) -> bool:
    if with_answers:
        return line.startswith("$ ") and "offsite" in line
    return line.startswith("offsite ")


def mentioned() -> Iterator[tuple[str, str]]:
    """(page, command): what stands between backquotes and begins as a command does, with something behind it."""
    firsts = {command.words[0] for command in TABLE}
    for page in [*PAGES, *sorted(ROOT.glob("docs/decisions/*.md"))]:
        for span in _SPAN.findall(_FENCED.sub("", page.read_text())):
            words = span.split()
            if words[0] == "offsite":
                words = words[1:]
            if len(words) > 1 and words[0] in firsts:
                yield page.name, " ".join(words)


def said_by_the_program() -> Iterator[tuple[str, str]]:
    """(module, command): what errors, events and help name between backquotes."""
    firsts = {command.words[0] for command in TABLE}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for span in _SPAN.findall(node.value):
                    words = span.removeprefix("offsite ").split()
                    if len(words) > 1 and words[0] in firsts and "…" not in span:
                        yield str(path.relative_to(ROOT)), " ".join(words)


@pytest.mark.parametrize(("page", "text"), sorted({*mentioned(), *said_by_the_program()}))
def test_a_command_that_is_mentioned_can_be_typed_so(page: str, text: str) -> None:
    """The name of a command alone may stand for it; with parameters, all of them have to be right."""
    assert page.endswith((".md", ".py"))
    line = parse_options(split(text))
    _, rest = find(TABLE, line.words)
    if rest:
        parse(TABLE, line.words)


def test_the_reference_page_is_as_the_declarations_are() -> None:
    """`make docs` makes it anew."""
    assert REFERENCE.read_text() == reference.page(TABLE)


def test_the_file_of_declarations_is_as_the_declarations_are() -> None:
    """The command line knows commands by it; `make docs` makes it anew."""
    assert declared.FILE.read_text() == declared.file_of(TABLE)
    assert to_data(each for each in declared.commands() if each.text not in _VERBS) == to_data(TABLE)


def test_each_example_can_be_typed_so() -> None:
    for command in TABLE:
        for example in command.examples:
            call = parse(TABLE, parse_options(split(example)).words)
            assert call.command is command, example


# -- two systems that do it -------------------------------------------------------------------------------------------


class PagesClock:
    """The time at which the pages were written, going on from there."""

    def now(self) -> float:
        return WRITTEN_AT + time.monotonic() - _BEGAN

    def monotonic(self) -> float:
        return time.monotonic()


_BEGAN = time.monotonic()


class World:
    def __init__(self, london: Bench, newark: Bench, notices_to: str) -> None:
        self._notices_to = notices_to
        self.systems = {"London": london, "Newark": newark}
        self.london, self.newark = london, newark

    def do(self, text: str, system: str = "London") -> Reply:
        """As somebody at a terminal who says yes to every question and knows every password."""
        line = parse_options(_words(self.filled(text)))
        bench = self.systems[system]
        answers = _Answers(bench, {"remote-password": PASSWORD, "password": PASSWORD, "url": self._notices_to})
        return replicate_wait.replicate(answers, line) if "wait" in line.options else answers.command(line.words)

    def filled(self, text: str) -> str:
        """With real addresses and fingerprints in place of the page's."""
        newark = self.newark.system
        for shown in ("newark.example:7443", "192.0.2.7", "127.0.0.2"):
            text = text.replace(f" {shown} ", f" {newark.addresses['peer']} ").replace(
                f"connection {shown}", f"connection {newark.addresses['peer']}"
            )
        return re.sub(r"fingerprint [0-9a-f…]{20,}", f"fingerprint {newark.authority.fingerprint}", text)

    def write(self, name: str, mib: int = 2) -> None:
        for at in range(mib):
            self.london.write(name, at * MIB, os.urandom(MIB))

    def nothing(self) -> None:
        """The page begins with an empty system."""

    def connected(self) -> None:
        self.do("create peer-connection remote-port-address 127.0.0.2 remote-username manage Newark")

    def connected_with_volumes(self) -> None:
        self.connected()
        for size, name in (("16MiB", "Sales"), ("1MiB", "Ledger"), ("1MiB", "Taxes")):
            self.do(f"create volume pool A size {size} {name}")

    def replicated_in_london(self) -> None:
        self.connected()
        self.do("create volume pool A size 16MiB Sales")
        self.do("create replication-set peer-connection Newark primary-volume Sales SalesDR")
        self.do("set setting name time-zone value Europe/London")
        self.do("create task type Replicate replication-set SalesDR SalesDaily")

    def slow_run(self) -> None:
        """One under way that takes long, so that the next request finds it."""
        self.do("set peer-connection bandwidth-limit 100KB Newark")
        self.write("Sales")
        self.do("replicate SalesDR")

    def no_run(self) -> None:
        self.do("set peer-connection bandwidth-limit none Newark")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while {"running", "queued"} & {str(run["state"]) for run in self.london.rows("show replication-runs SalesDR")}:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def refused_a_copy(self) -> None:
        """London has refused the older copy of Newark that the page names."""
        copy = RefusedStart(Start(2, "640fa6c7" + "0" * 8), WRITTEN_AT, Verdict.OLDER, WRITTEN_AT, WRITTEN_AT)
        peers = self.london.system.replication.peers
        wait_until("Newark was met", lambda: peers.get("Newark").incarnation.known.newest is not None)
        with self.london.system.database.transaction() as transaction:
            incarnation_records.put_refused(transaction, peers.record("Newark").id, copy)

    def diverged(self) -> None:
        """Newark holds what London has never had."""
        self.no_run()
        unknown = {"uuid": "f" * 36}
        with self.newark.system.database.transaction() as transaction:
            for table in ("recovery_points", "points"):
                base = "SELECT uuid FROM points WHERE state = 'base'"
                transaction.exec_driver_sql(f"UPDATE {table} SET uuid = :uuid WHERE uuid IN ({base})", unknown)
        replication = self.london.system.replication
        replication.reconciler.set_changed()
        wait_until("it is seen", lambda: replication.sets.get("SalesDR").status is Status.DIVERGED)

    def hooks(self) -> None:
        for name in ("freeze-postgres", "thaw-postgres"):
            path = self.london.system.state_directory / "hooks" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("#!/bin/sh\n")
            path.chmod(0o700)


class _Answers:
    def __init__(self, bench: Bench, secrets: Mapping[str, str]) -> None:
        self._bench = bench
        self._secrets = secrets

    def command(self, words: Sequence[str]) -> Reply:
        secrets: dict[str, str] = {}
        asks = True
        while isinstance(answer := execute(self._bench.system, Request(words, secrets, asks), MANAGE), Question):
            if answer.secret:
                secrets[answer.secret] = self._secrets[answer.secret]
            else:
                words, asks = [*words, *answer.adds], False
        return answer


def _words(text: str) -> list[str]:
    """The arguments of `offsite`, as the shell gives them."""
    words = [each for each in shlex.split(text) if not re.match(r"OFFSITE_[A-Z_]+=", each)]
    return words[1:] if words[0] == "offsite" else words


Setup = Callable[[World], object]

BEFORE_A_PAGE: dict[str, Setup] = {
    "bandwidth.md": World.connected,
    "guide.md": lambda world: world.do("create volume pool A size 1MiB Ledger"),
    "monitoring.md": World.nothing,
    "README.md": World.nothing,
    "replication.md": World.connected_with_volumes,
    "schedules.md": World.replicated_in_london,
}
BEFORE_A_COMMAND: dict[tuple[str, str], Setup] = {
    ("replication.md", "offsite replicate SalesDR"): World.slow_run,
    ("replication.md", "offsite show replication-snapshot-history SalesDR"): World.no_run,
    ("replication.md", "offsite set replication-set before-snapshot"): World.hooks,
    ("replication.md", "offsite suspend replication-set SalesDR"): World.slow_run,
    ("replication.md", "offsite resolve replication-set"): World.diverged,
    ("replication.md", "offsite set replication-set name"): World.no_run,
    ("replication.md", "offsite delete replication-set SalesDR"): lambda world: world.do(
        "set replication-set name SalesDR SalesNewark"
    ),
    ("bandwidth.md", "offsite set peer-connection remote-username"): lambda world: world.do(
        "set peer-connection name Newark East"
    ),
    ("bandwidth.md", "offsite set peer-connection accept-incarnation"): World.refused_a_copy,
    ("guide.md", "offsite rollback volume snapshot"): lambda world: world.do("unmap volume initiator tls:web1 Sales"),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(BEFORE_A_PAGE))
def test_each_command_that_a_page_shows_is_done_as_it_says(tmp_path: Path, page: str) -> None:
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    clock = PagesClock()
    with (
        bench_in(tmp_path / "London", "London", clock) as london,
        bench_in(tmp_path / "Newark", "Newark", clock) as newark,
        web_hook() as hook,
    ):
        world = World(london, newark, f"json://127.0.0.1:{hook.port}/")
        BEFORE_A_PAGE[page](world)
        done = 0
        for shown in shown_in(path):
            for (where, begins), setup in BEFORE_A_COMMAND.items():
                if where == page and shown.text.startswith(begins) and "--wait" not in shown.text:
                    setup(world)
            done += _do(world, shown)
    assert done > 0 or page == "README.md"


def _do(world: World, shown: Shown) -> bool:
    line = parse_options(_words(shown.text))
    if line.verb in _VERBS or "state" in line.options:  # serve, import, export: tests of their own
        return False
    try:
        reply = world.do(shown.text, shown.system)
    except OffsiteError as error:
        assert shown.answer, f"{shown} is refused: {error}"
        assert f"offsite: {error}" == shown.answer[-1], shown
        return True
    assert not any(each.startswith("offsite: ") for each in shown.answer), f"{shown} is done, not refused"
    if shown.answer and reply.message:
        assert _NUMBERS.sub("#", reply.message) == _NUMBERS.sub("#", shown.answer[-1]), shown
    return True


def test_every_page_with_commands_is_done() -> None:
    """A new page joins them."""
    with_commands = {page.name for page in PAGES if any(True for _ in shown_in(page))}
    assert with_commands == set(BEFORE_A_PAGE)


def test_what_cannot_be_typed_would_be_found() -> None:
    with pytest.raises(UsageError):
        test_a_command_that_is_mentioned_can_be_typed_so("x.md", "set setting runs-at-a-time")
