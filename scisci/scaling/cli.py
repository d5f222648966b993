"""`scisci scale`: fit, compare, check and forecast scaling laws from any table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from scisci.contracts.errors import UserError


def main(argv: list[str]) -> None:
    """Run `scisci scale ...`."""
    options = _parser().parse_args(argv)
    options.run(options)


def _command(name: str) -> Callable[[argparse.Namespace], None]:
    """The function behind a command, imported when it runs: --help needs no numpy."""

    def run(options: argparse.Namespace) -> None:
        getattr(import_module("scisci.scaling.commands"), name)(options)

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scisci scale", description="Fit and compare scaling laws with honest uncertainty."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=_command(name.replace("-", "_")))
        return command

    add("laws", "list the laws with formula and source")
    _add_fits(add)
    _add_questions(add)
    _add_shapes(add)
    return parser


Add = Callable[[str, str], argparse.ArgumentParser]


def _add_fits(add: Add) -> None:
    """Fits and the exponents they give."""
    fit = add("fit", "fit a law to a table, one fit per group")
    _table(fit)
    _law(fit)
    fit.add_argument("--holdout", metavar="RULE", help='largest scales to predict: "N>1e8", or a share such as 0.2')

    study = add("study", "all exponents of a results table along params, data and flops, ID and OOD")
    _table(study)
    study.add_argument("--law", default="power,power_offset", help="laws of one variable (default %(default)s)")

    compare = add("compare", "differences of exponents between groups: slope or offset?")
    _table(compare)
    _law(compare)
    compare.add_argument("--pair", metavar="COLUMN", help="compare its values within each group too, paired by run")


def _add_questions(add: Add) -> None:
    """What follows from fitted laws."""
    cross = add("crossover", "the scale at which one group overtakes another")
    _table(cross)
    _law(cross)
    cross.add_argument("--reach", type=float, default=10.0, help="factor beyond the data to look (default 10)")

    front = add("frontier", "compute-optimal size by the three Chinchilla approaches")
    _table(front)
    front.add_argument("--x", default="N=params,D=data", help="N=COLUMN,D=COLUMN and, if known, C=COLUMN")
    front.add_argument("--kappa", type=float, default=6.0, help="C = kappa N D where no C is given (default 6)")
    front.add_argument("--budgets", type=int, default=9, help="bins of compute of runs that are no iso-FLOP grid (9)")

    ahead = add("forecast", "the loss at a scale not yet run")
    _table(ahead)
    _law(ahead)
    ahead.add_argument("--at", required=True, metavar="N=1e9,...", help="where to forecast")
    ahead.add_argument("--reach", type=float, default=100.0, help="factor beyond the data allowed (default 100)")

    batch = add("critical-batch", "critical batch size and loss by steps, from curves at several batch sizes")
    _table(batch)
    batch.add_argument("--params", default="params", metavar="COLUMN", help="parameters of a run (default params)")
    batch.add_argument("--steps", default="step", metavar="COLUMN", help="training step of a row (default step)")
    batch.add_argument("--batch", default="batch", metavar="COLUMN", help="batch size of a run (default batch)")
    batch.add_argument("--size", type=float, help="parameters of the contours (default: most batch sizes)")
    batch.add_argument("--levels", default="", metavar="L,...", help="losses of the contours (default: 8 shared ones)")


def _add_shapes(add: Add) -> None:
    """What needs no law."""
    trend = add("trend", "does the loss fall with scale at all: falling, flat, rising, U-shaped, broken?")
    _table(trend)
    trend.add_argument("--x", required=True, metavar="N=COLUMN", help="column of the scale")
    trend.add_argument("--by", default="", metavar="COLUMN,...", help="test every combination of these columns")
    trend.add_argument("--cluster", help="column that names the run a row belongs to (results table: run)")

    robust = add("robustness", "loss out of distribution against loss in distribution, and who is above the line")
    _table(robust)
    robust.add_argument("--by", default="architecture", metavar="COLUMN,...", help="groups (default architecture)")
    robust.add_argument("--scale", default="log", help="log, or logit for accuracies (default log)")

    published = add("import-gift-eval", "make a results table of all_results.csv files of the GIFT-Eval leaderboard")
    published.add_argument("files", nargs="+", type=Path, metavar="FILE", help="all_results.csv, one or more")
    published.add_argument("--out", type=Path, default=Path("results.parquet"), help="(default %(default)s)")
    published.add_argument(
        "--seasonal-naive", type=Path, metavar="FILE", help="that of the seasonal naive forecast, which scores are of"
    )
    published.add_argument("--params", nargs="+", default=[], metavar="MODEL=N", help="parameters of the models")

    space = add("dimension", "intrinsic dimension of a data set, and the exponents it allows")
    space.add_argument("table", help="Parquet, CSV or JSON lines, or an .npy array [samples, features]")
    space.add_argument("--columns", default="", metavar="COLUMN,...", help="the features, in units that compare")
    space.add_argument("--where", help="rows to use")
    space.add_argument("--json", metavar="FILE", help="write the outcome as JSON")


def _table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="Parquet, CSV or JSON lines; a results table or any other")
    parser.add_argument("--y", required=True, help="column of the loss, or a metric of a results table")
    parser.add_argument("--where", help='rows to use, as in "data==1024 and params>1e4"')
    parser.add_argument("--json", metavar="FILE", help="write the outcome as JSON")


def _law(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--law", required=True, help="name of a law, see 'scisci scale laws'")
    parser.add_argument("--x", required=True, metavar="VAR=COLUMN,...", help="columns of the law's variables")
    parser.add_argument("--by", default="", metavar="COLUMN,...", help="fit every combination of these columns apart")
    parser.add_argument("--cluster", help="column that names the run a row belongs to (results table: run)")
    parser.add_argument("--weights", metavar="COLUMN", help="column with the known standard error of the loss")
    parser.add_argument(
        "--delta", type=float, help="Huber threshold on log residuals; inf: least squares (default: by size)"
    )
    parser.add_argument("--bootstrap", type=int, default=4000, help="resamples of whole runs; 0: none (default 4000)")
    parser.add_argument(
        "--noise", choices=("runs", "seeds"), default="runs", help="what the bootstrap draws anew (default runs)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=42,
        help="seed of the bootstrap; 4000 resamples leave up to 2 %% of luck (default 42)",
    )


def mapping(text: str, option: str) -> dict[str, str]:
    """{"N": "params"} from "N=params"; anything else is a `UserError`."""
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not (left and sign and right) for left, sign, right in pairs):
        raise UserError(f"cannot read {option} {text!r}; write it as N=COLUMN, several separated by commas")
    return {left.strip(): right.strip() for left, _, right in pairs}
