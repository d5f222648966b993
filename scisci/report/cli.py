"""`scisci report`: a results table and its fits as one page, or its charts as image files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from scisci.contracts.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from scisci.report.fits import Fit
    from scisci.report.study import Study


def main(argv: list[str]) -> None:
    """Run `scisci report ...`."""
    options = _parser().parse_args(argv)
    out = options.out or Path("report.html" if options.format == "html" else "charts")
    _check_out(out, options.format)

    from scisci.report import study as studies

    frame = studies.read_table(options.table, options.dataset)
    metric = studies.choose_metric(frame, options.metric)
    beside = options.table.with_name("fits.json")
    path = options.fits or (beside if beside.exists() else None)
    study = studies.assemble(frame, _fits(path, frame, metric.name), metric.name)
    if options.format == "html":
        _write_page(study, options.table, path, out)
    else:
        from scisci.report.export import write_images
        from scisci.report.layout import figures

        for image in write_images(figures(study), options.format, out):
            print(image)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scisci report",
        description="Show how errors scale, in distribution and out of it: a self-contained page, or images.",
    )
    parser.add_argument("table", type=Path, help="results table, see 'scisci sweep collect'")
    parser.add_argument(
        "--fits",
        type=Path,
        metavar="FILE",
        help="fits of 'scisci scale study --json' (default: fits.json beside the table, else made now)",
    )
    parser.add_argument("--out", type=Path, metavar="PATH", help="page (report.html), or folder of the images (charts)")
    parser.add_argument(
        "--format",
        choices=("html", "png", "svg", "pdf"),
        default="html",
        help="a page, or every chart as an image",
    )
    parser.add_argument("--metric", metavar="NAME", help="error to show (default: force_mae where there is one)")
    parser.add_argument("--dataset", metavar="NAME", help="which data set, where the table has several")
    return parser


def _check_out(out: Path, form: str) -> None:
    if form == "html" and out.is_dir():
        raise UserError(f"{out} is a folder; give --out the name of the page, such as {out / 'report.html'}")
    if form != "html" and (out.is_file() or out.suffix):
        raise UserError(f"--format {form} writes an image per chart; give --out a folder, not {out}")


def _fits(path: Path | None, frame: pd.DataFrame, metric: str) -> list[Fit]:
    """The fits in a file, or made now from the table where there is none."""
    from scisci.report.fits import parse

    if path is not None:
        from scisci.scaling.records import read_records

        return parse(read_records(path), str(path))
    from scisci.scaling.studies import study, study_records

    return parse(study_records(study(frame, metric), metric), "the study")


def _write_page(study: Study, table: Path, fits: Path | None, out: Path) -> None:
    from scisci.contracts.files import write_text
    from scisci.report.page import render
    from scisci.report.provenance import provenance

    write_text(out, render(study, provenance(study, table, fits, out)))
    print(out)
