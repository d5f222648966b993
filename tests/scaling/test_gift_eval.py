"""GIFT-Eval's files as results tables: numbers where they belong, scores by scipy, and faults by line and column."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.scaling.cli import main

ERRORS = (
    *("MSE[mean]", "MSE[0.5]", "MAE[0.5]", "MASE[0.5]", "MAPE[0.5]", "sMAPE[0.5]", "MSIS"),
    *("RMSE[mean]", "NRMSE[mean]", "ND[0.5]", "mean_weighted_sum_quantile_loss"),
)
HEADER = ["dataset", "model", *(f"eval_metrics/{name}" for name in ERRORS), "domain", "num_variates"]
CONFIGURATIONS = [
    f"{name}/{term}" for name in ("solar/H", "m4_weekly/W", "bitbrains_rnd/5T") for term in ("short", "long")
]
MASE, SMAPE, WQL = (
    HEADER.index(f"eval_metrics/{n}") for n in ("MASE[0.5]", "sMAPE[0.5]", "mean_weighted_sum_quantile_loss")
)


def results(model: str, seed: int) -> list[list[str]]:
    """Header and a row per configuration, with errors a column apart in size, and none where they diverge."""
    errors = np.random.default_rng(seed).lognormal(size=(len(CONFIGURATIONS), 11)) * 10.0 ** np.arange(11)
    rows = [[c, model, *map(repr, e.tolist()), "Energy", "1"] for c, e in zip(CONFIGURATIONS, errors, strict=True)]
    rows[0][HEADER.index("eval_metrics/MSIS")] = "inf"
    return [list(HEADER), *rows]


def write(path: Path, rows: list[list[str]], encoding: str = "utf-8") -> Path:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def test_a_table_of_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, own = tmp_path / "results.parquet", {"small": results("small", 0), "large": results("large", 1)}
    # Columns in another order, one more, and a byte order mark, as some submissions have.
    turned = [[str(k), *row[::-1]] for k, row in enumerate(own["large"])]
    files = [write(tmp_path / "a.csv", own["small"]), write(tmp_path / "b.csv", turned, "utf-8-sig")]
    naive = results("Seasonal_Naive", 2)
    baseline = write(tmp_path / "naive.csv", [naive[0], *naive[:0:-1]])
    options = ["--out", str(out), "--seasonal-naive", str(baseline), "--params", "small=4e6", "large=22e6"]
    main(["import-gift-eval", *map(str, files), *options])
    assert "40 rows of 2 models on 6 configurations" in capsys.readouterr().out.replace("\n", " ")
    table = read_results(out).to_pandas()
    assert set(table["split"]) == {"test"}
    assert set(table["domain"]) == {"series"}
    assert table.groupby("run")["params"].unique().map(list).to_dict() == {"small": [4e6], "large": [22e6]}
    values = table.set_index(["architecture", "dataset", "metric"]).sort_index()
    for model, rows in own.items():
        for row in rows[1:]:
            for name, column in {"series_mase": MASE, "series_smape": SMAPE, "series_wql": WQL}.items():
                assert values.loc[(model, row[0], name), "value"] == float(row[column])
        for name, column in {"series_mase_relative": MASE, "series_wql_relative": WQL}.items():
            ratios = [float(a[column]) / float(b[column]) for a, b in zip(rows[1:], naive[1:], strict=True)]
            found = values.loc[(model, "gift-eval", name)]
            assert found["value"] == pytest.approx(stats.gmean(ratios))
            assert found["se"] == pytest.approx(stats.gmean(ratios) * stats.sem(np.log(ratios)))
            assert found["n"] == 6


def test_models_of_a_table_can_be_fitted(tmp_path: Path) -> None:
    """Errors that fall as N^-0.2 by construction: the imported table gives that exponent back."""
    out, naive, files, params = tmp_path / "results.parquet", results("naive", 0), [], []
    for n in (1e5, 1e6, 1e7, 1e8):
        rows = [row[:] for row in naive]
        for row in rows[1:]:
            row[1] = f"m{n:.0f}"
            row[MASE] = repr(float(row[MASE]) * 3 * n**-0.2)
        files.append(str(write(tmp_path / f"{n}.csv", rows)))
        params.append(f"m{n:.0f}={n}")
    baseline = str(write(tmp_path / "naive.csv", naive))
    main(["import-gift-eval", *files, "--out", str(out), "--seasonal-naive", baseline, "--params", *params])
    law = ["--law", "power", "--x", "N=params", "--y", "series_mase_relative", "--bootstrap", "0"]
    main(["fit", str(out), *law, "--json", str(tmp_path / "fit.json")])
    (fit,) = json.loads((tmp_path / "fit.json").read_text())
    assert fit["parameters"]["alpha"]["value"] == pytest.approx(0.2, rel=1e-6)


def test_without_the_naive_forecast_there_are_no_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.parquet"
    main(["import-gift-eval", str(write(tmp_path / "a.csv", results("a", 0))), "--out", str(out)])
    assert "--seasonal-naive gives it" in capsys.readouterr().out
    assert set(read_results(out).column("metric").to_pylist()) == {"series_mase", "series_wql", "series_smape"}


def changed(cell: tuple[int, int], text: str) -> list[list[str]]:
    rows = results("a", 0)
    rows[cell[0]][cell[1]] = text
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "lacks the columns dataset, model, eval_metrics/MASE"),
        ([HEADER], "has no results"),
        (
            [[c for c in row if c != row[MASE]] for row in results("a", 0)],
            r"lacks the columns eval_metrics/MASE\[0.5\];",
        ),
        (changed((2, MASE), "much"), r"line 3 of .* has 'much' under eval_metrics/MASE\[0.5\], which is no error"),
        (changed((2, WQL), ""), "line 3 of .* has '' under eval_metrics/mean_weighted_sum_quantile_loss"),
        (changed((3, MASE), "nan"), "line 4 of .* has 'nan'"),
        (changed((3, MASE), "-1"), "line 4 of .* has '-1'"),
        (changed((1, 0), ""), "line 2 of .* names no model or no dataset"),
        (changed((2, 0), CONFIGURATIONS[0]), "line 3 of .* has a on solar/H/short again"),
        ([*results("a", 0)[:3], ["solar/H/medium", "a", "1"]], "line 4 of .* has not as many cells as the header"),
        (
            [*results("a", 0), ["solar/D/short", *results("a", 0)[1][1:]]],
            "naive.csv lacks 1 of the configurations that a has, such as solar/D/short",
        ),
        (results("a", 0)[:4], "a lacks 3 of the configurations that .*naive.csv has"),
        (changed((1, MASE), "0"), "series_mase of a or .* is 0 on solar/H/short"),
    ],
)
def test_faults_of_a_file_are_one_sentence(tmp_path: Path, rows: list[list[str]], message: str) -> None:
    naive, out = write(tmp_path / "naive.csv", results("naive", 1)), tmp_path / "out.parquet"
    with pytest.raises(UserError, match=message) as error:
        main(
            [
                "import-gift-eval",
                str(write(tmp_path / "a.csv", rows)),
                "--out",
                str(out),
                "--seasonal-naive",
                str(naive),
            ]
        )
    assert "\n" not in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--params", "smal=3"], "unknown model 'smal'; did you mean 'small'"),
        (["--params", "small"], "cannot read 'small' in --params as a number"),
        (["--params", "small=nan"], "is no number of parameters"),
        (["nowhere.csv"], "cannot read nowhere.csv: No such file"),
        (["{small}"], "has results of small, which another file has too"),
        (["--seasonal-naive", "{both}"], "has results of several models"),
        (["{binary}"], "is no CSV file"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(tmp_path: Path, options: list[str], message: str) -> None:
    small = write(tmp_path / "small.csv", results("small", 0))
    both = write(tmp_path / "both.csv", [*results("a", 0), *results("b", 1)[1:]])
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    names = {"small": small, "both": both, "binary": tmp_path / "binary.csv"}
    with pytest.raises(UserError, match=message):
        main(["import-gift-eval", str(small), *(option.format(**names) for option in options)])
