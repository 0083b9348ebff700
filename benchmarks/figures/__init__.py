"""The figures, in the order of the table. Each module has LINES, and `measure`, and says in its docstring how."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from benchmarks.bench import Bench
from benchmarks.figures import (
    after_snapshot,
    deleting,
    engine,
    group_runs,
    host_latency,
    initial_run,
    many_sets,
    nbd,
    schedules,
    small_runs,
    suspend,
)
from benchmarks.measure import Line, Outcomes


@dataclass(frozen=True, slots=True)
class Figure:
    """Lines of the table that are measured together. `measure` raises CannotMeasure."""

    name: str
    method: str
    lines: tuple[Line, ...]
    measure: Callable[[Bench], Outcomes]


def _figure(module: ModuleType) -> Figure:
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    return Figure(name, inspect.getdoc(module) or "", module.LINES, module.measure)


_SUBJECTS = (
    nbd,
    after_snapshot,
    engine,
    initial_run,
    small_runs,
    group_runs,
    many_sets,
    suspend,
    schedules,
    host_latency,
    deleting,
)
FIGURES = tuple(map(_figure, _SUBJECTS))
