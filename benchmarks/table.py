"""The table of figures and the page around it, in Markdown. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.measure import Line, Measured, Outcome, Unmeasured, is_reached

_HEADINGS = ("figure", "Offsite", "beside", "its figure", "ratio", "to reach", "")


def markdown(outcomes: Mapping[Line, Outcome]) -> str:
    """A line for each figure, in order. A title that is the same as above is not repeated."""
    rows = [_HEADINGS, tuple("---" for _ in _HEADINGS)]
    above = ""
    for line, outcome in outcomes.items():
        cells = _cells(line, outcome)
        rows.append(("" if line.title == above else line.title, *cells))
        above = line.title
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows)


def summary(outcomes: Mapping[Line, Outcome]) -> str:
    verdicts = [is_reached(line, outcome) for line, outcome in outcomes.items() if line.target]
    return (
        f"{verdicts.count(True)} of {len(verdicts)} targets reached, {verdicts.count(False)} not reached, "
        f"{verdicts.count(None)} not measured."
    )


def page(
    outcomes: Mapping[Line, Outcome], date: str, machine: Iterable[tuple[str, str]], notes: Sequence[tuple[str, str]]
) -> str:
    """RESULTS.md. `notes` are titles and texts of how each group of figures is measured."""
    facts = "\n".join(f"- {what}: {value}" for what, value in machine)
    methods = "\n\n".join(f"### {title}\n\n{text}" for title, text in notes)
    return (
        "# Figures\n\n"
        f"Measured by `make bench` on {date}. {summary(outcomes)}\n\n"
        f"{facts}\n\n"
        "Each value is a median, with the lowest and the highest in parentheses; a ratio is Offsite's median over\n"
        "the other's. A lower ratio is the better one for times, a higher one for rates. The programs that are\n"
        "compared take turns, so that a drift of the machine hits all alike; the page cache is warm.\n\n"
        f"{markdown(outcomes)}\n\n"
        f"## How each is measured\n\n{methods}\n"
    )


def _cells(line: Line, outcome: Outcome) -> tuple[str, ...]:
    to_reach = _to_reach(line)
    if isinstance(outcome, Unmeasured):
        return "", line.beside, "", "", to_reach, f"**not measured**: {outcome.why}"
    other = outcome.other.text(line.unit) if outcome.other else ""
    return (
        outcome.own.text(line.unit),
        outcome.beside or line.beside,
        other,
        _ratio(outcome),
        to_reach,
        {True: "reached", False: "**not reached**", None: "for information"}[is_reached(line, outcome)],
    )


def _ratio(outcome: Measured) -> str:
    """Three decimals, so that rounding never makes a ratio look as if it had reached its bound."""
    return "" if outcome.ratio is None else f"{outcome.ratio:.3f}"


def _to_reach(line: Line) -> str:
    if line.target is None:
        return ""
    bound = f"{line.target.bound:g} ×" if line.beside else line.unit.text(line.target.bound)  # noqa: RUF001
    return f"{line.target.relation} {bound}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
