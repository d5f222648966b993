"""`scisci sweep plan` and `scisci sweep extend`: what a study will cost, and more of one that was planned."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scisci.contracts.errors import UserError
from scisci.sweep.option_types import count, positive, whole

if TYPE_CHECKING:
    from rich.table import Table

    from scisci.sweep.costs import Costs
    from scisci.sweep.plan import Plan


def add(commands: Any) -> None:
    """Add the two commands to those of `scisci sweep`."""
    plan = commands.add_parser(
        "plan",
        help="print the grid of a study and what it will cost, without running anything",
        description="Print the grid of a study with its training FLOPs, counted on the real models and samples, and "
        "the time and money that it will take.",
    )
    plan.add_argument("study", type=Path, help="study file (YAML), or the folder of a sweep")
    plan.add_argument("--grid", action="store_true", help="the grid alone: nothing is timed")
    plan.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="take the time from finished runs of this sweep (default: time a few steps of every network)",
    )
    plan.add_argument(
        "--flops-per-second",
        type=positive,
        metavar="F",
        help="take the time from the training FLOPs alone, at the rate that a worker of another machine sustains",
    )
    plan.add_argument("--workers", type=count, metavar="N", help="runs at a time (default: one a CPU core)")
    plan.add_argument(
        "--price",
        type=positive,
        metavar="P",
        help="price of one hour of what one worker occupies; the cost is P times the hours that all runs take one "
        "after the other, so that waiting workers cost nothing",
    )
    plan.set_defaults(act=_plan)

    extend = commands.add_parser(
        "extend",
        help="add sizes, data, budgets or seeds to a study, keeping what is recorded",
        description="Add to the study of a sweep. What is recorded stays and is not done again; 'scisci sweep run DIR' "
        "does the rest.",
    )
    extend.add_argument("folder", type=Path, metavar="DIR", help="folder of the sweep")
    extend.add_argument(
        "--sizes", action="extend", nargs="+", default=[], metavar="ENTRY=SIZE,...", help="more sizes of entries"
    )
    extend.add_argument(
        "--learning-rate",
        action="extend",
        nargs="+",
        default=[],
        metavar="ENTRY=SIZE:RATE",
        help="learning rates of new sizes; needed where an entry has one for each size",
    )
    extend.add_argument(
        "--data", action="extend", nargs="+", type=count, default=[], metavar="N", help="more amounts of data"
    )
    extend.add_argument(
        "--compute", action="extend", nargs="+", type=positive, default=[], metavar="C", help="more budgets of FLOPs"
    )
    extend.add_argument(
        "--seeds", action="extend", nargs="+", type=whole, default=[], metavar="SEED", help="more seeds"
    )
    extend.add_argument(
        "--keep-versions",
        action="store_true",
        help="though the code has changed, let what it recorded before count, beside what it records from now on",
    )
    extend.set_defaults(act=_extend)


def _plan(arguments: argparse.Namespace) -> None:
    from scisci.sweep.costs import costs
    from scisci.sweep.engine import cores
    from scisci.sweep.planning import plan_for
    from scisci.sweep.tables import print_table

    plan = plan_for(arguments.study, arguments.out)
    folder = arguments.study if arguments.study.is_dir() else arguments.out
    found = None if arguments.grid else costs(plan, folder, arguments.flops_per_second)
    print_table(plan_table(plan, found))
    print(_summary(plan))
    print(f"each step of {plan.study.optimization.batch_size} samples of {plan.study.dataset}")
    if found is not None:
        _print_costs(found, arguments.workers or cores(), arguments.price)


def _summary(plan: Plan) -> str:
    study = plan.study
    models = sum(len(entry.sizes) for entry in study.architectures.values())
    parts = ["1 model" if models == 1 else f"{models} models"]
    if study.compute:
        parts.append(f"compute {', '.join(f'{budget:.3g}' for budget in study.compute)}")
    parts.append(f"data {', '.join(map(str, study.amounts)) or study.data}")
    if study.learning_rates:
        parts.append(f"{len(study.learning_rates)} learning rates")
    parts.append("1 seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds")
    return f"{len(plan)} runs: {' × '.join(parts)}"


def _print_costs(found: Costs, workers: int, price: float | None) -> None:
    from scisci.sweep.progress import duration

    hours = found.work / 3600
    print(
        f"training FLOPs {sum(found.flops.values()):.3g}; {duration(found.work)} of work ({hours:.3g} hours of one "
        f"worker), {duration(found.wall(workers))} by {workers} workers"
        + (f", cost {price * hours:.4g} at {price:g} an hour of one worker" if price else "")
    )
    print(f"time is predicted from {found.origin}")


def plan_table(plan: Plan, found: Costs | None = None) -> Table:
    """One row per model of a study, or per model and number of steps: how it is made and trained, and its costs.

    Parametrizations are shown if any is not standard, amounts of data where they differ from row to row.
    """
    from rich.table import Table

    from scisci.sweep.progress import duration

    cells = plan.cells
    told = any(entry.parametrization != "standard" for entry in plan.study.architectures.values())
    by_steps = any(cell.steps is not None for cell in cells)
    table = Table(box=None, pad_edge=False)
    for name in ("entry", "architecture", "treatment", *(("parametrization",) if told else ()), "size"):
        table.add_column(name)
    table.add_column("learning rate")
    numbers = ["steps", *(["data"] if by_steps else []), "runs"]
    for name in numbers + (["FLOPs a run", "FLOPs in all", "time a run", "time in all"] if found else []):
        table.add_column(name, justify="right")
    for cell in cells:
        entry, work, runs = plan.study.architectures[cell.label], plan.work(cell), plan.count(cell)
        amounts = plan.amounts(cell)
        own = dict.fromkeys(entry.rate(cell.size, data) for data in amounts)
        rates = plan.study.learning_rates or own
        row = [cell.label, plan.study.architecture(cell.label), entry.treatment]
        row += [entry.parametrization] if told else []
        row += [cell.size, ", ".join("none" if rate is None else f"{rate:g}" for rate in rates), str(work.steps)]
        row += [", ".join(map(str, amounts))] if by_steps else []
        row.append(str(runs))
        if found is not None:
            seconds = found.seconds[cell]
            row += [f"{work.flops:.2e}", f"{found.flops[cell]:.2e}"]
            row += [duration(seconds), duration(seconds * runs)] if seconds else ["–", "–"]
        table.add_row(*row)
    return table


def _extend(arguments: argparse.Namespace) -> None:
    from scisci.sweep.extend import extended, extended_plan
    from scisci.sweep.plan import Plan
    from scisci.sweep.records import Records

    before = Plan.read(arguments.folder)
    study = extended(
        before.study,
        sizes=_sizes(arguments.sizes),
        rates=_rates(arguments.learning_rate),
        data=tuple(arguments.data),
        compute=tuple(arguments.compute),
        seeds=tuple(arguments.seeds),
    )
    plan = extended_plan(arguments.folder, before, study, arguments.keep_versions)
    records = Records(arguments.folder)
    missing = sum(records.stamp(spec.run) is None for _, spec in records.planned(plan))
    print(
        f"{len(plan)} runs of {study.study}, {len(plan) - len(before)} of them new; {len(plan) - missing} are recorded"
    )
    if plan.earlier:
        print(f"what {' and '.join(plan.earlier)} recorded counts, beside what {plan.code_version} will")
    if missing:
        print(f"{missing} are to be done: scisci sweep run {arguments.folder}")


def _sizes(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """Entry → sizes, of all that was said of it."""
    found: dict[str, tuple[str, ...]] = {}
    for label, more in map(_entry_sizes, texts):
        found[label] = (*found.get(label, ()), *more)
    return found


def _entry_sizes(text: str) -> tuple[str, tuple[str, ...]]:
    label, sign, sizes = text.partition("=")
    if not (label and sign and all(sizes.split(","))):
        raise UserError(f"--sizes {text} is not understood; write it as ENTRY=SIZE,SIZE")
    return label, tuple(sizes.split(","))


def _rates(texts: list[str]) -> dict[tuple[str, str], float]:
    """(entry, size) → learning rate."""
    found: dict[tuple[str, str], float] = {}
    for text in texts:
        label, size, rate = _entry_rate(text)
        if found.setdefault((label, size), rate) != rate:
            raise UserError(f"--learning-rate gives {label} {size} two rates; leave one out")
    return found


def _entry_rate(text: str) -> tuple[str, str, float]:
    label, _, rest = text.partition("=")
    size, _, rate = rest.rpartition(":")
    if not (label and size):
        raise UserError(f"--learning-rate {text} is not understood; write it as ENTRY=SIZE:RATE")
    try:
        return label, size, positive(rate)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--learning-rate {text}: {error}") from None
