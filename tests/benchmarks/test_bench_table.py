"""The table says honestly what was reached, what was not, and what could not be measured."""

from __future__ import annotations

from benchmarks import table
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, Unmeasured, at_least, at_most, below

READS = Line("reads", Unit.PER_SECOND, "nbdkit", at_least(1.4))
READS_QEMU = Line("reads", Unit.PER_SECOND, "qemu", at_least(2))
SNAPSHOT = Line("snapshot", Unit.SECONDS, target=below(0.002))
INCREMENT = Line("increment", Unit.SECONDS, "btrfs", at_most(1))
SEEN = Line("seen", Unit.SECONDS)

OUTCOMES: Outcomes = {
    READS: Measured(Samples.of([300.0]), Samples.of([200.0]), "nbdkit -t 16"),
    READS_QEMU: Measured(Samples.of([300.0]), Samples.of([200.0])),
    SNAPSHOT: Measured(Samples.of([0.001])),
    INCREMENT: Unmeasured("needs root | or sudo"),
    SEEN: Measured(Samples.of([0.5])),
}


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| ").replace("\\|", "¦").split(" | ")]


def test_each_outcome_is_one_row_with_its_verdict() -> None:
    rows = [cells(row) for row in table.markdown(OUTCOMES).splitlines()]
    assert rows[2] == ["reads", "300/s", "nbdkit -t 16", "200/s", "1.500", "≥ 1.4 ×", "reached"]  # noqa: RUF001
    assert rows[3][-4:] == ["200/s", "1.500", "≥ 2 ×", "**not reached**"]  # noqa: RUF001
    assert rows[4][0] == "snapshot" and rows[4][-2:] == ["< 2 ms", "reached"]
    assert rows[5][-1] == "**not measured**: needs root ¦ or sudo"
    assert rows[6][-1] == "for information"


def test_every_row_has_as_many_cells_as_the_headings() -> None:
    rows = table.markdown(OUTCOMES).replace("\\|", "¦").splitlines()
    assert {row.count("|") for row in rows} == {8}


def test_summary_counts_targets_and_leaves_out_what_claims_nothing() -> None:
    assert table.summary(OUTCOMES) == "2 of 4 targets reached, 1 not reached, 1 not measured."


def test_a_ratio_just_short_of_its_bound_is_not_rounded_up_to_it() -> None:
    short = {READS: Measured(Samples.of([139.9]), Samples.of([100.0]))}
    row = cells(table.markdown(short).splitlines()[2])
    assert row[4] == "1.399" and row[-1] == "**not reached**"


def test_page_has_date_machine_table_and_methods() -> None:
    page = table.page(OUTCOMES, "2026-01-02", [("Kernel", "Linux 6.1")], [("nbd", "fio on\na volume")])
    assert "on 2026-01-02. 2 of 4 targets reached" in page
    assert "- Kernel: Linux 6.1" in page
    assert table.markdown(OUTCOMES) in page
    assert page.endswith("### nbd\n\nfio on\na volume\n")
