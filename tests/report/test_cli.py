from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.results import write_results
from scisci.report.cli import main

from . import world


def test_fits_beside_the_table_are_found(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "page.html"
    main([str(table), "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert "How force MAE scales on xtb-molecules" in text
    assert "fits.json, sha256" in text
    assert f"scisci report {table} --fits {table.with_name('fits.json')} --metric force_mae" in text
    assert capsys.readouterr().out.strip() == str(out)


def test_without_fits_they_are_made_and_are_those_of_the_scaling_study(tmp_path: Path) -> None:
    """A small table, no fits file: the page carries the exponents that `scisci.scaling` prints for it."""
    from scisci.scaling.studies import study, study_records

    few = [
        row
        for row in world.table_rows()
        if row["architecture"] == "mpnn" and row.get("split") in ("test", "ood_1200K") and row["data"] > 1000
    ]
    write_results(tmp_path / "results.parquet", few)
    main([str(tmp_path / "results.parquet"), "--out", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    records = study_records(study(tmp_path / "results.parquet", "force_mae"), "force_mae")
    shown = [record for record in records if record["axis"] == "params"]
    assert len(shown) == 4
    assert all(record["text"] in text for record in shown)
    assert "made with this page" in text


def test_published_results_without_sizes_make_a_page_without_fits(tmp_path: Path) -> None:
    """As `scisci scale import-gift-eval` leaves them: errors of models whose size and data nobody stated."""
    published = [
        row | {"params": None, "size": "", "data": None, "flops": None, "seed": None} for row in world.table_rows()
    ]
    write_results(tmp_path / "results.parquet", [row for row in published if row["status"] == "ok"])
    main([str(tmp_path / "results.parquet"), "--out", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Best errors" in text
    assert "exponents against parameters" in text
    assert "Architectures: mpnn, nequip and transformer." in text
    assert "nan" not in text[text.index('id="methods"') :].split("</section>")[0]


def test_images_go_to_a_folder(table: Path, tmp_path: Path) -> None:
    main([str(table), "--format", "png", "--out", str(tmp_path / "charts"), "--metric", "force_mae"])
    assert len(list((tmp_path / "charts").glob("*.png"))) == 7


@pytest.mark.parametrize("form", ["tex", "csv"])
def test_tables_go_to_a_folder(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    main([str(table), "--format", form, "--out", str(tmp_path / "paper")])
    names = {"exponents-params", "exponents-data", "exponents-flops", "ood-id", "architectures", "symmetry", "best"}
    names |= {"not-finished"} | ({"methods"} if form == "tex" else set())
    assert {path.name for path in (tmp_path / "paper").iterdir()} == {f"{name}.{form}" for name in names}
    assert set(capsys.readouterr().out.split()) == {str(path) for path in (tmp_path / "paper").iterdir()}


def test_the_page_and_the_paper_tell_the_same_methods(table: Path, tmp_path: Path) -> None:
    main([str(table), "--format", "tex", "--out", str(tmp_path)])
    main([str(table), "--out", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    paper = (tmp_path / "methods.tex").read_text(encoding="utf-8")
    for words in ("48 runs were made on the data set xtb-molecules", "killed by signal 9 (1 run)", "1,050,000"):
        assert words in page
        assert words in paper


def test_the_metric_is_that_of_the_fits(table: Path, tmp_path: Path) -> None:
    records = json.loads(table.with_name("fits.json").read_text())
    shutil.copy(table, tmp_path / "results.parquet")
    (tmp_path / "fits.json").write_text(json.dumps([record | {"metric": "energy_mae"} for record in records]))
    main([str(tmp_path / "results.parquet"), "--out", str(tmp_path / "page.html")])
    assert "How energy MAE scales" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "{folder}"], "is a folder"),
        (["--format", "png", "--out", "chart.png"], "a file per chart; give --out a folder"),
        (["--format", "tex", "--out", "paper.tex"], "a file per table; give --out a folder"),
        (["--format", "csv", "--out", "/proc/tables"], "cannot write to /proc/tables"),
        (["--out", "/proc/x.html"], "cannot write to /proc/x.html"),
        (["--format", "svg", "--out", "/proc/charts"], "cannot write to /proc/charts"),
        (["--metric", "energy_mea"], "did you mean"),
        (["--dataset", "other"], "unknown data set"),
        (["--fits", "{folder}/none.json"], "no fits at"),
        (["--fits", "{table}"], "not JSON"),
    ],
)
def test_what_a_person_gets_wrong_is_said_and_nothing_is_written(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [a.format(folder=tmp_path, table=table) for a in arguments]
    with pytest.raises(UserError, match=words):
        main([str(table), *filled])
    assert not list(tmp_path.iterdir())


def test_a_missing_table_and_fits_of_another_version_are_said(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scisci sweep collect"):
        main([str(tmp_path / "none.parquet")])
    shutil.copy(table, tmp_path / "results.parquet")
    record = json.loads(table.with_name("fits.json").read_text())[0]
    (tmp_path / "fits.json").write_text(json.dumps([record | {"schema_version": 99}]))
    with pytest.raises(UserError, match="newer version"):
        main([str(tmp_path / "results.parquet"), "--out", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()
