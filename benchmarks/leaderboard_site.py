"""How the leaderboard's site grows with its submissions: building it, and what a reader of its first table waits for.

Times in Chromium are medians of a few visits. `seen` is from the start of the visit until something is painted,
`ready` until the table can be sorted and filtered. CPU times of the browser's main thread stand beside times on the
clock, since a busy machine does not change them.

Run: python -m benchmarks leaderboard_site
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._synthetic_board import synthetic
from scisci.leaderboard.ranks import boards
from scisci.leaderboard.site import build

COUNTS = (100, 300, 1000)
VISITS = 5
SORTS = ("error.test", "name", "params", "rank")
# A click sorts after the event; what is timed is until the rows are there and laid out.
TIMED = """async (act) => {
    const start = performance.now();
    const table = document.getElementById("table-board");
    const drawn = new Promise((done) => table.addEventListener("draw", done, { once: true }));
    eval(act);
    await drawn;
    document.body.offsetHeight;
    return performance.now() - start;
}"""
SORT = """document.querySelector(`th[data-name="{}"] .dt-column-order`).click()"""
FILTER = """const field = document.querySelector("[name=q]"); field.value = "mace";
field.dispatchEvent(new Event("input", { bubbles: true }))"""
SEEN = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def visit(browser: Any, page_path: Path) -> dict[str, float]:
    """Milliseconds of one visit to a board."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, bypass_csp=True)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu() -> float:
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return 1000 * metrics["TaskDuration"]

    def timed(act: str) -> tuple[float, float]:
        before = cpu()
        return page.evaluate(TIMED, act), cpu() - before

    start = time.perf_counter()
    page.goto(f"file://{page_path}", wait_until="commit")
    page.wait_for_selector("table.ready")
    found = {"ready": 1000 * (time.perf_counter() - start), "ready_cpu": cpu(), "seen": page.evaluate(SEEN)}
    sorts = [timed(SORT.format(name)) for name in SORTS]
    found["sort"], found["sort_cpu"] = (max(kind) for kind in zip(*sorts, strict=True))
    found["filter"], found["filter_cpu"] = timed(FILTER)
    page.close()
    return found


def measure(browser: Any, count: int) -> tuple[float, float, float, dict[str, float]]:
    """CPU and wall seconds of a build, MB of its largest page, and medians of the visits in milliseconds."""
    found = boards(list(synthetic(count)), reference="nequip")
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        build(found, Path(folder) / "site")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        page = (Path(folder) / "site" / "boards" / found[0].name / "index.html").resolve()
        visits = [visit(browser, page) for _ in range(VISITS)]
        size = page.stat().st_size / 1e6
    return cpu, wall, size, {name: median(one[name] for one in visits) for name in visits[0]}


def main() -> None:
    """Print a row per number of submissions, and the power of that number with which the CPU time of a build grows."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    print("build in seconds, browser in milliseconds; sort is the slowest of four; cpu is that of the column before")
    kinds = ("seen", "ready", "ready_cpu", "sort", "sort_cpu", "filter", "filter_cpu")
    heads = ("count", "build", "cpu", "page MB", *(kind.rpartition("_")[2] for kind in kinds), "power")
    print(" ".join(f"{head:>8}" for head in heads))
    before: tuple[int, float] | None = None
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for count in COUNTS:
            cpu, wall, size, ms = measure(browser, count)
            power = math.log(cpu / before[1]) / math.log(count / before[0]) if before else math.nan
            before = count, cpu
            waits = " ".join(f"{ms[kind]:8.0f}" for kind in kinds)
            print(f"{count:8d} {wall:8.1f} {cpu:8.1f} {size:8.1f} {waits} {power:8.2f}", flush=True)


if __name__ == "__main__":
    main()
