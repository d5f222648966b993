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
from .test_frontier import budgets

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
