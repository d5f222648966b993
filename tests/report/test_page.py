from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scisci.contracts.results import write_results
from scisci.report import tables
from scisci.report.fits import parse
from scisci.report.layout import figures, overview
from scisci.report.page import render, script_json
from scisci.report.provenance import Provenance, provenance
from scisci.report.study import Study, assemble, read_table

from . import entries, world

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>&<!--"
FETCHING = {
    "src",
    "href",
    "srcset",
    "data",
    "action",
    "formaction",
    "poster",
    "background",
    "cite",
    "manifest",
}


class Page(HTMLParser):
    """Everything a test asks of a page: its elements with their attributes, and the text inside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", data))

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def inside(self, *tags: str) -> str:
        return "".join(data for tag, data in self.text if tag in tags)

    @property
    def visible(self) -> str:
        return "".join(data for tag, data in self.text if tag not in ("script", "style"))


@pytest.fixture(scope="session")
def text(study: Study, table: Path) -> str:
    return render(study, provenance(study, table, table.with_name("fits.json"), Path("report.html")))


@pytest.fixture(scope="session")
def page(text: str) -> Page:
    return Page(text)


def embedded(text: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_opening_the_page_fetches_nothing(page: Page, text: str) -> None:
    for tag, attributes in page.elements:
        for name in FETCHING & attributes.keys():
            assert (attributes[name] or "").startswith("#"), (tag, name, attributes[name])
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
    styles = page.inside("style")
    assert "url(" not in styles
    assert "@import" not in styles
    own = text[text.rindex('<script type="module">') :]
    assert not re.search(r"\bimport\b|fetch\(|https?:", own)
    specs = json.dumps(embedded(text, "charts"))
    assert set(re.findall(r"https?://[^\"]*", specs)) == {"https://vega.github.io/schema/vega-lite/v6.4.1.json"}
    assert '"url"' not in specs


def test_vega_is_there_once(text: str) -> None:
    assert text.count("window.vegaEmbed=") == 1
    assert len(re.findall(r"<script", text)) == 4
    assert len(text) < 3_000_000


def test_every_chart_is_there_as_its_function_makes_it(study: Study, page: Page, text: str) -> None:
    charts = embedded(text, "charts")
    shown = [figure for figure in figures(study) if figure.key != overview(study)[0].key]
    assert charts == json.loads(json.dumps({figure.key: figure.spec() for figure in shown}))
    assert [a["data-chart"] for a in page.of("div") if "data-chart" in a] == [figure.key for figure in shown]
    assert all(spec["description"] for spec in charts.values())


def test_tables_are_accessible(page: Page) -> None:
    found = page.of("table")
    assert len(found) >= 7
    assert len(page.of("caption")) == len(found)
    assert all(a.get("scope") in ("col", "row") for a in page.of("th"))
    assert all(a.get("aria-sort") == "none" for a in page.of("th") if a["scope"] == "col")
    regions = [a for a in page.of("div") if a.get("role") == "region"]
    assert len(regions) == len(found)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "href"):
            assert (attributes.get(name) or ids[0]).lstrip("#") in ids
    assert page.of("html") == [{"lang": "en"}]
    assert any(a.get("name") == "viewport" for a in page.of("meta"))


def test_both_themes_define_every_colour_used(page: Page, text: str) -> None:
    style = page.inside("style")
    light, dark = style.split("@media (prefers-color-scheme: dark)", 1)
    dark = dark[: dark.index("}\n}")]
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", style)) - {"--font", "--edge"}
    assert len(used) > 10
    for mode in (light, dark):
        assert used <= set(re.findall(r"(--[a-z0-9-]+):", mode))
    configs = embedded(text, "configs")
    assert configs["light"]["background"] in light
    assert configs["dark"]["background"] in dark


def test_a_fit_that_is_not_identified_shows_no_number(page: Page, study: Study) -> None:
    table = tables.exponents(study, "params")
    row = next(row for row in table.rows if row[0].text == "transformer")
    cell = row[table.columns.index("OOD · molecule")]
    assert (cell.text, cell.order, cell.verdict) == ("not identified", None, "not identified")
    assert [table.notes[i - 1] for i in cell.notes] == [f"T{entries.REASON[1:]}"]
    assert f"T{entries.REASON[1:]}" in page.visible
    assert "0.123" not in page.visible


def test_a_number_in_a_refused_fit_stays_hidden(frame: pd.DataFrame) -> None:
    """Even a file that breaks the layout's promise cannot put a bare exponent on the page."""
    records = entries.entries(frame)
    for record in records:
        record["audit"] = {"verdict": "not identified", "reasons": ["because"]}
        record["text"] = "0.98765"
        record["parameters"]["alpha"] = {"value": 0.98765, "ci95": [0.9, 1.0]}
        record["differences"] = []
    study = assemble(frame, parse(records, "fits"))
    text = render(study, Provenance([], []))
    assert "0.98765" not in text
    assert "not identified" in Page(text).visible


def test_a_study_without_a_frontier_says_why(frame: pd.DataFrame) -> None:
    """What `scisci scale study` writes where no split could choose a compute frontier."""
    records = entries.entries(frame)
    reason = "neither 'val' nor 'test' was evaluated"
    for record in records:
        if record["axis"] == "flops":
            empty = {"x": [], "y": [], "se": [], "run": []}
            record |= {"fixed": {"frontier": None}, "parameters": {}, "points": empty, "curve": None, "n": 0}
            record |= {"interval": None, "audit": {"verdict": "not identified", "reasons": [reason]}}
    table = tables.exponents(assemble(frame, parse(records, "fits")), "flops")
    assert "chosen on no split" in table.caption
    assert table.notes == ["Neither 'val' nor 'test' was evaluated."]
    assert {cell.text for row in table.rows for cell in row[3:]} == {"not identified"}


def test_exponents_are_shown_as_the_fits_print_them(study: Study) -> None:
    for axis in ("params", "data", "flops"):
        table = tables.exponents(study, axis)
        shown = {
            (row[0].text, column): cell.text
            for row in table.rows
            for column, cell in zip(table.columns, row, strict=True)
        }
        for fit in study.fits_of(axis):
            assert shown[fit.series, study.labels[fit.split]] == fit.text


def test_every_pair_of_architectures_is_compared_once(study: Study) -> None:
    table = tables.between_architectures(study)
    pairs = [row[0].text for row in table.rows if row[1].text == "parameters"]
    assert pairs == ["mpnn − nequip", "mpnn − transformer", "nequip − transformer"]
    assert [cell.strong for cell in table.rows[0][2:]] == [True] * 5
    assert [cell.strong for cell in table.rows[1][2:4]] == [False] * 2
    assert "Law: power." in table.caption
    assert "Intervals: Welch t." in table.caption


def test_best_runs_and_failures_come_from_the_table(study: Study, frame: pd.DataFrame) -> None:
    best = tables.best(study)
    scores = frame[(frame.metric == "force_mae") & frame.split.eq("test")]
    for row in best.rows:
        mine = scores[scores.architecture == row[0].text]
        assert row[best.columns.index("ID · test")].order == mine.value.min()
    ended = tables.not_finished(study)
    reasons = {row[ended.columns.index("reason")].text for row in ended.rows}
    assert reasons == {"loss is NaN at step 212", "killed by signal 9"}


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    rows = [*world.table_rows()]
    for row in rows:
        row["reason"] = row["reason"] and HOSTILE
        row["study"] = HOSTILE
        row["dataset"] = HOSTILE
        row["device"] = HOSTILE
        if row["architecture"] == "mpnn":
            row["architecture"] = HOSTILE
        if row.get("split") == "ood_size":
            row["split"] = f"ood_{HOSTILE}"
    path = tmp_path / "t.parquet"
    write_results(path, rows)
    study = assemble(read_table(path), [])
    text = render(study, provenance(study, path, None, Path("a b;c.html")))
    page = Page(text)
    assert len(page.of("script")) == 4
    assert not page.of("img")
    assert HOSTILE in page.visible
    assert "'a b;c.html'" in page.visible
    charts = embedded(text, "charts")
    assert any(HOSTILE in json.dumps(spec, ensure_ascii=False).replace("\\", "") for spec in charts.values())


def test_script_json_reads_back_and_cannot_close_its_element() -> None:
    value = {"a": [HOSTILE, "\u2028é"]}
    written = str(script_json(value))
    assert json.loads(written) == value
    assert not set("<>&\u2028") & set(written)
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_the_same_study_gives_the_same_page(study: Study, table: Path, text: str) -> None:
    again = render(study, provenance(study, table, table.with_name("fits.json"), Path("report.html")))
    assert again == text


def test_a_study_of_one_split_without_symmetry_or_fits_makes_a_page(frame: pd.DataFrame) -> None:
    plain = frame[(frame.split == "test") & (frame.metric == "force_mae")]
    text = render(assemble(plain, []), Provenance([], []))
    assert embedded(text, "charts").keys() == {"error-params", "error-data", "error-flops"}
