"""`scisci tune`: the same tuning budget for every architecture of a study."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from scisci.contracts.errors import UserError
from scisci.sweep.cli import add_engine, engine_options, resumable
from scisci.sweep.option_types import count, whole

if TYPE_CHECKING:
    from scisci.contracts.metrics import Metric
    from scisci.sweep.plan import Plan
    from scisci.sweep.study import Study
    from scisci.sweep.tune import Trials


def parser() -> argparse.ArgumentParser:
    """The command line of `scisci tune`."""
    top = argparse.ArgumentParser(
        prog="scisci tune",
        description="Choose the learning rates of a study: train every architecture and size at each rate of one grid, "
        "take the best on the ID validation split, and write DIR/study.yaml, which 'scisci sweep run' does.",
        epilog="The same command goes on where it was interrupted. DIR/trials is a sweep like any other "
        "('scisci sweep status DIR/trials'); DIR/trials.parquet has all its results.",
    )
    top.add_argument("study", type=Path, help="study file (YAML); it need not have learning rates")
    top.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the trials and the tuned study")
    grid = top.add_argument_group("the grid, common to all")
    grid.add_argument("--trials", type=count, default=7, metavar="N", help="learning rates in one ratio (7)")
    grid.add_argument("--lowest", type=float, default=0.0005, metavar="RATE", help="lowest learning rate (0.0005)")
    grid.add_argument("--highest", type=float, default=0.03, metavar="RATE", help="highest learning rate (0.03)")
    grid.add_argument(
        "--widen",
        type=whole,
        default=2,
        metavar="N",
        help="while any best rate is at an end of the grid, add one rate beyond it for all, up to N times (2)",
    )
    each = top.add_argument_group("each training")
    each.add_argument("--steps", type=count, metavar="N", help="optimisation steps (default: as in the study)")
    each.add_argument("--data", type=count, metavar="N", help="training samples (default: the study's largest)")
    each.add_argument("--seeds", type=whole, nargs="+", default=[0], metavar="SEED", help="one training per seed (0)")
    each.add_argument(
        "--sizes",
        choices=("first", "all"),
        default="all",
        help="first: tune the first size of each entry, for all its sizes; all: tune every size (default)",
    )
    top.add_argument(
        "--metric", metavar="NAME", help="what the best is best in (default: the task's own, such as force_mae)"
    )
    add_engine(top)
    return top


def main(argv: list[str]) -> None:
    """Entry point of `scisci tune`."""
    arguments = parser().parse_args(argv)
    options = engine_options(arguments)

    from scisci.contracts.metrics import metric
    from scisci.sweep.planning import make_plan
    from scisci.sweep.progress import make_listener
    from scisci.sweep.study import load_study
    from scisci.sweep.tune import STUDY_FILE, TRIALS, TRIALS_FILE, Grid, chosen_study, trial_study, tune, write_study

    if not (0 < arguments.lowest < arguments.highest < float("inf") and arguments.trials > 1):
        raise UserError("a grid needs --trials of 2 or more and 0 < --lowest < --highest")
    grid = Grid(arguments.lowest, arguments.highest, arguments.trials)
    study = load_study(arguments.study)
    trials = trial_study(
        study,
        _networks(study),
        grid.rates,
        data=arguments.data,
        steps=arguments.steps,
        seeds=tuple(arguments.seeds),
        first_size=arguments.sizes == "first",
    )
    plan = make_plan(trials)
    judged = metric(arguments.metric or _headline(plan))
    _announce(plan, study)
    with resumable(arguments.out), make_listener() as listener:
        plan, tried = tune(
            plan,
            grid,
            arguments.out,
            listener,
            judged,
            widen=arguments.widen,
            **options,
        )
    path = arguments.out / STUDY_FILE
    write_study(chosen_study(study, plan, tried), path)
    _print(tried, judged, arguments.out / TRIALS)
    print(f"{arguments.out / TRIALS_FILE}: all trials")
    print(f"{path}: the study with these rates; next: scisci sweep run {path} --out …")


def _networks(study: Study) -> list[str]:
    """Entries that are trained: all but baselines."""
    from scisci.tasks.baselines import registry as baselines

    known = baselines.names()
    networks = [label for label in study.architectures if study.architecture(label) not in known]
    if not networks:
        raise UserError(f"the study {study.study!r} has nothing to tune: baselines have no learning rate")
    return networks


def _headline(plan: Plan) -> str:
    """The metric that the task puts first."""
    from scisci.tasks.domains import task_for

    study, cell = plan.study, plan.cells[0]
    entry = study.architectures[cell.label]
    name = study.architecture(cell.label)
    task = task_for(plan.domain)(name, cell.size, entry.overrides, symmetry_treatment=entry.treatment, **study.task)
    headline: str = task.headline
    return headline


def _announce(plan: Plan, study: Study) -> None:
    trials = plan.study
    rates, data = trials.learning_rates, trials.amounts[0]
    if study.learning_rates or any(entry.learning_rate is not None for entry in study.architectures.values()):
        print("the study's own learning rates are left aside")
    steps = sorted({work.steps for work in plan.works().values()})
    seeds = len(trials.seeds)
    print(
        f"{len(plan)} trainings: {len(plan.cells)} models × {len(rates)} learning rates from {rates[0]:g} to "
        f"{rates[-1]:g} × {seeds} seed{'s' * (seeds != 1)}, of {'/'.join(map(str, steps))} steps of "
        f"{trials.optimization.batch_size} samples out of {data}; before them each model untrained"
    )


def _print(trials: list[Trials], metric: Metric, folder: Path) -> None:
    """A row per entry and size, a column per rate."""
    import math

    from rich.table import Table

    from scisci.sweep.tables import print_table

    def shown(one: Trials, index: int) -> str:
        mean = one.means[index]
        if not math.isfinite(mean):
            return "failed" if math.isnan(mean) else "diverged"
        return f"{mean:.4g}{'*' if one.rates[index] == one.rate else ' '}"

    table = Table("entry", "size", box=None, pad_edge=False)
    for name in (*(f"{rate:g}" for rate in trials[0].rates), "sensitivity"):
        table.add_column(name, justify="right")
    for one in trials:
        values = [shown(one, index) for index in range(len(one.rates))]
        table.add_row(one.cell.label, one.cell.size, *values, f"{one.sensitivity:.3g}")
    print(f"{metric.title} on val by learning rate; * is chosen")
    print_table(table)
    for one in trials:
        if one.at_edge:
            print(f"the best rate of {one.cell}, {one.rate:g}, is at the edge of the grid")
    if any(len(one.ranked) < len(one.rates) for one in trials):
        print(f"rates at which a run did not end well are ruled out; see 'scisci sweep status {folder}'")
