from __future__ import annotations

import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scisci.report.export import PNG_WIDTH, image, write_images
from scisci.report.layout import Figure, figures, overview
from scisci.report.study import Study


@pytest.fixture(scope="session")
def summary(study: Study) -> Figure:
    return overview(study)[0]


def png_pixels(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and inflated scanlines of a PNG file, every chunk's checksum verified."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, size = 8, b"", (0, 0)
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    return *size, zlib.decompress(packed)


def svg_size(data: bytes) -> tuple[float, float]:
    root = ElementTree.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return float(root.attrib["width"]), float(root.attrib["height"])


def test_the_summary_is_a_png_of_the_stated_width(summary: Figure) -> None:
    width, height, pixels = png_pixels(image(summary, "png"))
    svg_width, svg_height = svg_size(image(summary, "svg"))
    assert abs(width - PNG_WIDTH) <= 1
    assert height / width == pytest.approx(svg_height / svg_width, abs=0.005)
    assert 800 <= svg_width <= 1400, "text at its natural size must stay legible at the exported width"
    assert len(pixels) >= height * width * 3
    assert len(set(pixels)) > 100


def test_an_svg_is_drawn_and_says_what_it_shows(summary: Figure, study: Study) -> None:
    text = image(summary, "svg").decode()
    for words in (summary.title, *(split.label for split in study.splits), *study.series):
        assert words in text
    assert text.count('aria-roledescription="point"') == 3 * 5 * 4
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_pdf_has_one_page_of_the_charts_size(summary: Figure) -> None:
    data = image(summary, "pdf")
    assert data.startswith(b"%PDF-")
    assert data.rstrip().endswith(b"%%EOF")
    box = data[data.index(b"/MediaBox") :].split(b"[", 1)[1].split(b"]", 1)[0]
    width, height = (float(number) for number in box.split()[2:])
    svg_width, svg_height = svg_size(image(summary, "svg"))
    assert width / height == pytest.approx(svg_width / svg_height, rel=0.01)


def test_dark_images_differ_in_colour_alone(summary: Figure) -> None:
    light, dark = image(summary, "svg"), image(summary, "svg", "dark")
    assert svg_size(light) == svg_size(dark)
    assert b"#14171c" in dark
    assert b"#14171c" not in light


def test_every_chart_is_written(study: Study, tmp_path: Path) -> None:
    paths = write_images(figures(study), "svg", tmp_path / "new")
    names = {"overview", "error-params", "error-data", "error-flops", "ood-id", "severity", "symmetry"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"{name}.svg" for name in names}
    assert all(svg_size(path.read_bytes())[0] > 300 for path in paths)
