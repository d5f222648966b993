"""`scisci symmetry`: measure the symmetry errors of a trained model, print them and write them to a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd


def parser() -> argparse.ArgumentParser:
    """The options of `scisci symmetry`."""
    top = argparse.ArgumentParser(prog="scisci symmetry", description="Symmetry of trained models, measured.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("groups", help="the groups there are")
    listing.set_defaults(run=lambda _: show_groups())
    sub = commands.add_parser(
        "measure",
        help="the error of f(g x) against g f(x), by group g and predicted quantity f",
        description="Measure f(g x) - g f(x) of a trained model f for random elements g of symmetry groups (all"
        " elements of the finite ones), relative to f(x), with 95 % intervals; docs/symmetry.md defines each figure.",
    )
    sub.set_defaults(run=measure)
    sub.add_argument("checkpoint", metavar="CHECKPOINT", help="run directory, or a model or checkpoint file")
    sub.add_argument("--data", required=True, metavar="NAME", help="name of a data set, or path of a store")
    sub.add_argument("--split", nargs="+", default=["test"], metavar="S", help="one or more splits (default: test)")
    sub.add_argument(
        "--group",
        nargs="+",
        action="extend",
        metavar="G",
        default=[],
        help="of those that 'scisci symmetry groups' lists (default: those of the model's task)",
    )
    sub.add_argument("--samples", type=int, default=64, metavar="N", help="the first N of a split (default: 64)")
    sub.add_argument("--elements", type=int, default=8, metavar="K", help="random elements per sample (default: 8)")
    sub.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")
    sub.add_argument("--seed", type=int, default=0, help="of the elements drawn (default: 0)")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write all figures to a .json, .csv or .parquet file")
    return top


def main(argv: list[str]) -> None:
    """Run `scisci symmetry`."""
    args = parser().parse_args(argv)
    args.run(args)


def show_groups() -> None:
    """Print a row per symmetry group."""
    from rich.console import Console
    from rich.table import Table

    from scisci.symmetry.forecasts import ABOUT
    from scisci.symmetry.groups import GROUPS

    table = Table("group", "", "elements")
    for name, group in GROUPS.items():
        table.add_row(name, group.symbol, group.about)
    table.add_section()
    for name, (symbol, about) in ABOUT.items():
        table.add_row(name, symbol, f"time series: {about}")
    Console().print(table)


def measure(args: argparse.Namespace) -> None:
    """Measure, print and write what the options ask for."""
    for name in ("samples", "elements"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}, but must be at least 1")
    if args.out is not None and args.out.suffix not in WRITERS:
        raise unknown_name("ending of --out", args.out.suffix, WRITERS)
    from scisci.tasks.symmetry import measured

    groups = list(dict.fromkeys(args.group))
    table = measured(args.checkpoint, args.data, args.split, groups, args.samples, args.elements, args.dtype, args.seed)
    show(table)
    if args.out is not None:
        with atomic_path(args.out) as temporary:
            WRITERS[args.out.suffix](table, temporary)
        print(f"wrote {args.out}")


def _write_json(table: pd.DataFrame, path: Path) -> None:
    import pandas as pd

    # Not pandas' own, which rounds an error of 1e-16 to zero.
    rows = [{name: v for name, v in row.items() if pd.notna(v)} for row in table.to_dict("records")]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".json": _write_json,
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


def show(table: pd.DataFrame) -> None:
    """Print, per split, a row per group and quantity: errors, their distribution, and by angle where anything turns."""
    from rich.console import Console
    from rich.table import Table

    by, console = ["group", "quantity"], Console()
    # Of an f that is zero everywhere no row has it.
    table = table if "at" in table else table.assign(at=float("nan"))
    for split, measured in table.groupby("split", sort=False):
        for title, cells in TABLES.items():
            shown = Table("", *cells, title=f"{split}: {title}")
            for name, rows in measured.groupby(by, sort=False):
                shown.add_row(" ".join(name), *(cell(rows) for cell in cells.values()))
            console.print(shown)
        turned = measured[measured.statistic == "angle"]
        if len(turned):
            angles = sorted(turned["at"].unique())
            by_angle = Table("", *(f"{angle:g}°" for angle in angles), title=f"{split}: error / f by angle ± 15°")
            for name, rows in turned.groupby(by, sort=False):
                by_angle.add_row(" ".join(name), *(_value(rows, "angle", angle) for angle in angles))
            console.print(by_angle)


def _value(rows: pd.DataFrame, statistic: str, at: float | None = None, column: str = "value") -> str:
    found = rows[column][(rows.statistic == statistic) & (True if at is None else rows["at"] == at)]
    return f"{found.iloc[0]:.2g}" if found.notna().any() else "-"


def _interval(rows: pd.DataFrame) -> str:
    low, high = (_value(rows, "relative", column=end) for end in ("low", "high"))
    return f"{_value(rows, 'relative')} [{low}, {high}]"


def _cell(statistic: str, at: float | None = None) -> Callable[[pd.DataFrame], str]:
    return lambda rows: _value(rows, statistic, at)


# What is printed: title → columns, each of which makes its cell of the rows of one split, group and quantity.
TABLES: dict[str, dict[str, Callable[[pd.DataFrame], str]]] = {
    "rms of f(g x) - g f(x), with 95 % intervals over samples": {
        "error / f": _interval,
        "absolute": lambda rows: f"{_value(rows, 'absolute')} {rows.unit.max()}",
        "/ label error": _cell("over_label_error"),
    },
    "distribution of error / f over samples and group elements": {
        **{f"{at:.0%}": _cell("sample_quantile", at) for at in (0.05, 0.5, 0.95)},
        "sd, samples": _cell("sd_between_samples"),
        "sd, elements": _cell("sd_between_elements"),
        "worst": _cell("worst"),
    },
}
