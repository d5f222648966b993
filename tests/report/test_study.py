from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.results import write_results
from scisci.report.fits import parse
from scisci.report.study import Study, assemble, choose_metric, order_splits, read_table

from . import world

# one split that is shown, and more fits on the one that is not
GROUPS = [("mpnn", "test"), ("mpnn", "val"), ("nequip", "val"), ("transformer", "val")]


def test_a_study_is_in_reading_order(study: Study) -> None:
    names = [split.name for split in study.splits]
    assert names == ["test", "ood_600K", "ood_1200K", "ood_molecule", "ood_size"]
    assert study.series == ("mpnn", "nequip", "transformer")
    assert study.metric.name == "force_mae"
    assert study.identity.name == "test"
    assert study.labels["ood_600K"] == "OOD · 600K"
    assert len(study.runs) == 48


def test_the_split_that_chose_checkpoints_is_not_shown(frame: pd.DataFrame) -> None:
    with_val = pd.concat([frame, frame[frame.split == "test"].assign(split="val")])
    assert "val" not in [split.name for split in order_splits(with_val)]
    only_val = with_val[with_val.split != "test"]
    assert order_splits(only_val)[0].name == "val"


def test_fits_on_the_split_that_chose_do_not_choose_the_law(table: Path, frame: pd.DataFrame) -> None:
    """Of two laws, one is identified on every split that is shown, the other on `val` more often than that."""
    record = json.loads(table.with_name("fits.json").read_text())[0] | {"axis": "params", "metric": "force_mae"}
    good, bad = ({"audit": record["audit"] | {"verdict": verdict}} for verdict in ("identified", "not identified"))
    groups = [{"architecture": name, "treatment": "none", "split": split} for name, split in GROUPS]
    records = []
    for group in groups:
        chooser = group["split"] == "val"
        for law, verdict in (("power", bad if chooser else good), ("power_offset", good if chooser else bad)):
            records.append(record | verdict | {"law": law, "group": group, "differences": []})
    fits = parse(records, "fits")
    both = assemble(pd.concat([frame, frame[frame.split == "test"].assign(split="val")]), fits)
    assert {fit.split for fit in both.fits} == {"test"}
    assert both.law("params") == "power"


def test_intervals_are_over_groups_where_the_table_has_them(frame: pd.DataFrame, tmp_path: Path) -> None:
    rows = [*world.table_rows()]
    half = frame.high - frame.value
    assert half[frame.se_groups.notna()].to_numpy() == pytest.approx(1.96 * frame.se_groups.dropna(), rel=1e-4)
    assert assemble(frame, []).error_kind == "over groups"

    write_results(tmp_path / "samples.parquet", [row | {"se_groups": None} for row in rows])
    plain = read_table(tmp_path / "samples.parquet")
    half = plain.high - plain.value
    assert half[plain.se.notna()].to_numpy() == pytest.approx(1.96 * plain.se.dropna(), rel=1e-4)
    assert assemble(plain, []).error_kind == "over samples"

    mixed = frame.assign(se_groups=frame.se_groups.where(frame.split != "test"))
    assert assemble(mixed, []).error_kind == "over groups where the table has them, else over samples"


def test_a_treatment_is_a_series_of_its_own(tmp_path: Path) -> None:
    rows = [*world.table_rows()]
    rows += [row | {"run": f"a{row['run']}", "treatment": "augmentation"} for row in rows if row["seed"] == 0]
    write_results(tmp_path / "t.parquet", rows)
    assert "mpnn + augmentation" in assemble(read_table(tmp_path / "t.parquet"), []).series


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("force_mea", "did you mean .*'force_mae'"),
        ("force_cosine", "not an error that falls"),
        ("symmetry_rotation_energy", "not an error that falls"),
    ],
)
def test_a_metric_that_cannot_be_shown_is_refused(frame: pd.DataFrame, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose_metric(frame, name)


def test_a_metric_that_the_table_lacks_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="no energy_mae; choose one with --metric: force_mae"):
        choose_metric(frame[frame.metric != "energy_mae"], "energy_mae")


def test_a_metric_with_a_zero_is_shown_before_one_without(frame: pd.DataFrame) -> None:
    names = {"force_mae": "series_nll", "energy_mae": "series_mase"}
    series = frame.assign(metric=frame.metric.replace(names))
    assert choose_metric(series, None).name == "series_mase"
    assert choose_metric(series, "series_nll").name == "series_nll"
    assert choose_metric(frame, None).name == "force_mae"


def test_several_data_sets_need_a_choice(tmp_path: Path) -> None:
    rows = [*world.table_rows()]
    path = tmp_path / "t.parquet"
    write_results(path, rows + [row | {"run": f"b{row['run']}", "dataset": "other"} for row in rows])
    with pytest.raises(UserError, match="other, xtb-molecules"):
        read_table(path)
    write_results(tmp_path / "many.parquet", [row | {"dataset": f"d{i:02}"} for i, row in enumerate(rows[:20])])
    with pytest.raises(UserError, match=r"d00, .*, d07 and 12 more"):
        read_table(tmp_path / "many.parquet")
    with pytest.raises(UserError, match="did you mean 'xtb-molecules'"):
        read_table(path, "xtb-molecule")
    assert set(read_table(path, "other").dataset) == {"other"}


def test_an_empty_table_and_a_table_of_failures_are_refused(tmp_path: Path, frame: pd.DataFrame) -> None:
    write_results(tmp_path / "empty.parquet", [])
    with pytest.raises(UserError, match="holds no runs"):
        read_table(tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="no error metric"):
        choose_metric(frame[frame.status != "ok"], None)


def test_fits_of_other_runs_are_refused(table: Path, frame: pd.DataFrame) -> None:
    records = json.loads(table.with_name("fits.json").read_text())
    records[0]["points"]["run"][0] = "0" * 16
    with pytest.raises(UserError, match="of other runs"):
        assemble(frame, parse(records, "fits"))


def test_fits_of_another_metric_are_refused(table: Path, frame: pd.DataFrame) -> None:
    records = json.loads(table.with_name("fits.json").read_text())
    with pytest.raises(UserError, match="of force_mae, not of energy_mae"):
        assemble(frame, parse(records, "fits"), "energy_mae")


@pytest.mark.parametrize("broken", [{}, {"audit": {"verdict": "sure"}}, {"points": {"x": "a"}}])
def test_records_of_another_layout_are_refused(table: Path, broken: dict) -> None:
    record = json.loads(table.with_name("fits.json").read_text())[0]
    with pytest.raises(UserError, match=r"f\.json does not have the layout of fits \(at 0"):
        parse([record | broken if broken else {}], "f.json")


def test_charts_draw_one_law_per_axis(table: Path, frame: pd.DataFrame) -> None:
    """The law identified most often, even where another is better in single groups."""
    records = json.loads(table.with_name("fits.json").read_text())
    others = json.loads(json.dumps(records))
    for record in others:
        record["law"] = "power_offset"
        if record["group"]["split"] != "ood_size":
            record["audit"]["verdict"] = "weak"
        else:
            record["audit"]["verdict"] = "identified"
    study = assemble(frame, parse(others + records, "fits"))
    assert study.law("params") == "power"
    headline = study.headline("params", "mpnn", "ood_size")
    assert headline is not None
    assert headline.law == "power"
    assert assemble(frame, []).law("params") is None
