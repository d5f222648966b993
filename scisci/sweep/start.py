"""How a sweep starts: its workers are there before its plan is, which the first of them makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scisci.sweep.plan import PLAN_FILE, Plan
from scisci.sweep.planning import plan_for
from scisci.sweep.study import load_study

if TYPE_CHECKING:
    from scisci.sweep.workers import Team


@contextmanager
def started(
    file: Path, out: Path | None, *, engine: str, address: str | None, workers: int | None, part: bool = False
) -> Iterator[tuple[Plan, Team | None]]:
    """The plan as `plan_for` has it, and for a new sweep on this machine alone the workers that are to do it.

    Making a plan takes imports that this process has no other use for, but workers do. A sweep that was begun before
    may have nothing left to do, nor may a `part` of one: they get no workers until that is known.
    """
    elsewhere = engine == "inline" or address not in (None, "local")
    if elsewhere or part or out is None or (out / PLAN_FILE).exists():
        yield plan_for(file, out), None
        return
    from scisci.sweep.workers import own_team

    study = load_study(file)
    with own_team(study, workers) as team:
        yield team.plan(study), team
