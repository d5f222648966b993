"""`scisci scale`: fit, compare and list scaling laws from any table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from scisci.contracts.errors import UserError


def main(argv: list[str]) -> None:
    """Run `scisci scale ...`."""
    parser = _parser()
    options = parser.parse_args(argv)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scisci scale", description="Fit and compare scaling laws with honest uncertainty."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    laws = commands.add_parser("laws", help="list the laws with formula and source")
    laws.set_defaults(run=_laws)

    fit = commands.add_parser("fit", help="fit a law to a table, one fit per group")
    _table_arguments(fit)
    fit.add_argument("--law", required=True, help="name of a law, see 'scisci scale laws'")
    fit.add_argument("--x", required=True, metavar="VAR=COLUMN,...", help="columns of the law's variables")
    fit.add_argument("--by", default="", metavar="COLUMN,...", help="fit every combination of these columns apart")
    fit.add_argument("--cluster", help="column that names the run a row belongs to (results table: run)")
    fit.add_argument("--weights", metavar="COLUMN", help="column with the known standard error of the loss")
    fit.add_argument(
        "--delta", type=float, help="Huber threshold on log residuals; inf: least squares (default: by size)"
    )
    fit.add_argument("--bootstrap", type=int, default=4000, help="resamples of whole runs; 0: none (default 4000)")
    fit.add_argument("--seed", type=int, default=42, help="seed of the bootstrap (default 42)")
    fit.set_defaults(run=_fit)

    study = commands.add_parser("study", help="all exponents of a results table: params, data, flops; ID and OOD")
    _table_arguments(study)
    study.add_argument("--law", default="power,power_offset", help="laws of one variable (default %(default)s)")
    study.set_defaults(run=_study)
    return parser


def _table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="Parquet, CSV or JSON lines; a results table or any other")
    parser.add_argument("--y", required=True, help="column of the loss, or a metric of a results table")
    parser.add_argument("--where", help='rows to use, as in "data==1024 and params>1e4"')
    parser.add_argument("--json", metavar="FILE", help="write the fits as JSON")


def _laws(options: argparse.Namespace) -> None:
    from rich.console import Console

    from scisci.scaling import show

    del options
    show.show_laws(Console())


def _fit(options: argparse.Namespace) -> None:
    from rich.console import Console

    from scisci.scaling import records, show
    from scisci.scaling.groups import fit_groups

    found = fit_groups(
        options.table,
        options.law,
        mapping(options.x, "--x"),
        options.y,
        by=[name for name in options.by.split(",") if name],
        cluster=options.cluster,
        se=options.weights,
        where=options.where,
        delta=options.delta,
        resamples=options.bootstrap,
        seed=options.seed,
    )
    if options.json:
        records.write_records(options.json, found)
    show.show_fits(Console(), found)


def _study(options: argparse.Namespace) -> None:
    from rich.console import Console

    from scisci.scaling import records, show
    from scisci.scaling.studies import study, study_records

    entries = study(options.table, options.y, options.law.split(","), options.where)
    found = study_records(entries, options.y)
    if options.json:
        records.write_records(options.json, found)
    show.show_study(Console(), found)


def mapping(text: str, option: str) -> Mapping[str, Any]:
    """{"N": "params"} from "N=params"; anything else is a `UserError`."""
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not (left and sign and right) for left, sign, right in pairs):
        raise UserError(f"cannot read {option} {text!r}; write it as N=COLUMN, several separated by commas")
    return {left.strip(): right.strip() for left, _, right in pairs}
