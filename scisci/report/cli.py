"""`scisci report`: a results table and its fits as one page, its charts as images, its tables as LaTeX or CSV."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scisci.contracts.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from scisci.report.fits import Fit
    from scisci.report.study import Study


PLACES = {
    "html": "report.html",
    **dict.fromkeys(("png", "svg", "pdf"), "charts"),
    **dict.fromkeys(("tex", "csv"), "tables"),
}


def main(argv: list[str]) -> None:
    """Run `scisci report ...`."""
    options = _parser().parse_args(argv)
    out = options.out or Path(PLACES[options.format])
    _check_out(out, options.format)
    if options.chart and options.format not in ("png", "svg", "pdf"):
        raise UserError(f"--chart {options.chart} is an image; add --format png, svg or pdf")

    from scisci.report import study as studies

    frame = studies.read_table(options.table, options.dataset)
    beside = options.table.with_name("fits.json")
    path = options.fits or (beside if beside.exists() else None)
    if options.chart:
        for written in _write_rates(studies.assemble(frame, [], options.metric), options.format, out):
            print(written)
        return
    fits = _read(path) if path else []
    metric = studies.choose_metric(frame, options.metric or next((fit.metric for fit in fits), None)).name
    study = studies.assemble(frame, fits if path else _fitted(frame, metric), metric)
    for written in _write(study, options.format, options.table, path, out):
        print(written)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scisci report",
        description="Show how errors scale, in distribution and out of it: a self-contained page, or its charts and "
        "tables for a paper.",
    )
    parser.add_argument("table", type=Path, help="results table, see 'scisci sweep collect'")
    parser.add_argument(
        "--fits",
        type=Path,
        metavar="FILE",
        help="fits of 'scisci scale study --json' (default: fits.json beside the table, else made now)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="page (report.html), folder of images (charts) or of tables (tables)"
    )
    parser.add_argument(
        "--format",
        choices=PLACES,
        default="html",
        help="a page; every chart as an image; or every table as a file, with tex also the paragraph on methods",
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="error to show (default: that of the fits, or the first that has a zero)"
    )
    parser.add_argument(
        "--chart",
        choices=("rates",),
        help="one image alone: rates, of error against learning rate, from the trials.parquet of 'scisci tune'",
    )
    parser.add_argument("--dataset", metavar="NAME", help="which data set, where the table has several")
    return parser


def _check_out(out: Path, form: str) -> None:
    if form == "html" and out.is_dir():
        raise UserError(f"{out} is a folder; give --out the name of the page, such as {out / 'report.html'}")
    if form != "html" and (out.is_file() or out.suffix):
        raise UserError(f"--format {form} writes a file per {PLACES[form][:-1]}; give --out a folder, not {out}")


def _read(path: Path) -> list[Fit]:
    from scisci.report.fits import parse
    from scisci.scaling.records import read_records

    return parse(read_records(path), str(path))


def _fitted(frame: pd.DataFrame, metric: str) -> list[Fit]:
    """The fits of a table that has none yet; published runs may lack a size or a data amount, and with it a fit."""
    from scisci.report.fits import parse
    from scisci.scaling.studies import study, study_records

    placed = frame[(frame.status != "ok") | (frame.params.notna() & frame.data.notna())]
    entries = study(placed, metric) if (placed.status == "ok").any() else []
    return parse(study_records(entries, metric), "the study")


def _write_rates(study: Study, form: str, out: Path) -> list[Path]:
    from scisci.report import export
    from scisci.report.layout import rates

    figures = rates(study)
    if not figures:
        raise UserError(
            "no model of the table was trained at several learning rates; make such a table by 'scisci tune'"
        )
    return export.write_images(figures, cast("export.Format", form), out)


def _write(study: Study, form: str, table: Path, fits: Path | None, out: Path) -> list[Path]:
    """Write the study in one form; returns the paths."""
    from scisci.contracts.files import write_text
    from scisci.report import export
    from scisci.report.layout import figures
    from scisci.report.page import render
    from scisci.report.provenance import provenance

    source = provenance(study, table, fits, out, form)
    if form == "html":
        write_text(out, render(study, source))
        return [out]
    if form == "tex":
        return export.write_tex(study, source, out)
    if form == "csv":
        return export.write_csv(study, out)
    return export.write_images(figures(study), cast("export.Format", form), out)
