"""Every command end to end: it prints, writes loadable JSON, and turns faults into sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scisci.contracts.errors import UserError
from scisci.scaling.cli import main
from scisci.scaling.comparison import difference
from scisci.scaling.fitting import fit

from .tables import results_table
from .test_frontier import budgets, curves

POWER = ["--law", "power", "--x", "N=params", "--y", "force_mae", "--bootstrap", "500"]
SLICE = ["--by", "architecture", "--where", "data==1024 and split==test"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(results_table(tmp_path_factory.mktemp("commands") / "results.parquet"))


def outcome(tmp_path: Path, *arguments: str) -> list[dict]:
    out = tmp_path / "out.json"
    main([*arguments, "--json", str(out)])
    return json.loads(out.read_text())


def test_compare_pairs_splits_and_answers_slope_or_offset(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--where", "data==1024 and split!=val"]
    found = outcome(tmp_path, "compare", table, *POWER, "--by", "architecture", "--pair", "split", *where)
    printed = capsys.readouterr().out
    assert "split test: offset: one alpha serves all groups" in printed
    kinds = {(len(r["differences"]), r["group"]["split"] == "test") for r in found}
    assert kinds == {(1, True), (2, False)}  # OOD entries also against ID
    for record in found:
        for each in record["differences"]:
            assert each["to"]["split"] == ("test" if each["kind"] == "ood-id" else record["group"]["split"])


def test_fit_holds_out_and_reports_sensitivity(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = outcome(tmp_path, "fit", table, *POWER, *SLICE, "--holdout", "N>1e5")
    assert [record["holdout"]["n"] for record in found] == [2, 2]
    assert set(found[0]["audit"]["sensitivity"]) == {"0.001", "0.01", "inf"}
    assert "held out" in capsys.readouterr().out


def test_crossover_forecast_trend_robustness_print_and_write(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cross,) = outcome(tmp_path, "crossover", table, *POWER, *SLICE)
    assert cross["verdict"] in ("crossover", "no crossover", "undecided")
    assert 0 <= cross["none"] <= 1
    ahead = outcome(tmp_path, "forecast", table, *POWER, *SLICE, "--at", "N=1e6")
    for entry, truth in zip(ahead, [900 * 1e6**-0.3 * 1024**-0.15] * 2, strict=True):
        assert entry["run"][0] < truth < entry["run"][1]
    shapes = outcome(tmp_path, "trend", table, "--x", "N=params", "--y", "force_mae", *SLICE)
    assert [entry["shape"] for entry in shapes] == ["falls", "falls"]
    lines = outcome(tmp_path, "robustness", table, "--y", "force_mae")
    assert [entry["split"] for entry in lines] == ["ood_hot", "ood_large"]
    printed = capsys.readouterr().out
    for words in ("crossover", "forecast at N=1e6", "shape", "out of distribution against 'test'"):
        assert words in printed


def test_frontier_reads_columns_and_names_biases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "budgets.csv"
    pd.DataFrame(budgets()).to_csv(path, index=False)
    found = outcome(tmp_path, "frontier", str(path), "--y", "loss", "--x", "N=params,D=data,C=flops")
    assert [entry["number"] for entry in found] == [1, 2, 3]
    assert all(entry["bias"] for entry in found)
    assert "known bias" in capsys.readouterr().out


def curve_table(path: Path) -> str:
    """Curves of four sizes at three batch sizes: alpha_N .08, alpha_S .76, B* 2e8, alpha_B .21, without noise."""
    table = curves((1e6, 1e7, 1e8, 1e9), (3e4, 3e5, 3e6))
    pd.DataFrame(table).rename(columns={"N": "params", "S": "step", "B": "batch", "L": "loss"}).to_csv(
        path, index=False
    )
    return str(path)


def test_critical_batch_recovers_the_constants_behind_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = curve_table(tmp_path / "curves.csv")
    found = outcome(tmp_path, "critical-batch", path, "--y", "loss", "--size", "1e7")
    lowest, critical, joint = found
    assert [record["law"] for record in found] == ["power", "critical_batch", "kaplan_steps"]
    truths = (
        (lowest, {"alpha": (0.08, 0.02)}),
        (critical, {"alpha_B": (0.21, 0.02), "B_star": (2e8, 0.1)}),
        (joint, {"alpha_N": (0.08, 0.02), "alpha_S": (0.76, 0.03)}),
    )
    for record, truth in truths:
        for name, (value, within) in truth.items():
            assert record["parameters"][name]["value"] == pytest.approx(value, rel=within)
    assert joint["clusters"] == 12
    for each in critical["contours"]:
        steps = ((each["loss"] - 11.0 * 1e7**-0.08) / 330.0) ** (-1 / 0.76)
        assert each["steps"] == pytest.approx(steps, rel=0.05)
        assert each["batch"] == pytest.approx(2e8 * each["loss"] ** (-1 / 0.21), rel=0.1)
        assert each["samples"] == pytest.approx(each["batch"] * each["steps"])
    printed = capsys.readouterr().out
    assert "critical batch" in printed
    assert "too narrow" in printed


def test_critical_batch_takes_levels_and_long_curves(tmp_path: Path) -> None:
    path = curve_table(tmp_path / "curves.csv")
    _, critical, _ = outcome(tmp_path, "critical-batch", path, "--y", "loss", "--levels", "4,4.5,5,5.5")
    assert [each["loss"] for each in critical["contours"]] == [4, 4.5, 5, 5.5]
    frame = pd.read_csv(path)
    steps = np.geomspace(300, 3e5, 5000)
    grid = [
        frame[(frame["params"] == n) & (frame["batch"] == b)].sort_values("step")
        for n in (1e7, 1e8)
        for b in (3e4, 3e5, 3e6)
    ]
    long = pd.concat(
        pd.DataFrame(
            {
                "params": part["params"].iloc[0],
                "batch": part["batch"].iloc[0],
                "step": steps,
                "loss": np.exp(np.interp(np.log(steps), np.log(part["step"]), np.log(part["loss"]))),
            }
        )
        for part in grid
    )
    long.to_csv(path, index=False)
    _, critical, joint = outcome(tmp_path, "critical-batch", path, "--y", "loss")
    assert critical["parameters"]["alpha_B"]["value"] == pytest.approx(0.21, rel=0.05)
    assert joint["n"] <= 6 * 64


def test_dimension_is_that_of_the_manifold_from_a_table_and_an_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sphere in three columns has dimension 2, a helix 1, a cube 3."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(3000, 3))
    turn = rng.uniform(0, 6, 3000)
    shapes = {
        2: direction / np.linalg.norm(direction, axis=1, keepdims=True),
        1: np.stack([np.cos(turn), np.sin(turn), turn], 1),
        3: rng.uniform(size=(3000, 3)),
    }
    for truth, features in shapes.items():
        np.save(tmp_path / "f.npy", features)
        pd.DataFrame(features, columns=["a", "b", "c"]).assign(name="x").to_csv(tmp_path / "f.csv", index=False)
        (array,) = outcome(tmp_path, "dimension", str(tmp_path / "f.npy"))
        (table,) = outcome(tmp_path, "dimension", str(tmp_path / "f.csv"), "--columns", "a,b,c")
        assert array["value"] == pytest.approx(truth, rel=0.05)
        assert table["value"] == pytest.approx(array["value"], rel=1e-9)
        low, high = array["ci95"]
        assert array["resolution_limited"] == pytest.approx([1 / high, 4 / low])
    assert "1/d to 4/d" in capsys.readouterr().out


def test_faults_of_curves_and_features_are_sentences(tmp_path: Path) -> None:
    path = curve_table(tmp_path / "curves.csv")
    np.save(tmp_path / "line.npy", np.arange(20.0))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]] * 20))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}] * 20, dtype=object), allow_pickle=True)
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    curve = ["critical-batch", path, "--y", "loss"]
    for arguments, message in (
        ([*curve, "--where", "batch==30000"], "share no loss"),
        ([*curve, "--levels", "4,x"], "cannot read 'x' in --levels"),
        ([*curve, "--levels", "100"], "only 0 loss levels"),
        ([*curve, "--size", "5"], "no row has 5 parameters"),
        ([*curve, "--steps", "stp"], "did you mean 'step'"),
        (["dimension", path], "say which columns"),
        (["dimension", path, "--columns", "params,los"], "did you mean 'loss'"),
        (["dimension", str(tmp_path / "line.npy")], "an array of numbers"),
        (["dimension", str(tmp_path / "words.npy")], "an array of numbers"),
        (["dimension", str(tmp_path / "objects.npy")], "cannot read"),
        (["dimension", str(tmp_path / "broken.npy")], "cannot read"),
        (["dimension", str(tmp_path / "none.npy")], "no array at"),
        (["dimension", str(tmp_path / "line.npy"), "--columns", "a"], "used whole"),
    ):
        with pytest.raises(UserError, match=message) as error:
            main(arguments)
        assert "\n" not in str(error.value)


def test_laws_are_listed_with_sources(capsys: pytest.CaptureFixture[str]) -> None:
    main(["laws"])
    printed = capsys.readouterr().out
    for word in ("chinchilla", "farseer", "bnsl_2", "annealing", "2203.15556"):
        assert word in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", *POWER], "say which groups with --by"),
        (["crossover", *POWER, "--where", "data==1024 and split==test"], "say which groups with --by"),
        (["forecast", *POWER, *SLICE, "--at", "N=big"], "as a number"),
        (["forecast", *POWER, *SLICE, "--at", "N=1e30"], "times beyond"),
        (["frontier", "--y", "force_mae", "--x", "M=params"], "variables N, D"),
        (["trend", "--x", "N=params,D=data", "--y", "force_mae"], "one variable"),
        (["robustness", "--y", "force_mae", "--scale", "linear"], "scale 'linear' is unknown"),
        (["study", "--y", "force_mea"], "did you mean 'force_mae'"),
    ],
)
def test_faults_are_sentences(table: str, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([arguments[0], table, *arguments[1:]])


def test_help_needs_no_numpy() -> None:
    code = "import sys; from scisci.scaling.cli import _parser; _parser().format_help(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_loads() -> None:
    import scisci.scaling as scaling

    assert all(getattr(scaling, name) is not None for name in scaling.__all__)
    with pytest.raises(AttributeError):
        _ = scaling.nothing


def test_the_exponent_of_one_split_pairs_with_the_other_by_run() -> None:
    """Noise that a run carries to both splits cancels in the difference: it covers, and is narrower than unpaired."""
    rng = np.random.default_rng(11)
    n = np.repeat(np.geomspace(1e4, 1e7, 8), 2)
    shared = 0.02 * rng.normal(size=n.size)
    for law, offset in (("power", 0.0), ("power_offset", 0.1)):
        fits = []
        for alpha in (0.5, 0.4):
            loss = (offset + (n / 1e4) ** -alpha) * np.exp(shared + 0.005 * rng.normal(size=n.size))
            table = {"n": n, "run": np.arange(n.size), "y": loss}
            fits.append(fit(law, table, {"N": "n"}, "y", cluster="run"))
        found = difference(*fits)
        assert found.low < 0.1 < found.high
        widths = [high - low for low, high in (f.intervals["alpha"] for f in fits)]
        assert found.high - found.low < 0.6 * np.hypot(*widths)
