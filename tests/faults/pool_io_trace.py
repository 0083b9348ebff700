"""What a process really wrote, synced, truncated and punched, in order: from strace, for the crash states.

SQLite and the pool write with pwrite64 only (state.db-shm is mapped, and not needed after a crash), so this is all
that ever gets to their files.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CALLS = "openat,pwrite64,write,pwritev,pwritev2,fdatasync,fsync,ftruncate,fallocate,unlink,rename,close"
DATA_BYTES_MAX = 1 << 20  # of one call, shown in full
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Write:
    file: Path
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    file: Path
    size: int


@dataclass(frozen=True, slots=True)
class Punch:
    file: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Make:
    file: Path


@dataclass(frozen=True, slots=True)
class Unlink:
    file: Path


@dataclass(frozen=True, slots=True)
class Sync:
    """All that was done to the file before is durable; of a directory, what was made and unlinked in it."""

    file: Path


@dataclass(frozen=True, slots=True)
class Mark:
    """The process said something: it had got so far."""

    text: str


Operation = Write | Truncate | Punch | Make | Unlink | Sync | Mark


def traced(command: Sequence[str], under: Path, marks: Path, trace: Path) -> list[Operation]:
    """Runs `command`; returns what it did to files under a directory, and what it wrote to the file `marks`."""
    strace = shutil.which("strace")
    assert strace, "strace is needed: `make test` installs it as root; else apt-get install strace"
    options = ["-f", "-xx", "-s", str(DATA_BYTES_MAX), "-e", f"trace={CALLS}", "-o", str(trace)]
    subprocess.run([strace, *options, *command], check=True, timeout=TIMEOUT_SECONDS)
    with trace.open() as lines:
        return list(_operations(lines, under, marks))


_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def _operations(lines: Iterator[str], under: Path, marks: Path) -> Iterator[Operation]:
    open_files: dict[int, Path] = {}
    for line in _whole_calls(lines):
        match = _CALL.match(line)
        assert match, f"a line that is no call: {line[:200]}"
        call, arguments, result = match[1], match[2], int(match[3])
        if result < 0:
            continue
        strings = [_bytes(string) for string in _STRING.finditer(arguments)]
        numbers = [int(word) for word in re.findall(r"(?:^|, )(\d+)(?=,|$)", _STRING.sub("", arguments))]
        if call == "openat":
            path = Path(strings[0].decode())
            open_files[result] = path
            if "O_CREAT" in arguments and under in path.parents:
                yield Make(path)
        elif call == "unlink":
            path = Path(strings[0].decode())
            if under in path.parents:
                yield Unlink(path)
        elif call == "close":
            open_files.pop(numbers[0], None)
        elif open_files.get(numbers[0]) == marks:
            yield Mark(strings[0].decode())
        elif under in open_files.get(numbers[0], Path("/")).parents:
            yield _operation(call, open_files[numbers[0]], strings, numbers, arguments, result)


def _whole_calls(lines: Iterator[str]) -> Iterator[str]:
    """A call during which another thread made one is shown in two lines; it counts from when it returned."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, rest = line.split(maxsplit=1)
        if "<unfinished ...>" in rest:
            begun[thread] = rest.replace("<unfinished ...>\n", "")
        elif rest.startswith("<..."):
            yield f"{thread} {begun.pop(thread).rstrip()}{rest.partition('resumed>')[2]}"
        elif not rest.startswith(("+++", "---")):
            yield line


def _operation(
    call: str, file: Path, strings: list[bytes], numbers: list[int], arguments: str, result: int
) -> Operation:
    match call:
        case "pwrite64":
            return Write(file, numbers[2], strings[0][:result])
        case "fdatasync" | "fsync":
            return Sync(file)
        case "ftruncate":
            return Truncate(file, numbers[1])
        case "fallocate" if "FALLOC_FL_PUNCH_HOLE" in arguments:
            return Punch(file, numbers[1], numbers[2])
    raise AssertionError(f"{call} on {file}: the crash states do not know what that does")


def _bytes(match: re.Match[str]) -> bytes:
    assert not match[2], "a string was cut"
    return bytes.fromhex(match[1].replace("\\x", ""))
