"""`scisci data severity`: how errors grow with the severity of a shift, as a table and a chart."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError

FORMATS = ("png", "svg", "pdf")


def add(commands: Any) -> None:
    """Add the sub-command."""
    sub = commands.add_parser(
        "severity",
        help="errors of predictions against the severity of a shift",
        description="Hold predictions against labels sample by sample, in bins of severity, and write a table of"
        " errors with standard errors, and a chart of it.",
    )
    sub.add_argument("name", metavar="NAME", help="name of the data set, or path of the store")
    sub.add_argument(
        "predictions",
        nargs="+",
        metavar="[MODEL=]PATH",
        help="run directory, folder of predictions, or predictions file; the model is called as the run unless told",
    )
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table, .parquet; the chart, .png,"
                     " .svg or .pdf, with the table beside it")  # fmt: skip
    sub.add_argument(
        "--by", nargs="+", default=[], metavar="SHIFT", help="see 'scisci data shifts' (default: those of the splits)"
    )
    sub.add_argument("--bins", type=int, default=6, metavar="N", help="bins of each split (default: 6)")
    sub.add_argument("--metric", metavar="NAME", help="of the chart (default: force_mae where there is one)")
    sub.set_defaults(action=severity)


def severity(args: argparse.Namespace) -> None:
    """Write the table and, if asked, the chart."""
    from scisci.data.library import open_dataset

    form = args.out.suffix.removeprefix(".")
    if form not in ("parquet", *FORMATS):
        raise UserError(f"--out {args.out} ends in neither .parquet nor .{', .'.join(FORMATS)}; give such a name")
    if args.bins < 1:
        raise UserError(f"--bins is {args.bins}, but must be at least 1")
    models = dict[str, list[Path]]()
    for entry in args.predictions:
        model, paths = _predictions(entry)
        if model in models:
            raise UserError(f"two models are called {model!r}; tell them apart with MODEL=PATH")
        models[model] = paths
    store = open_dataset(args.name)

    from scisci.tasks.severity import severity_table, write_severity

    table = severity_table(store, models, args.by, args.bins)
    target = args.out.with_suffix(".parquet")
    if form == "parquet":
        write_severity(target, table)
        print(f"wrote {target}")
        return
    from scisci.contracts.files import atomic_path
    from scisci.report.export import image
    from scisci.report.severity import choose_metric, severity_curve

    frame = table.to_pandas()
    picture = image(severity_curve(frame, choose_metric(frame, args.metric)), form)
    write_severity(target, table)
    with atomic_path(args.out) as temporary:
        temporary.write_bytes(picture)
    print(f"wrote {target}\nwrote {args.out}")


def _predictions(entry: str) -> tuple[str, list[Path]]:
    """A model's name and its predictions files."""
    name, sign, path = entry.rpartition("=")
    given = Path(path)
    folder = given / "predictions" if (given / "predictions").is_dir() else given
    paths = [folder] if folder.is_file() else sorted(folder.glob("*.h5"))
    if not paths:
        raise UserError(f"no predictions at {given}; write them with 'scisci predict'")
    own = folder.stem if folder.is_file() else folder.absolute().name
    return name if sign else (folder.absolute().parent.name if own == "predictions" else own), paths
