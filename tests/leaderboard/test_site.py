"""The site without a browser: its files, links, downloads, and what hostile words become."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.leaderboard.board import Board, Estimate
from scisci.leaderboard.site import build
from scisci.leaderboard.site.cells import Column, Table, count, text, words
from scisci.leaderboard.site.columns import wall_time
from scisci.leaderboard.site.lines import Line, shared_line
from scisci.report.wording import duration

from . import site_world as world

VOID = {"meta", "link", "input", "br", "img", "hr"}
GUIDE = """# Submit

Run it <script>alert(1)</script>, see [here](javascript:alert(1)), [there](../README.md), [far](https://example.org/x).

| a | b |
|---|---|
| 1 | 2 |
"""


class Page(html.parser.HTMLParser):
    """The elements of a page, which must be nested and closed, with distinct attributes and ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert not self.open, f"{path}: {self.open} are not closed"
        ids = self.values("id")
        assert len(ids) == len(set(ids)), f"{path}: an id is there twice"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "script":
            self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def boards() -> list[Board]:
    small = {"name": "pm-halos", "dataset": "pm-halos", "title": "Halos", "domain": "cloud", "compute": None}
    return [world.board(26), world.board(3, seed=1, hostile=False, **small, reference=None)]


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guide") / "README.md"
    path.write_text(GUIDE)
    return path


@pytest.fixture(scope="module")
def site(boards: list[Board], guide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    build(boards, out, guide)
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_is_a_page_for_every_board_and_model(site: Path, boards: list[Board], pages: dict[Path, Page]) -> None:
    slugs = {entry.slug for board in boards for entry in board.entries}
    wanted = {"index.html", "submit.html", *(f"boards/{board.name}/index.html" for board in boards)}
    assert {str(path.relative_to(site)) for path in pages} == wanted | {f"models/{slug}/index.html" for slug in slugs}


def test_every_link_resolves_inside_the_site(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for target in [*page.values("href"), *page.values("src")]:
            parts = urlsplit(target)
            if parts.scheme in ("https", "http", "data"):
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert found.is_file(), f"{path}: {target}"
            assert found.is_relative_to(site)
            if parts.fragment and "=" not in parts.fragment:
                assert parts.fragment in pages[found].values("id"), f"{path}: {target}"


def test_pages_run_no_scripts_and_styles_but_the_sites_own(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'"), path
        assert "unsafe" not in policy
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (path, tag)
            assert tag not in ("style", "iframe", "object", "embed", "base", "img")
            if tag == "script":
                data = attributes.get("type") == "application/json"
                assert data or re.fullmatch(r"(\.\./)*assets/[\w./]+\.js", attributes["src"]), path


def test_hostile_words_are_shown_as_they_are(site: Path, pages: dict[Path, Page], boards: list[Board]) -> None:
    slug = next(entry.slug for entry in boards[0].entries if entry.flags == (world.HOSTILE,))
    shown = "".join(pages[site / "models" / slug / "index.html"].words)
    assert shown.count(world.HOSTILE) >= 6  # summary, affiliation, flag, description, statement, hardware
    assert world.HOSTILE[:80] in "".join(pages[site / "boards/3bpa/index.html"].words)
    script = (site / "boards/3bpa/points.js").read_text()
    assert "<" not in script.removeprefix("window.scisciPoints = ")


def test_links_of_submissions_are_of_the_web_and_vouched_for_by_nobody(pages: dict[Path, Page]) -> None:
    outside = [a for page in pages.values() for tag, a in page.elements if "example.org/" in a.get("href", "")]
    from_models = [a for a in outside if not a["href"].endswith("/x")]
    assert from_models
    assert all({"noopener", "nofollow"} <= set(a["rel"].split()) for a in from_models)
    assert all(urlsplit(a["href"]).scheme == "https" for a in outside)
    with pytest.raises(ValidationError, match="URL scheme"):
        world.submission("Evil", "baseline", links={"code": "javascript:alert(1)"})


def test_the_guide_is_rendered_without_its_html_and_its_inner_links(site: Path, pages: dict[Path, Page]) -> None:
    page = pages[site / "submit.html"]
    assert "<script>alert(1)</script>" in "".join(page.words)
    links = [link for link in page.values("href") if not link.startswith(("index", "submit", "assets", "data:", "#"))]
    assert links == ["https://example.org/x"]
    assert {"h1", "table", "td"} <= {tag for tag, _ in page.elements}


def test_the_same_boards_give_the_same_bytes(site: Path, boards: list[Board], guide: Path, tmp_path: Path) -> None:
    build(boards, tmp_path / "again", guide)
    assert contents(tmp_path / "again") == contents(site)


def test_the_table_can_be_downloaded_with_every_number(site: Path, boards: list[Board]) -> None:
    for board in boards:
        folder = site / "boards" / board.name
        rows = json.loads((folder / "table.json").read_text())
        assert [row["slug"] for row in rows] == [entry.slug for entry in board.entries]
        for row, entry in zip(rows, board.entries, strict=True):
            assert (row["rank"], row["params"], row["flops"]) == (entry.rank, entry.params, entry.flops)
            assert (row["runs_ok"], row["runs"], row["flags"]) == (6, 7, len(entry.flags))
            for split in board.splits:
                score = entry.scores.get(split)
                for key, estimate in (("error", score and score.error), ("sealed", score and score.sealed)):
                    ends = [row[f"{key}.{split}{end}"] for end in ("", "_low", "_high")]
                    assert ends == ([None] * 3 if estimate is None else list(dataclasses.astuple(estimate)))
                found = entry.exponent("data", split)
                assert row[f"exponent.data.{split}"] == (found.estimate.value if found and found.estimate else None)


def test_times_on_shared_devices_are_shown_but_are_no_numbers(site: Path, boards: list[Board]) -> None:
    rows = {
        row["slug"]: row for row in csv.DictReader(io.StringIO((site / "boards/3bpa/table.csv").read_text("utf-8")))
    }
    cells = {entry.slug: (entry, wall_time(entry.seconds, entry.shared)) for entry in boards[0].entries}
    assert {entry.shared for entry, _ in cells.values()} == {True, False, None}
    for slug, (entry, cell) in cells.items():
        assert cell.text == duration(entry.seconds)
        assert rows[slug]["seconds"] == ("" if entry.shared else str(entry.seconds))
        assert rows[slug]["shared"] == {True: "yes", False: "no", None: "not known"}[entry.shared]
        assert (cell.note, cell.value) == (("shared device", None) if entry.shared else ("", entry.seconds))
        assert ("not known" in cell.hint) is (entry.shared is None)


def test_csv_and_json_hold_the_same(site: Path) -> None:
    tables = sorted(site.rglob("*.csv"))
    assert {path.name for path in tables} == {"table.csv", "runs.csv", "scores.csv", "exponents.csv"}
    for path in tables:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
        records = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert len(rows) == len(records), path
        for row, record in zip(rows, records, strict=True):
            assert {name: "" if value is None else str(value) for name, value in record.items()} == row, path


def test_a_models_downloads_list_all_runs_and_exponents(site: Path, boards: list[Board]) -> None:
    entry = boards[0].entries[4]
    folder = site / "models" / entry.slug
    runs = json.loads((folder / "runs.json").read_text())
    assert [run["outcome"] for run in runs] == ["ok"] * 6 + ["diverged"]
    assert runs[-1]["reason"].startswith("NaN in step 7")
    assert "42.5" in runs[0]["reported"]
    exponents = json.loads((folder / "exponents.json").read_text())
    assert len([one for one in exponents if one["metric"] == "force_mae"]) >= len(entry.exponents)


@pytest.mark.parametrize("word", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_a_spreadsheet_runs_nothing_of_a_csv(word: str) -> None:
    table: Table[str] = Table("t", "", [Column("name", "name", "", text)], [word], "t")
    assert list(csv.reader(io.StringIO(table.csv())))[1] == [f"'{word}"]
    assert json.loads(table.json()) == [{"name": word}]


def test_negative_numbers_stay_numbers_in_a_csv() -> None:
    table: Table[float] = Table("t", "", [Column("x", "x", "", count)], [-1.5, float("nan")], "t")
    assert list(csv.reader(io.StringIO(table.csv())))[1:] == [["-1.5"], [""]]


def test_a_later_site_replaces_an_earlier_one_with_nothing_left_over(
    boards: list[Board], guide: Path, tmp_path: Path
) -> None:
    build(boards, tmp_path / "site", guide)
    build(boards[1:], tmp_path / "site", guide)
    build(boards[1:], tmp_path / "fresh", guide)
    assert contents(tmp_path / "site") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "site"]


def test_a_folder_of_other_things_is_not_touched(boards: list[Board], guide: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="other things"):
        build(boards, tmp_path, guide)
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


def test_a_site_that_cannot_be_built_leaves_the_earlier_one(boards: list[Board], guide: Path, tmp_path: Path) -> None:
    build(boards[1:], tmp_path / "site", guide)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="no guide"):
        build(boards, tmp_path / "site", tmp_path / "missing.md")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".hidden", "a b", "ä"])
def test_a_name_that_leaves_the_site_is_refused(boards: list[Board], guide: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a page"):
        build([dataclasses.replace(boards[1], name=name)], tmp_path / "site", guide)
    with pytest.raises(UserError, match="cannot name a page"):
        entries = (dataclasses.replace(boards[1].entries[0], slug=name),)
        build([dataclasses.replace(boards[1], entries=entries)], tmp_path / "site", guide)
    assert not list(tmp_path.iterdir())


def test_a_leaderboard_without_submissions_says_how_to_submit(guide: Path, tmp_path: Path) -> None:
    build([], tmp_path, guide)
    page = Page(tmp_path / "index.html")
    assert "Nothing has been submitted yet." in "".join(page.words)
    assert not (tmp_path / "boards").exists()


def test_a_model_of_which_every_run_failed_is_shown(boards: list[Board], guide: Path, tmp_path: Path) -> None:
    lost = dataclasses.replace(
        boards[1].entries[0], params=None, flops=None, scores={}, overall=None, rank=None, exponents=(), runs_ok=0
    )
    build([dataclasses.replace(boards[1], entries=(lost,), points=())], tmp_path, guide)
    row = json.loads((tmp_path / "boards/pm-halos/table.json").read_text())[0]
    assert (row["runs_ok"], row["params"], row["error.test"]) == (0, None, None)
    assert "0 of 7 runs ended well" in "".join(Page(tmp_path / f"models/{lost.slug}/index.html").words)


def test_two_models_of_one_name_are_told_apart(boards: list[Board], guide: Path, tmp_path: Path) -> None:
    first, second = boards[1].entries[:2]
    same = (first, dataclasses.replace(second, submission=first.submission))
    build([dataclasses.replace(boards[1], entries=same, points=())], tmp_path, guide)
    shown = "".join(Page(tmp_path / "boards/pm-halos/index.html").words)
    for entry in same:
        assert f"{first.submission.name} ({entry.slug})" in shown


def rescaled(board: Board, law: Callable[[np.ndarray], np.ndarray]) -> Board:
    """The board with OOD errors that follow a law of the ID errors."""
    inside = np.array([entry.scores["test"].error.value for entry in board.entries])
    entries = []
    for entry, value in zip(board.entries, law(inside), strict=True):
        score = dataclasses.replace(entry.scores["ood_600K"], error=Estimate(float(value)))
        entries.append(dataclasses.replace(entry, scores={**entry.scores, "ood_600K": score}))
    return dataclasses.replace(board, entries=tuple(entries))


def test_the_shared_line_finds_an_exact_power_law(boards: list[Board]) -> None:
    line = shared_line(rescaled(boards[0], lambda x: 3 * x**0.8), "ood_600K")
    assert isinstance(line, Line)
    assert (line.slope, line.low, line.high, line.r2) == pytest.approx((0.8, 0.8, 0.8, 1), abs=1e-6)
    for x, y, low, high in line.band:
        assert (y, low, high) == pytest.approx([3 * x**0.8] * 3, rel=1e-6)


def test_the_shared_lines_interval_and_band_are_those_of_the_covariance_matrix(boards: list[Board]) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, len(boards[0].entries))
    board = rescaled(boards[0], lambda x: 2 * x**0.9 * np.exp(noise))
    line = shared_line(board, "ood_600K")
    assert isinstance(line, Line)
    pairs = [[e.scores[s].error.value for s in ("test", "ood_600K")] for e in board.entries]
    x, y = np.log(np.array(pairs)).T
    coefficients, covariance = np.polyfit(x, y, 1, cov=True)
    t = stats.t(len(x) - 2).ppf(0.975)
    assert line.slope == pytest.approx(coefficients[0])
    assert (line.high - line.low) / 2 == pytest.approx(t * covariance[0, 0] ** 0.5)
    for at, middle, low, high in np.log(line.band)[::8]:
        design = np.array([at, 1.0])
        half = t * (design @ covariance @ design) ** 0.5
        assert [middle, low, high] == pytest.approx(design @ coefficients + np.array([0, -half, half]))


def test_no_line_is_drawn_where_its_slope_is_not_determined(boards: list[Board]) -> None:
    noise = np.random.default_rng(4).normal(0, 2, len(boards[0].entries))
    assert "not determined" in str(shared_line(rescaled(boards[0], lambda x: x * np.exp(noise)), "ood_600K"))
    assert "fewer than 8" in str(shared_line(boards[1], "ood_600K"))
    same = dataclasses.replace(boards[0], entries=(boards[0].entries[0],) * 9)
    assert "one ID error" in str(shared_line(same, "ood_600K"))


EXAMPLES = [
    (Estimate(12.3456), ("12.3", "")),
    (Estimate(12.3456, 11.9, 12.8), ("12.35", "[11.90, 12.80]")),
    (Estimate(1234.5, 1100.0, 1400.0), ("1,234", "[1,100, 1,400]")),
    (Estimate(0.0361, 0.0342, 0.0385), ("0.0361", "[0.0342, 0.0385]")),
    (Estimate(2.0, None, 2.5), ("2.00", "[?, 2.50]")),
    (Estimate(3e-9, 2e-9, 4e-9), ("3.00×10⁻⁹", "[2.00×10⁻⁹, 4.00×10⁻⁹]")),
    (Estimate(5.0, 5.0, 5.0), ("5.00", "")),
]


@pytest.mark.parametrize(("estimate", "shown"), EXAMPLES)
def test_digits_are_those_that_the_interval_supports(estimate: Estimate, shown: tuple[str, str]) -> None:
    assert words(estimate) == shown
