"""What the demo says between its commands."""

from __future__ import annotations

from rich.console import Console


class Narrator:
    def __init__(self, console: Console) -> None:
        self._console = console

    def title(self, text: str) -> None:
        self._console.print()
        self._console.rule(f"[bold]{text}", align="left")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
