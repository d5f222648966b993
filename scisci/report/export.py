"""Charts as image files: PNG of a fixed width, SVG and PDF at their own size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import altair as alt
import vl_convert

from scisci.contracts.files import atomic_path
from scisci.report.layout import Figure
from scisci.report.page import VEGA_LITE
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
