"""The page: one HTML file with everything in it, so that opening it needs no network."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from scisci.report.findings import findings
from scisci.report.layout import sections
from scisci.report.methods import methods
from scisci.report.provenance import Provenance
from scisci.report.study import Study
from scisci.report.theme import FONT, SERIES, css_tokens, vega_config
from scisci.report.wording import listed, unbroken

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def render(study: Study, source: Provenance) -> str:
    """The report of a study as HTML text; the same study gives the same text."""
    parts = sections(study)
    data = listed(sorted(study.frame.dataset.dropna().unique()))
    charts = {figure.key: figure.spec() for part in parts for figure in part.figures}
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=f"How {study.metric.label} scales on {data}",
            study=study,
            findings=findings(study),
            methods=methods(study),
            sections=parts,
            source=source,
            charts=script_json(charts),
            configs=script_json({mode: vega_config(mode) for mode in ("light", "dark")}),
            light=Markup(css_tokens("light")),
            dark=Markup(css_tokens("dark")),
            font=Markup(FONT),
            colours=len(SERIES["light"]),
            vega=Markup(vega_bundle()),
        )
    )


def script_json(value: Any) -> Markup:
    """JSON that is safe inside a <script> element: nothing in it can close the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets `window.vegaEmbed`."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)


def templates(package: str = "scisci.report") -> jinja2.Environment:
    """The templates of a package, which escape every text and refuse names that were not given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment
