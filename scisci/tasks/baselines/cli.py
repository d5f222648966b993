"""`scisci baseline`: list the baselines, fit one and measure it on the splits of a data set."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError

# Options that only the data of one domain have.
DOMAIN_OF = {"heaviest": "cloud", "context": "series", "horizon": "series"}


def parser() -> argparse.ArgumentParser:
    """The options of `scisci baseline`."""
    top = argparse.ArgumentParser(
        prog="scisci baseline",
        description="Predictors that are fitted in closed form, or nearly. They can also stand in a study, beside"
        " networks, and are measured in the same way.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="what there is, with sizes").set_defaults(run=lambda _: show_list())
    fit = commands.add_parser("fit", help="fit a baseline to train, choose on val, measure on test and every ood_*")
    fit.add_argument("name", help="a baseline, see 'scisci baseline list'")
    fit.add_argument("--data", required=True, metavar="NAME", help="name of a data set, or path of a store")
    fit.add_argument(
        "--target",
        metavar="TARGET",
        help="one of those that 'scisci baseline list' shows (default: the first of the data's domain)",
    )
    fit.add_argument("--size", help="one of its sizes (default: the first)")
    fit.add_argument("--set", nargs=2, metavar=("OPTION", "N"), action="append", default=[], help="change an option")
    fit.add_argument("--heaviest", type=int, metavar="N", help="see the N heaviest points of every cloud only")
    fit.add_argument("--context", type=int, metavar="T", help="steps of a time series that are seen")
    fit.add_argument("--horizon", type=int, metavar="H", help="steps of a time series that are forecast")
    fit.add_argument("--train-samples", type=int, metavar="D", help="the first D training samples (default: all)")
    fit.add_argument("--splits", nargs="+", metavar="SPLIT", help="measure on these (default: test and every ood_*)")
    fit.add_argument("--seed", type=int, default=0, help="of a network's weights; others have no use for it")
    fit.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    fit.set_defaults(run=run_fit)
    return top


def main(argv: list[str]) -> None:
    """Run `scisci baseline`."""
    args = parser().parse_args(argv)
    args.run(args)


def show_list() -> None:
    """A row per baseline."""
    from rich.console import Console
    from rich.table import Table

    from scisci.tasks.baselines.registry import BASELINES

    table = Table("for", "target", "baseline", "sizes", "what it is")
    for domain, targets in BASELINES.items():
        for target, known in targets.items():
            for name, cls in known.items():
                table.add_row(domain, target, name, ", ".join(cls.SIZES), (cls.__doc__ or "").strip().splitlines()[0])
    Console().print(table)


def run_fit(args: argparse.Namespace) -> None:
    """Fit and measure one baseline; its folder holds coefficients, choices and `result.json`."""
    from scisci.contracts.files import write_text
    from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunSpec
    from scisci.data.module import StoreDataModule
    from scisci.tasks.baselines.registry import build, find
    from scisci.tasks.cli import new_run_folder
    from scisci.tasks.run import execute
    from scisci.tasks.tables import show_errors
    from scisci.tasks.version import code_version

    data = StoreDataModule(args.data, train_samples=args.train_samples, test_splits=args.splits)
    given = {name: getattr(args, name) for name in ("target", *DOMAIN_OF)}
    task, domain = {name: value for name, value in given.items() if value is not None}, data.store.domain
    if foreign := [name for name, needed in DOMAIN_OF.items() if name in task and needed != domain]:
        kind = "clouds" if foreign[0] == "heaviest" else "series"
        raise UserError(f"--{foreign[0]} is for {kind}, but {args.data} holds samples of {domain!r}; leave it out")
    size = args.size or next(iter(find(args.name, domain, args.target).SIZES))
    overrides = dict(_count(*pair) for pair in args.set)
    build(args.name, domain, task, size, overrides)
    spec = RunSpec(
        study="baseline",
        dataset=args.data,
        fingerprint=data.store.fingerprint,
        architecture=args.name,
        size=size,
        overrides=overrides,
        task=task,
        data=len(data.train_indices()),
        seed=args.seed,
        optimization=OptimizationSpec(steps=1, learning_rate=None),
        evaluation=EvaluationSpec(splits=tuple(data.test_splits)),
        code_version=code_version(),
    )
    folder = new_run_folder(args.runs, f"{args.name}-{size}")
    try:
        result = execute(spec, folder)
    except UserError:
        shutil.rmtree(folder)
        if not any(args.runs.iterdir()):
            args.runs.rmdir()
        raise
    write_text(folder / "result.json", result.model_dump_json(indent=1) + "\n")
    results = {name: split.metrics for name, split in result.splits.items()}
    show_errors(results, [name for name in next(iter(results.values())) if not name.startswith("symmetry")])
    print(f"run directory: {folder}")


def _count(option: str, number: str) -> tuple[str, Any]:
    if not number.isdecimal():
        raise UserError(f"--set {option} {number}: give a whole number")
    return option, int(number)
