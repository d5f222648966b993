"""The site in Chromium: what a reader does with it, that nothing fails, and that nothing is asked of the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scisci.leaderboard.board import Board, Entry, Estimate
from scisci.leaderboard.site import build

from . import site_world as world

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("SCISCI_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; install one or name it in SCISCI_CHROMIUM")

BOARD = "boards/3bpa/index.html"
ROWS = "#table-board tbody tr"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def board() -> Board:
    return world.board(70, seed=5)


@pytest.fixture(scope="module")
def site(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    (folder / "README.md").write_text("# Submit\n\n    " + "wide " * 60 + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    build([board], folder / "site", folder / "README.md")
    return folder / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Open]:
    """Open a page of the site; at the end nothing may have gone wrong, been asked of the network, or popped up."""
    contexts, wrong = [], []

    def watch(page: Any) -> None:
        page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.on("request", lambda asked: asked.url.startswith(("file://", "data:")) or wrong.append(asked.url))

    def opened(path: str = BOARD, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        watch(page)
        page.goto(f"file://{site}/{path}")
        if path.startswith("boards") and options.get("java_script_enabled", True):
            page.wait_for_selector("table.ready")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def column(page: Any, name: str) -> list[str]:
    """What the rows in view show in one column."""
    at = page.locator("#table-board thead th").evaluate_all(
        "(heads, name) => heads.findIndex((head) => head.dataset.name === name)", name
    )
    assert at >= 0, f"{name} is not shown"
    return page.locator(ROWS).evaluate_all(
        "(rows, at) => rows.map((row) => (row.cells[at].querySelector('span, a') ?? row.cells[at]).textContent.trim())",
        at,
    )


def everyone(page: Any, name: str) -> list[str]:
    """What all rows show in one column, page by page from the first on."""
    if (first := page.locator(".dt-paging-button.first:not(.disabled)")).count():
        first.click()
    shown = column(page, name)
    while page.locator(".dt-paging-button.next:not(.disabled)").count():
        page.locator(".dt-paging-button.next").click()
        shown += column(page, name)
    return shown


def sort(page: Any, name: str, way: str = "ascending") -> None:
    head = page.locator(f"th[data-name='{name}']")
    head.locator(".dt-column-order").click()
    playwright.expect(head).to_have_attribute("aria-sort", way)


def names(entries: list[Entry]) -> set[str]:
    return {entry.submission.name for entry in entries}


def interval(estimate: Estimate) -> tuple[float, float]:
    low = estimate.value if estimate.low is None else estimate.low
    return low, estimate.value if estimate.high is None else estimate.high


def ranked(entries: list[Entry], by: str) -> dict[str, int | None]:
    """The rank of each entry among `entries` by counting; None where the leaderboard does not rank it."""
    held: dict[str, tuple[float, float]] = {}
    for entry in entries:
        score = entry.scores.get(by)
        if by == "overall" and entry.rank is not None and entry.overall:
            held[entry.submission.name] = interval(entry.overall)
        elif score and score.rank is not None:
            held[entry.submission.name] = interval(score.error)
    rank = lambda name: 1 + sum(high < held[name][0] for _, high in held.values())
    return {e.submission.name: rank(e.submission.name) if e.submission.name in held else None for e in entries}


FILTERS: dict[str, tuple[str, str, Callable[[Entry], bool]]] = {
    "none": ("q", "", lambda e: True),
    "words": ("q", "mace ada", lambda e: "mace" in e.submission.name.lower()),
    "nobody": ("q", "nobody at all", lambda e: False),
    "family": ("family", "equivariant", lambda e: e.submission.family == "equivariant"),
    "recomputed": ("status", "recomputed", lambda e: e.status != "self-reported"),
    "reproduced": ("status", "reproduced", lambda e: e.status == "reproduced"),
    "claim": ("claim", "rotation: exact", lambda e: e.submission.symmetry.get("rotation") == "exact"),
    "small": ("max", "1e4", lambda e: e.params is not None and e.params <= 1e4),
}


@pytest.mark.parametrize("name", FILTERS)
def test_ranks_are_among_the_models_that_a_filter_leaves(visit: Open, board: Board, name: str) -> None:
    field, value, keeps = FILTERS[name]
    left = [entry for entry in board.entries if keeps(entry)]
    page = visit()
    place = page.locator(f"[name={field}]")
    place.fill(value) if field == "q" else place.select_option(value)
    assert page.locator("#count").inner_text().split()[0] == str(len(left))
    if not left:
        assert page.locator(ROWS).inner_text() == "No matching records found"
        return
    for by in ("overall", *world.SPLITS):
        page.locator("[name=by]").select_option(by)
        shown = dict(zip(everyone(page, "name"), everyone(page, "rank"), strict=True))
        assert shown == {who: "–" if rank is None else str(rank) for who, rank in ranked(left, by).items()}


def test_ranks_of_the_whole_board_are_those_of_the_leaderboard(visit: Open, board: Board) -> None:
    page = visit()
    shown = dict(zip(everyone(page, "name"), everyone(page, "rank"), strict=True))
    assert shown == {e.submission.name: "–" if e.rank is None else str(e.rank) for e in board.entries}


@pytest.mark.parametrize("by", ["overall", "ood_600K"])
def test_the_table_is_in_order_of_rank_with_ties_by_error(visit: Open, board: Board, by: str) -> None:
    page = visit(f"{BOARD}#by={by}&family=equivariant")
    left = [entry for entry in board.entries if entry.submission.family == "equivariant"]
    rank = ranked(left, by)
    error = {
        e.submission.name: (e.overall if by == "overall" else e.scores[by].error)
        for e in left
        if by in e.scores or e.overall
    }
    known = [name for name in everyone(page, "name") if rank[name] is not None]
    assert known == sorted(known, key=lambda name: (rank[name], error[name].value))
    assert set(known) == {name for name in rank if rank[name] is not None}


VALUES: dict[str, Callable[[Entry], Any]] = {
    "error.test": lambda e: e.scores["test"].error.value,
    "error.ood_1200K": lambda e: e.scores["ood_1200K"].error.value if "ood_1200K" in e.scores else None,
    "flops": lambda e: e.flops,
    "seconds": lambda e: None if e.shared else e.seconds,
    "exponent.flops.test": lambda e: f.estimate.value if (f := e.exponent("flops", "test")) and f.estimate else None,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_column_sorts_up_and_down_with_missing_values_last(visit: Open, board: Board, name: str) -> None:
    page = visit()
    value = {entry.submission.name: VALUES[name](entry) for entry in board.entries}
    lacking = {who for who, number in value.items() if number is None}
    assert lacking or name == "error.test"
    for falling in (False, True):
        sort(page, name, "descending" if falling else "ascending")
        order = everyone(page, "name")
        known = [who for who in order if who not in lacking]
        assert known == sorted(known, key=lambda who: value[who], reverse=falling)
        assert set(order[len(known) :]) == lacking


def test_names_sort_as_people_count(visit: Open, board: Board) -> None:
    page = visit()
    sort(page, "name")
    order = [name for name in everyone(page, "name") if name.startswith("MACE")]
    assert order == ["MACE", *(f"MACE {i}" for i in range(2, 2 + len(order) - 1))]


def test_the_keyboard_alone_sorts_and_chooses_columns(visit: Open) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.locator("th[data-name='error.test'] .dt-column-order").focus()
    page.keyboard.press("Enter")
    playwright.expect(page.locator("th[data-name='error.test']")).to_have_attribute("aria-sort", "ascending")
    page.locator("#chooser summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # "As at first"
    page.keyboard.press("Tab")  # "All"
    page.keyboard.press("Enter")
    assert len(column(page, "licence")) == 50
    page.keyboard.press("Escape")
    assert not page.locator("#chooser").evaluate("chooser => chooser.open")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_columns_are_chosen_and_filled(visit: Open, board: Board) -> None:
    page = visit()
    assert page.locator("th[data-name='seeds']").count() == 0
    page.locator("#chooser summary").click()
    page.locator("#chooser input[value='seeds']").check()
    page.locator("#chooser input[value='params']").uncheck()
    page.mouse.click(5, 5)
    assert not page.locator("#chooser").evaluate("chooser => chooser.open")
    assert column(page, "seeds") == [str(entry.seeds) for entry in board.entries[:50]]
    assert page.locator("th[data-name='params']").count() == 0


def test_a_shared_address_restores_the_view(visit: Open) -> None:
    first = visit()
    first.locator("[name=family]").select_option("invariant")
    first.locator("[name=by]").select_option("ood_600K")
    first.locator("[name=q]").fill("a")
    sort(first, "gap.ood_600K")
    sort(first, "gap.ood_600K", "descending")
    first.locator("#chooser summary").click()
    first.locator("#chooser input[value='device']").check()
    first.locator("#chooser input[value='error.test']").uncheck()
    first.keyboard.press("Escape")
    first.locator(f"{ROWS} input").nth(3).check()
    first.locator("input[name=axis][value=data]").check()
    address = first.evaluate("location.hash")
    second = visit(f"{BOARD}{address}")
    state = """() => ({
        table: document.getElementById("table-board").innerText,
        ticked: [...document.querySelectorAll("input:checked")].map((box) => box.value + (box.dataset.slug ?? "")),
        fields: [...document.querySelectorAll("#filters [name]")].map((field) => field.value),
        hash: location.hash,
    })"""
    assert second.evaluate(state) == first.evaluate(state)
    assert first.locator(ROWS).count() > 3
    second.locator("#reset").click()
    assert second.evaluate("location.hash") == ""
    assert second.evaluate(state) == visit().evaluate(state)


@pytest.mark.parametrize(
    "fragment", ["sort=-nothing", "by=nothing&max=7", "on=nobody", "show=x&hide=%00", "q=%3Cimg%3E", "="]
)
def test_an_address_that_makes_no_sense_breaks_nothing(visit: Open, fragment: str) -> None:
    page = visit(f"{BOARD}#{fragment}")
    assert page.locator(ROWS).count() >= 1


def test_going_to_a_section_keeps_the_view(visit: Open) -> None:
    page = visit(f"{BOARD}#family=invariant&sort=error.test")
    rows = column(page, "name")
    page.get_by_role("link", name="Data set").click()
    until(page, lambda: page.evaluate("location.hash"), "#family=invariant&sort=error.test")
    assert column(page, "name") == rows
    assert page.evaluate("scrollY") > 0


def marks(page: Any, chart: str, kind: str = "mark-symbol") -> int:
    return page.locator(f"[data-chart={chart}] .{kind} path:not(.background)").count()


def drawn(page: Any, chart: str) -> None:
    page.locator(f"[data-chart={chart}]").scroll_into_view_if_needed()
    page.wait_for_selector(f"[data-chart={chart}] svg")


def until(page: Any, seen: Callable[[], Any], wanted: Any) -> None:
    """Wait until what is seen is what is wanted, at most ten seconds."""
    for _ in range(100):
        if seen() == wanted:
            return
        page.wait_for_timeout(100)
    assert seen() == wanted


def test_models_are_switched_on_and_off_in_the_scaling_charts(visit: Open, board: Board) -> None:
    page = visit()
    drawn(page, "scaling")
    runs = lambda entries: sum(point.slug in {e.slug for e in entries} for point in board.points)
    forecasts = lambda entries: sum(
        bool(e.exponent("flops", s) and e.exponent("flops", s).forecast) for e in entries for s in e.scores
    )
    scaling = lambda: marks(page, "scaling")
    until(page, scaling, runs(board.entries[:5]) + forecasts(board.entries[:5]))
    page.locator("#models input").nth(1).uncheck()
    left = [board.entries[i] for i in (0, 2, 3, 4)]
    until(page, scaling, runs(left) + forecasts(left))
    page.locator("input[name=axis][value=params]").check()
    until(page, scaling, runs(left))
    assert page.evaluate("document.activeElement.value") == "params"


def test_scatter_and_frontier_follow_the_filter(visit: Open, board: Board) -> None:
    page = visit()
    page.locator("[name=family]").select_option("equivariant")
    left = [entry for entry in board.entries if entry.submission.family == "equivariant"]
    drawn(page, "shift")
    until(page, lambda: marks(page, "shift"), sum(split in e.scores for e in left for split in world.SPLITS[1:]))
    drawn(page, "compute")
    until(page, lambda: marks(page, "compute"), sum(len(e.scores) for e in left if e.flops))


def test_the_frontier_is_the_lowest_error_for_the_compute_spent(visit: Open, board: Board) -> None:
    page = visit()
    drawn(page, "compute")
    lines = page.locator("[data-chart=compute] .mark-line path").evaluate_all(
        "all => all.map((one) => one.getAttribute('d'))"
    )
    for split, line in zip(world.SPLITS, lines, strict=True):
        pairs = sorted((e.flops, e.scores[split].error.value) for e in board.entries if e.flops and split in e.scores)
        steps = sum(error <= min(other for flops, other in pairs if flops <= at) for at, error in pairs)
        assert line.count("L") == 2 * (steps - 1)  # a step is one line across and one down


def test_the_theme_is_the_systems_until_the_reader_chooses(visit: Open) -> None:
    page = visit(color_scheme="dark")
    colour = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = colour()
    drawn(page, "scaling")
    axis = lambda: page.locator("[data-chart=scaling] .role-axis-title text").first.get_attribute("fill")
    in_dark = axis()
    page.locator("#theme").click()
    assert colour() == "rgb(255, 255, 255)" != dark
    drawn(page, "scaling")  # what is out of view waits
    until(page, lambda: axis() != in_dark, True)
    page.reload()
    assert colour() == "rgb(255, 255, 255)"


PAGES = ["index.html", "submit.html", BOARD, "models/model-0003/index.html", "models/model-0069/index.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_nothing_stands_in_the_way_of_a_screen_reader(visit: Open, path: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(path, color_scheme=scheme)
    if path == BOARD:
        for chart in ("scaling", "shift", "compute"):
            drawn(page, chart)
        page.locator("#chooser summary").click()
    found = axe.Axe().run(page, options={"preload": False}).response
    grave = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"]) for one in grave] == []
    assert {"color-contrast", "document-title", "html-has-lang"} <= {one["id"] for one in found["passes"]}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_a_phone(visit: Open, path: str) -> None:
    page = visit(path, viewport={"width": 390, "height": 844}, is_mobile=True)
    if path == BOARD:
        for chart in ("scaling", "shift", "compute"):
            drawn(page, chart)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("visualViewport.scale") == 1


def test_without_scripts_the_best_models_are_there(visit: Open, board: Board) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(f"{ROWS} th a").all_inner_texts() == [entry.submission.name for entry in board.entries[:50]]
    assert page.locator("#filters").is_hidden()
    assert page.locator("noscript").count() == 1


def test_long_tables_of_a_model_page_sort_too(visit: Open) -> None:
    page = visit("models/model-0003/index.html")
    head = page.locator("#table-runs thead th").filter(has_text="parameters")
    for way in ("ascending", "descending"):
        head.locator(".dt-column-order").click()
        playwright.expect(head).to_have_attribute("aria-sort", way)
    assert page.locator("#table-runs tbody tr").first.inner_text().split("\t")[5] == "300,000"
