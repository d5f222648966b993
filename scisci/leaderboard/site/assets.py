"""The files that all pages share: style, scripts, and the libraries they use, one copy of each per site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files as resources

from scisci.report.page import script_json, vega_bundle
from scisci.report.theme import FONT, SERIES, SHAPES, css_tokens, vega_config

_HERE = resources("scisci.leaderboard.site") / "assets"
_REPORT = resources("scisci.report") / "templates"


def files() -> Iterator[tuple[str, str]]:
    """Each shared file as its path in the site and its text."""
    yield "assets/site.css", style()
    for name in ("theme.js", "tables.js", "board.js"):
        yield f"assets/{name}", (_HERE / name).read_text("utf-8")
    yield "assets/charts.js", _charts()
    # As a file of its own and in a scope of its own: a page opened from disk may not load modules.
    yield "assets/vega.js", f'"use strict";(() => {{\n{vega_bundle()}\n}})();\n'
    for name in ("dataTables.min.js", "dataTables.LICENSE.txt"):
        yield f"assets/vendor/{name}", (_HERE / "vendor" / name).read_text("utf-8")


def style() -> str:
    """The report's style and what the site adds; the reader's choice of theme wins over the system's."""
    light, dark = (f"  color-scheme: {mode};\n{css_tokens(mode)}" for mode in ("light", "dark"))
    swatches = "\n".join(f".series-{i} {{ background: var(--series-{i}); }}" for i in range(len(SERIES["light"])))
    return "\n".join(
        [
            f":root {{\n  --font: {FONT};\n{light}\n}}",
            f"@media (prefers-color-scheme: dark) {{\n:root:not([data-theme=light]) {{\n{dark}\n}}\n}}",
            f":root[data-theme=dark] {{\n{dark}\n}}",
            swatches,
            (_REPORT / "page.css").read_text("utf-8"),
            (_HERE / "site.css").read_text("utf-8"),
        ]
    )


def _charts() -> str:
    theme = {mode: vega_config(mode) for mode in ("light", "dark")}
    known = {"configs": theme, "colours": SERIES, "shapes": SHAPES}
    panels, charts = (_REPORT / "panels.js").read_text("utf-8"), (_HERE / "charts.js").read_text("utf-8")
    return f'"use strict";\n(() => {{\nconst theme = {json.dumps(known)};\n{panels}\n{charts}}})();\n'


def points(rows: list[list[object]]) -> str:
    """Runs as a script, since a page opened from disk may load scripts but not data."""
    return f"window.scisciPoints = {script_json(rows)};\n"
