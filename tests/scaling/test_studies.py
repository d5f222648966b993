"""The study of a results table, and the commands around it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import optimize, special, stats

from scisci.contracts.errors import UserError
from scisci.scaling.cli import main
from scisci.scaling.records import read_records, write_records
from scisci.scaling.show import show_study
from scisci.scaling.studies import frontier_runs, study, study_records
from scisci.scaling.table import read_table, select_metric

from .tables import SIZES, results_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results_table(tmp_path_factory.mktemp("study") / "results.parquet")


@pytest.fixture(scope="module")
def records(table: Path) -> list[dict]:
    return study_records(study(table, "force_mae"), "force_mae")


def pick(records: list[dict], law: str, axis: str, architecture: str, split: str) -> dict:
    found = [
        r
        for r in records
        if (r["law"], r["axis"], r["group"]["architecture"], r["group"]["split"]) == (law, axis, architecture, split)
    ]
    assert len(found) == 1
    return found[0]


def test_a_study_has_every_law_axis_architecture_and_split_but_validation(records: list[dict]) -> None:
    keys = {(r["law"], r["axis"], r["group"]["architecture"], r["group"]["split"]) for r in records}
    assert len(keys) == len(records) == 2 * 3 * 2 * 3
    assert {r["group"]["split"] for r in records} == {"test", "ood_hot", "ood_large"}


def test_exponents_along_parameters_and_data_contain_the_truth(records: list[dict]) -> None:
    for architecture in SIZES:
        for split, alpha in (("test", 0.3), ("ood_hot", 0.2)):
            low, high = pick(records, "power", "params", architecture, split)["parameters"]["alpha"]["ci95"]
            assert low < alpha < high
            low, high = pick(records, "power", "data", architecture, split)["parameters"]["alpha"]["ci95"]
            assert low < 0.15 < high


def test_the_difference_ood_minus_id_is_the_slope_of_the_log_ratio(records: list[dict]) -> None:
    entry = pick(records, "power", "params", "alpha_net", "ood_hot")
    other = pick(records, "power", "params", "alpha_net", "test")
    (found,) = [d for d in entry["differences"] if d["kind"] == "ood-id"]
    assert entry["points"]["run"] == other["points"]["run"]
    z = np.log(entry["points"]["x"])
    line = stats.linregress(z, np.log(entry["points"]["y"]) - np.log(other["points"]["y"]))
    half = stats.t.ppf(0.975, len(z) - 2) * line.stderr
    assert found["value"] == pytest.approx(-line.slope, rel=1e-8)
    assert found["ci95"] == pytest.approx([-line.slope - half, -line.slope + half], rel=1e-6)
    assert found["verdict"] == "shallower"


def test_architectures_with_equal_exponents_are_not_told_apart(records: list[dict]) -> None:
    entry = pick(records, "power", "params", "alpha_net", "test")
    (found,) = [d for d in entry["differences"] if d["kind"] == "architecture"]
    assert found["to"]["architecture"] == "beta_net"
    assert found["ci95"][0] < 0 < found["ci95"][1]
    assert found["verdict"] == "no difference detected"


def test_scale_is_pooled_over_data_amounts_where_a_slice_is_too_small(tmp_path: Path) -> None:
    path = results_table(tmp_path / "one.parquet")
    entries = study(path, "force_mae", laws=("power",), where="seed==1 and architecture==alpha_net")
    (entry,) = [e for e in entries if e.axis == "params" and e.group["split"] == "test"]
    assert entry.fit is not None
    rows = select_metric(read_table(path), "force_mae").where("seed==1 and architecture==alpha_net and split==test")
    total = 0.0
    for data in (64, 256, 1024):
        part = rows.where(f"data=={data}")
        z, log_y = np.log(part.numbers("params")), np.log(part.numbers("value"))
        total += float(((log_y - np.polyval(np.polyfit(z, log_y, 1), z)) ** 2).sum())
    assert entry.fit.scale.dof == 3 * (4 - 2)
    assert entry.fit.scale.variance == pytest.approx(total / 6, rel=1e-6)


def test_every_fit_of_a_study_says_how_far_its_exponent_depends_on_delta(records: list[dict]) -> None:
    """Against Nelder-Mead on the sum of Huber, in (ln A, alpha) at the centre of the points."""
    fitted = [record for record in records if record["audit"].get("optimum")]
    assert len(fitted) > 20
    for record in fitted:
        by_delta = record["audit"]["sensitivity"]
        assert set(by_delta) == {"0.001", "0.01", "inf"}
        assert by_delta["inf"] == pytest.approx(record["audit"]["optimum"]["alpha"], rel=1e-6)
    entry = pick(records, "power", "flops", "alpha_net", "test")
    z, log_y = np.log(entry["points"]["x"]), np.log(entry["points"]["y"])
    for name in ("0.001", "0.01"):

        def total(u: np.ndarray, delta: float = float(name)) -> float:
            return float(special.huber(delta, u[0] - u[1] * (z - z.mean()) - log_y).sum())

        options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 5000, "maxfev": 5000}
        start = [log_y.mean(), entry["audit"]["optimum"]["alpha"]]
        peer = optimize.minimize(total, start, method="Nelder-Mead", options=options)
        assert entry["audit"]["sensitivity"][name] == pytest.approx(peer.x[1], abs=2e-4)


def test_the_frontier_keeps_what_nothing_cheaper_beats_and_is_chosen_in_distribution(
    table: Path, records: list[dict]
) -> None:
    rows = select_metric(read_table(table), "force_mae").where("architecture==alpha_net and split==val")
    chosen = frontier_runs(rows, "force_mae")
    cells: dict[tuple, list] = {}
    for run, size, data, flops, value in zip(
        *(rows.column(name).tolist() for name in ("run", "size", "data", "flops", "value")), strict=True
    ):
        cells.setdefault((size, data), []).append((run, np.log(flops), np.log(value)))
    means = {cell: np.mean([m[1:] for m in members], axis=0) for cell, members in cells.items()}
    slow = {
        member[0]
        for cell, members in cells.items()
        if not any(o[0] <= means[cell][0] and o[1] < means[cell][1] for o in means.values())
        for member in members
    }
    assert chosen == slow
    entry = pick(records, "power", "flops", "alpha_net", "ood_hot")
    assert set(entry["points"]["run"]) == slow
    assert entry["fixed"] == {"frontier": "val"}


def test_budgets_that_share_their_data_are_cells_of_their_own() -> None:
    """Two trainings on the same data, one four times as long: the longer is on the frontier, its poorer seed too."""
    columns = {
        "run": ["short", "long", "other seed", "short too"],
        "size": ["3k"] * 4,
        "data": [64] * 4,
        "samples_seen": [100, 400, 400, 100],
        "flops": [1e6, 4e6, 4e6, 1e6],
        "value": [3.0, 1.0, 1.4, 9.0],
    }
    assert frontier_runs(read_table(columns), "value") == {"short", "short too", "long", "other seed"}
    columns["value"] = [3.0, 8.0, 9.0, 3.5]
    assert frontier_runs(read_table(columns), "value") == {"short", "short too"}


def test_failed_runs_are_counted_where_they_belong(records: list[dict]) -> None:
    assert pick(records, "power", "flops", "beta_net", "test")["left_out"] == {"diverged": 1}
    assert pick(records, "power", "flops", "alpha_net", "test")["left_out"] == {}


def test_a_group_too_small_for_a_law_says_so(records: list[dict]) -> None:
    entry = pick(records, "power_offset", "data", "beta_net", "test")
    assert entry["text"] == "not identified"
    assert entry["audit"]["reasons"]
    assert all(p["value"] is None for p in entry["parameters"].values())


def test_runs_that_do_not_say_their_data_have_no_exponent_along_parameters(table: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(table).assign(data=np.nan)
    frame.to_parquet(tmp_path / "published.parquet")
    for entry in study(tmp_path / "published.parquet", "force_mae"):
        assert entry.axis == "flops" or entry.fit is None
        assert entry.axis != "params" or entry.reason == "the runs do not say their data, which is held fixed"


def test_records_survive_the_file(tmp_path: Path, records: list[dict]) -> None:
    write_records(tmp_path / "fits.json", records)
    assert read_records(tmp_path / "fits.json") == records
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="not a list of fits"):
        read_records(tmp_path / "other.json")
    (tmp_path / "newer.json").write_text('[{"law": "power", "schema_version": 99}]')
    with pytest.raises(UserError, match="newer version"):
        read_records(tmp_path / "newer.json")


def test_study_command_prints_and_writes(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fits.json"
    main(["study", str(table), "--y", "force_mae", "--json", str(out)])
    printed = capsys.readouterr().out
    assert "exponent of force_mae along parameters" in printed
    assert "1 runs that ended as diverged" in printed
    assert len(json.loads(out.read_text())) == 36


def test_fit_command_reads_csv_parquet_and_json_lines_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas as pd

    from .tables import power_table

    frame = pd.DataFrame(power_table())
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True, double_precision=15)
    values = []
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        out = tmp_path / "fit.json"
        options = ["--law", "power", "--x", "N=params", "--y", "loss", "--cluster", "run", "--json", str(out)]
        main(["fit", str(tmp_path / name), *options, "--bootstrap", "500"])
        (record,) = read_records(out)
        values.append((record["parameters"]["alpha"]["value"], *record["parameters"]["alpha"]["ci95_bootstrap"]))
    np.testing.assert_allclose(values[1:], [values[0]] * 2, rtol=1e-9)
    assert "alpha" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--law", "powr", "--x", "N=params", "--y", "force_mae"], "unknown law"),
        (
            ["--law", "power", "--x", "N=parms", "--y", "force_mae", "--where", "split==test"],
            "unknown column",
        ),
        (["--law", "power", "--x", "N=params", "--y", "force_mea"], "unknown metric"),
        (["--law", "power", "--x", "D=params", "--y", "force_mae"], "variables N"),
        (["--law", "power", "--x", "N", "--y", "force_mae"], "cannot read --x"),
        (["--law", "power", "--x", "N=params", "--y", "force_mae"], "mix several values of 'split'"),
        (
            ["--law", "power", "--x", "N=params", "--y", "force_mae", "--where", "data~4"],
            "cannot read the condition",
        ),
        (["--law", "power", "--x", "N=params", "--y", "force_mae", "--where", "data==5"], "no row meets"),
    ],
)
def test_faults_of_a_command_are_one_sentence_and_write_nothing(
    table: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "fit.json"
    with pytest.raises(UserError, match=message):
        main(["fit", str(table), *arguments, "--json", str(out)])
    assert not out.exists()


def test_missing_and_broken_tables_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    for path, message in (
        (tmp_path / "none.csv", "no table at"),
        (broken, "cannot read"),
        (tmp_path / "t.xls", "cannot tell the format"),
    ):
        with pytest.raises(UserError, match=message):
            read_table(path)


def test_splits_come_test_first_then_as_in_the_table(records: list[dict]) -> None:
    order = [r["group"]["split"] for r in records if r["group"]["architecture"] == "alpha_net"]
    assert order[:3] == ["test", "ood_hot", "ood_large"]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_study_tables_cut_no_word(records: list[dict], width: int) -> None:
    """Many splits, long names and weak fits: everything is legible at any width that holds one split."""
    shifts = ("ood_composition", "ood_size", "ood_time_and_temperature")
    many = [
        record | {"group": record["group"] | {"split": split}, "text": text}
        for record in records
        for split, text in [(record["group"]["split"], record["text"])]
        + [(shift, "-0.0234 [-0.1234, 0.0123] (weak)") for shift in shifts if record["group"]["split"] == "ood_hot"]
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    show_study(console, many)
    printed = console.export_text()
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    for word in ("power_offset", "not identified", "[-0.1234, 0.0123]", "(weak)", "audit.reasons"):
        assert word in printed
    for name in ("composition", "time_and_temperature"):
        assert name in printed
    for record in records:
        assert not any(reason in printed for reason in record["audit"]["reasons"])
    heads = [line for line in printed.splitlines() if "model" in line and "test" in line]
    assert heads
