"""Charts as image files: PNG of a fixed width, SVG and PDF at their own size. Tables as LaTeX and CSV files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import altair as alt
import vl_convert

from scisci.contracts.files import atomic_path, write_text
from scisci.report.csv_tables import table_csv
from scisci.report.latex import PREAMBLE, paragraph, table_tex
from scisci.report.layout import Figure, sections
from scisci.report.methods import formulas, methods
from scisci.report.page import VEGA_LITE
from scisci.report.provenance import Provenance
from scisci.report.study import Study
from scisci.report.theme import vega_config

Format = Literal["png", "svg", "pdf"]
PNG_WIDTH = 1200  # pixels, whatever the chart


def image(figure: Figure, form: Format, mode: str = "light") -> bytes:
    """A figure, title included, as the bytes of an image file in the light or the dark theme."""
    title = alt.Title(figure.title, subtitle=figure.subtitle, fontSize=16, subtitleFontSize=12, offset=14)
    spec = figure.chart.properties(title=title, description=figure.caption).to_dict()
    config = vega_config(mode) | {"padding": 12}
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, config=config)
    if form == "svg":
        return svg.encode()
    if form == "pdf":
        return vl_convert.svg_to_pdf(svg)
    return vl_convert.svg_to_png(svg, scale=PNG_WIDTH / svg_width(svg))


def svg_width(svg: str) -> float:
    """The width that an SVG file states for itself, in pixels."""
    found = re.search(r'<svg[^>]*?\swidth="([\d.]+)"', svg)
    assert found, "Vega writes the width of every SVG"
    return float(found[1])


def write_tex(study: Study, source: Provenance, folder: Path) -> list[Path]:
    """Write every table as `folder`/KEY.tex, to be read with \\input, and the paragraph on methods as methods.tex."""
    texts = {table.key: table_tex(table) for part in sections(study) for table in part.tables}
    texts["methods"] = paragraph(methods(study), formulas(study)) + "\n"
    head = "".join(f"% {' '.join(line.split())}\n" for line in (*source.commands, f"needs {PREAMBLE}"))
    return _write({f"{key}.tex": head + text for key, text in texts.items()}, folder)


def write_csv(study: Study, folder: Path) -> list[Path]:
    """Write every table as `folder`/KEY.csv."""
    tables = [table for part in sections(study) for table in part.tables]
    return _write({f"{table.key}.csv": table_csv(table) for table in tables}, folder)


def _write(texts: dict[str, str], folder: Path) -> list[Path]:
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def write_images(figures: list[Figure], form: Format, folder: Path) -> list[Path]:
    """Write every figure as `folder`/KEY.FORMAT, each wholly or not at all; returns the paths."""
    paths = []
    for figure in figures:
        data = image(figure, form)
        path = folder / f"{figure.key}.{form}"
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
        paths.append(path)
    return paths
