from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.report.cells import Cell, Table, number
from scisci.report.csv_tables import table_csv
from scisci.report.export import write_csv
from scisci.report.layout import sections
from scisci.report.study import Study
from scisci.report.tables import not_finished


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), float_precision="round_trip")


@pytest.fixture(scope="module")
def files(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    paths = write_csv(study, tmp_path_factory.mktemp("csv"))
    return {path.stem: read(path.read_text(encoding="utf-8")) for path in paths}


def test_every_table_of_the_page_is_there_with_all_its_rows(study: Study, files: dict[str, pd.DataFrame]) -> None:
    tables = {table.key: table for part in sections(study) for table in part.tables}
    assert files.keys() == tables.keys()
    for key, table in tables.items():
        assert len(files[key]) == len(table.rows)
        for column in table.columns:
            assert any(name.startswith(column) for name in files[key].columns)


def test_best_errors_are_those_of_the_results_table(study: Study, table: Path, files: dict[str, pd.DataFrame]) -> None:
    """To the last digit, with the unit in the header and the interval of 1.96 standard errors over groups."""
    results = pd.read_parquet(table).query("metric == 'force_mae' and status == 'ok'")
    for row in files["best"].to_dict("records"):
        mine = results[(results.architecture == row["architecture"]) & (results["size"] == row["size"])]
        mine = mine[mine.data == row["samples"]]
        assert mine.params.unique() == [row["parameters"]]
        assert mine.flops.unique() == [row["FLOPs"]]
        for split in study.splits:
            truth = mine[mine.split == split.name].iloc[0]
            name = f"{split.label}{{}} [meV/Å]"
            assert row[name.format("")] == truth.value
            assert row[name.format(", low")] == pytest.approx(truth.value - 1.96 * truth.se_groups, rel=1e-4)
            assert row[name.format(", high")] == pytest.approx(truth.value + 1.96 * truth.se_groups, rel=1e-4)


@pytest.mark.parametrize("axis", ["params", "data", "flops"])
def test_exponents_are_those_of_the_fits(study: Study, table: Path, files: dict[str, pd.DataFrame], axis: str) -> None:
    rows = files[f"exponents-{axis}"].set_index("architecture")
    records = json.loads(table.with_name("fits.json").read_text(encoding="utf-8"))
    shown = [record for record in records if record["axis"] == axis]
    assert len(shown) == 15
    for record in shown:
        row, label = rows.loc[record["group"]["architecture"]], study.labels[record["group"]["split"]]
        assert row[f"{label}, verdict"] == record["audit"]["verdict"]
        said = [row[label], row[f"{label}, low"], row[f"{label}, high"]]
        if record["audit"]["verdict"] == "not identified":
            assert all(math.isnan(value) for value in said)
            assert record["audit"]["reasons"][0][1:] in row[f"{label}, notes"]
        else:
            assert said == [record["parameters"]["alpha"]["value"], *record["parameters"]["alpha"]["ci95"]]


def test_differences_and_symmetry_errors_are_in_full(study: Study, table: Path, files: dict[str, pd.DataFrame]) -> None:
    records = [r for r in json.loads(table.with_name("fits.json").read_text()) if r["axis"] == "params"]
    record, found = next((r, d) for r in records for d in r["differences"] if d["kind"] == "ood-id")
    rows = files["ood-id"].query("against == 'parameters'").set_index("architecture")
    label = study.labels[record["group"]["split"]]
    row = rows.loc[record["group"]["architecture"]]
    assert [row[label], row[f"{label}, low"], row[f"{label}, high"]] == [found["value"], *found["ci95"]]

    results = pd.read_parquet(table).query("metric == 'symmetry_cubic_forces' and split == 'test'")
    for row in files["symmetry"].query("prediction == 'forces'").to_dict("records"):
        values = results[results.architecture == row["architecture"]].value
        assert (row["cubic"], row["cubic, highest"]) == (values.median(), values.max())


def test_what_the_caption_says_of_all_rows_is_a_column(study: Study, files: dict[str, pd.DataFrame]) -> None:
    assert set(files["exponents-params"]["held fixed"]) == {"16,384 samples"}
    assert set(files["ood-id"].law) == {"power"}


def test_runs_beyond_those_shown_are_in_the_file(frame: pd.DataFrame, study: Study) -> None:
    ended = frame[frame.status != "ok"].iloc[:1]
    many = pd.concat([frame, *(ended.assign(run=f"x{i}") for i in range(300))])
    table = not_finished(Study(many, study.metric, study.splits, study.series, ()))
    assert len(table.shown) == 200
    assert "the first 200 of 302" in table.caption
    assert len(read(table_csv(table))) == 302


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.floats(allow_nan=False)),
        min_size=1,
    )
)
def test_any_text_and_number_reads_back(rows: list[tuple[str, float]]) -> None:
    cells = [[Cell(text), number("about", value, low=-value)] for text, value in rows]
    text = table_csv(Table("t", "c", ["name", "value"], cells, units={"value": "eV"}))
    back = pd.read_csv(io.StringIO(text), float_precision="round_trip", keep_default_na=False, dtype={"name": str})
    assert list(back.columns) == ["name", "value [eV]", "value, low [eV]"]
    assert back["value [eV]"].astype(float).tolist() == [value for _, value in rows]
    assert back["value, low [eV]"].astype(float).tolist() == [-value for _, value in rows]
    assert back["name"].tolist() == [name for name, _ in rows]


def test_an_open_end_is_infinite_and_a_missing_number_is_empty() -> None:
    cells = [[Cell("a"), number("1 [0, open]", 1.0, low=0.0, high=math.inf)], [Cell("b"), number("–", None)]]
    assert table_csv(Table("t", "c", ["name", "value"], cells)).splitlines() == [
        'name,value,"value, low","value, high"',
        "a,1,0,inf",
        "b,,,",
    ]
