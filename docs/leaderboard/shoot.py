"""Take the pictures of the leaderboard in this folder: python docs/leaderboard/shoot.py SITE

SITE is a folder that `scisci leaderboard build` wrote. The board of most models is shown, on a desktop and a phone,
light and dark, and the top of its charts.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
# file → colour scheme, window, what is scrolled to
SHOTS: dict[str, tuple[str, Any, str]] = {
    "board-light.png": ("light", DESKTOP, "header"),
    "charts-dark.png": ("dark", DESKTOP, "#scaling"),
    "board-phone-dark.png": ("dark", PHONE, "#ranking"),
    "charts-phone-light.png": ("light", PHONE, "#scaling"),
}


def main() -> None:
    """Write every picture of the site named on the command line."""
    board = max(Path(sys.argv[1]).resolve().glob("boards/*/index.html"), key=lambda path: path.stat().st_size)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (scheme, window, place) in SHOTS.items():
            page = browser.new_page(color_scheme=scheme, viewport=window, is_mobile=window is PHONE)
            page.goto(f"file://{board}")
            page.wait_for_selector("table.ready")
            page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
            if place == "#scaling":
                page.wait_for_selector("[data-chart=scaling] svg")
                page.wait_for_timeout(2000)  # until charts above and below have their height
                page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
            page.wait_for_timeout(1000)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE)  # keeps the few bright marks apart
            picture.save(HERE / name, optimize=True)
            print(HERE / name)


if __name__ == "__main__":
    main()
