"""The program `offsite`."""

from __future__ import annotations

import sys

from offsite.interfaces.cli.command_line import run
from offsite.interfaces.cli.options import CommandLine


def main() -> int:
    return run(sys.argv[1:], {"serve": _serve, "demo": _demo})


def _serve(line: CommandLine) -> int:
    from offsite.serve import serve  # loads everything: only where it is needed

    return serve(line)


def _demo(line: CommandLine) -> int:
    from offsite.demo.story import main as demo
    from offsite.interfaces.cli import declared
    from offsite.management.command_table.parser import parse

    parse(declared.commands(), line.words)
    return demo()


if __name__ == "__main__":
    sys.exit(main())
