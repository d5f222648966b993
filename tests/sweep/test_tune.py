"""Learning rates chosen by trials: against the closed form of a regression, and with real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import METRICS
from scisci.contracts.results import read_results
from scisci.sweep.cli import main as sweep_main
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.study import Study, load_study
from scisci.sweep.tune import Grid, Trials, chosen_study, trial_study, tune, write_study
from scisci.sweep.tune_cli import main

from .grid import EXECUTE, Log, faulty, study

FORCES, COSINE = METRICS["force_mae"], METRICS["force_cosine"]
STEPS = 60


def closed_form(size: int, samples: int, seed: int, rate: float, steps: int = STEPS) -> float:
    """Loss of `regression.execute`: errors in the eigenbasis shrink by 1 - rate * eigenvalue per step but the last."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(samples, size))
    labels = features @ rng.normal(size=size) + 0.1 * rng.normal(size=samples)
    best = np.linalg.lstsq(features, labels, rcond=None)[0]
    eigenvalues, basis = np.linalg.eigh(features.T @ features / samples)
    left = (1 - rate * eigenvalues) ** (steps - 1) * (basis.T @ best)
    return float(np.mean((features @ best - labels) ** 2) + np.sum(eigenvalues * left**2))


def regressions(**changes: Any) -> Study:
    entries = {
        "linear": {"sizes": ["2", "6"]},
        "same": {"architecture": "linear", "sizes": ["4"], "treatment": "frames"},
    }
    return Study.model_validate(study(architectures=entries, optimization={"steps": STEPS}) | changes)


def tuned(given: Study, grid: Grid, folder: Path, widen: int = 0, **budget: Any) -> tuple[Plan, list[Trials]]:
    """Tune a study of regressions in this process."""
    trials = trial_study(given, list(given.architectures), grid.rates, **budget)
    plan = Plan(study=trials, domain="atoms", fingerprint="f" * 64, code_version="1")
    return tune(plan, grid, folder, Log(), FORCES, widen=widen, engine="inline", execute=EXECUTE)


def test_the_rate_with_the_lowest_mean_over_seeds_is_chosen(tmp_path, journal):
    grid = Grid(0.02, 8.0, 7)
    given = regressions()
    plan, trials = tuned(given, grid, tmp_path, seeds=(3, 4, 5))
    assert [str(one.cell) for one in trials] == ["linear 2", "linear 6", "same 4"]
    for one in trials:
        size = int(one.cell.size)
        expected = np.array([[closed_form(size, 32, seed, rate) for seed in (3, 4, 5)] for rate in grid.rates])
        untrained = np.array([closed_form(size, 32, seed, 0.0) for seed in (3, 4, 5)])
        assert one.values == pytest.approx(expected, rel=1e-6)
        assert one.untrained == pytest.approx(untrained)
        assert one.rate == grid.rates[expected.mean(axis=1).argmin()]
        assert one.sensitivity == pytest.approx(np.minimum(expected, untrained).mean() - expected.mean(axis=1).min())
    assert len({one.rate for one in trials}) > 1
    assert set(journal("start").values()) == {1}
    assert len(journal("start")) == 3 * (7 * 3 + 3)

    write_study(chosen_study(given, plan, trials), tmp_path / "study.yaml")
    written = load_study(tmp_path / "study.yaml")
    assert written.data == given.data == (16, 32)
    for one in trials:
        recipe = written.recipe(one.cell.label, one.cell.size, 16)
        assert (recipe.learning_rate, recipe.steps) == (one.rate, STEPS)
        first, second = (f"{one.means[index]:.4g} meV/Å at {grid.rates[index]:g}" for index in one.ranked[:2])
        assert recipe.learning_rate_choice == (
            f"lowest force_mae on val of 7 rates from 0.02 to 8 ({first}, next {second}), 60 steps, 32 samples, seeds "
            "3, 4, 5"
        )
    assert written.architectures["same"].treatment == "frames"


def test_tuning_goes_on_where_it_stopped(tmp_path, journal):
    first = tuned(regressions(), Grid(0.1, 1.0, 3), tmp_path)[1]
    again = tuned(regressions(), Grid(0.1, 1.0, 3), tmp_path)[1]
    assert set(journal("start").values()) == {1}
    assert [one.means.tolist() for one in first] == [one.means.tolist() for one in again]


def test_the_grid_grows_beyond_its_ends_for_all_alike(tmp_path, journal):
    plan, trials = tuned(regressions(), Grid(0.01, 0.04, 3), tmp_path, widen=2)
    assert plan.study.learning_rates == (0.01, 0.02, 0.04, 0.08, 0.16)
    assert len(journal("start")) == 3 * (5 + 1)
    assert set(journal("start").values()) == {1}
    assert all(one.rate == 0.16 and one.at_edge for one in trials)
    assert trials[0].sentence(plan.study).endswith("seed 0; at the edge of the grid")
    inner = tuned(regressions(), Grid(0.2, 1.6, 4), tmp_path / "inner", widen=2)[1]
    assert {one.rates for one in inner} == {(0.2, 0.4, 0.8, 1.6)}


def test_what_diverges_is_ruled_out_and_counts_as_untrained(tmp_path, capsys):
    plan, trials = tuned(regressions(), Grid(0.5, 5e7, 3), tmp_path)
    for one in trials:
        assert one.rate == 0.5
        assert np.isposinf(one.means[2])
        start = closed_form(int(one.cell.size), 32, 0, 0.0)
        best = closed_form(int(one.cell.size), 32, 0, 0.5)
        assert one.sensitivity == pytest.approx(2 / 3 * (start - best))
        assert "no other ended well" in one.sentence(plan.study) or one.means[1] > start
    sweep_main(["status", str(tmp_path / "trials")])
    assert "linear 2 data 32 seed 0 rate 5e+07: runs/" in capsys.readouterr().out
    table = read_results(tmp_path / "trials.parquet").to_pandas()
    assert set(table.status) == {"ok", "diverged"}
    assert table.groupby("study").run.nunique().to_dict() == {"regressions-tune": 9, "regressions-tune-untrained": 3}
    with pytest.raises(UserError, match=r"no learning rate trained linear 2; see 'scisci sweep status .*trials'"):
        tuned(regressions(), Grid(1e8, 1e10, 3), tmp_path / "high")


def test_a_model_that_cannot_be_trained_stops_the_tuning_at_once(tmp_path, journal):
    broken = faulty(fault="raise") | {"learning_rate": None}
    given = regressions(architectures={"linear": {"sizes": ["2"]}, "broken": broken})
    with pytest.raises(UserError, match="broken 2 cannot be trained: ValueError: the matrix is singular"):
        tuned(given, Grid(), tmp_path)
    assert len(journal("start")) == 2


def of(values: list[list[float]], untrained: list[float], metric: Any = FORCES) -> Trials:
    rates = tuple(2.0**k for k in range(len(values)))
    return Trials(Cell("linear", "2"), metric, rates, np.array(values), np.array(untrained))


def test_of_a_metric_that_is_better_higher_the_highest_is_chosen():
    one = of([[0.2], [0.5], [-np.inf], [0.4]], [0.1], COSINE)
    assert (one.rate, [one.rates[i] for i in one.ranked]) == (2.0, [2.0, 8.0, 1.0])
    assert one.sensitivity == pytest.approx(0.5 - (0.2 + 0.5 + 0.1 + 0.4) / 4)
    assert one.sentence(regressions()).startswith(
        "highest force_cosine on val of 4 rates from 1 to 8 (0.5 at 2, next 0.4"
    )
    assert "; 1 ruled out" in one.sentence(regressions())


def test_a_rate_counts_only_if_all_its_seeds_ended_well():
    one = of([[3.0, 3.0], [1.0, np.inf], [1.0, np.nan], [3.0, 3.0]], [9.0, 9.0])
    assert one.ranked == [0, 3]
    assert one.at_edge
    assert np.isnan(one.sensitivity)
    assert of([[3.0], [1.0], [np.inf]], [2.0]).sensitivity == pytest.approx((2 + 1 + 2) / 3 - 1)


@given(st.floats(1e-6, 1e-2), st.floats(2, 1e4), st.integers(2, 12), st.lists(st.booleans(), max_size=4))
def test_rates_are_in_one_ratio(lowest, span, trials, sides):
    grid = Grid(lowest, lowest * span, trials)
    for above in sides:
        grid = grid.widened({grid.rates[-1 if above else 0]})
    rates = np.array(grid.rates)
    assert len(rates) == trials + len(sides) or span ** (1 / (trials - 1)) < 1.01
    steps = np.diff(np.log(rates))
    assert steps == pytest.approx(np.full(len(steps), np.log(span) / (trials - 1)), abs=0.011)
    assert rates[grid.below] == pytest.approx(lowest, rel=0.006)


def test_trials_differ_from_the_study_in_what_tuning_needs_alone():
    entries = {
        "a": {"architecture": "linear", "sizes": ["2", "4"], "steps": 30, "learning_rate": 0.1},
        "b": {"sizes": ["1"]},
    }
    given = regressions(architectures=entries | {"constant": {"sizes": ["0"]}})
    made = trial_study(given, ["a", "b"], (0.1, 0.2), steps=20, first_size=True)
    assert list(made.architectures) == ["a", "b"]
    assert made.architectures["a"].sizes == ("2",)
    assert [made.recipe(label, "2", 32, 0.2).steps for label in "ab"] == [10, 20]
    assert made.recipe("a", "2", 32, 0.2).learning_rate == 0.2
    assert (made.data, made.seeds, made.evaluation.splits) == ((32,), (0,), ("val",))
    gpus = {"a": entries["a"] | {"resources": {"2": {"gpus": 1}, "4": {"gpus": 2}}}}
    assert trial_study(regressions(architectures=gpus), ["a"], (0.1,), first_size=True).needs("a", "2").gpus == 1
    with pytest.raises(UserError, match=r"the trials: learning_rates lists 0\.1 twice"):
        trial_study(given, ["a"], (0.1, 0.1))


def test_trials_of_studies_by_epochs_and_compute():
    by_epochs = regressions(optimization={"epochs": 40, "batch_size": 8})
    made = trial_study(by_epochs, ["linear"], (0.1, 0.2))
    assert made.recipe("linear", "2", 32, 0.1).steps == 40 * 32 // 8
    assert trial_study(by_epochs, ["linear"], (0.1,), steps=7).recipe("linear", "2", 32, 0.1).steps == 7
    by_compute = regressions(optimization={}, compute=[1e6, 1e7], data="seen")
    with pytest.raises(UserError, match="say how long a trial is with --steps and --data"):
        trial_study(by_compute, ["linear"], (0.1,), steps=9)
    made = trial_study(by_compute, ["linear"], (0.1,), steps=9, data=32)
    assert (made.compute, made.amounts, made.recipe("linear", "2", 32, 0.1).steps) == ((), (32,), 9)


def test_the_first_size_can_speak_for_all(tmp_path):
    plan, trials = tuned(regressions(), Grid(0.1, 1.0, 3), tmp_path, first_size=True)
    made = chosen_study(regressions(), plan, trials)
    assert [str(one.cell) for one in trials] == ["linear 2", "same 4"]
    for size in ("2", "6"):
        recipe = made.recipe("linear", size, 16)
        assert recipe.learning_rate == trials[0].rate
        assert recipe.learning_rate_choice.startswith("that of 2: lowest force_mae")
    assert made.recipe("same", "4", 16).learning_rate_choice.startswith("lowest force_mae")


@pytest.fixture
def potentials(small_store, tmp_path):
    """A study of real potentials, of which one has a rate already."""
    content = study(
        study="small",
        dataset=str(small_store),
        architectures={"mpnn": {"sizes": ["3k"]}, "transformer": {"sizes": ["3k"], "learning_rate": 0.5}},
        data=[64],
        seeds=[0],
        optimization={"steps": 8, "batch_size": 8, "validations": 2},
        evaluation={"splits": ["test"], "max_samples": 16, "symmetry_samples": 0},
    )
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_from_a_study_without_rates_to_runs_that_say_how_theirs_was_chosen(potentials, tmp_path, capsys):
    with pytest.raises(UserError, match=r"'mpnn' lacks the learning_rate .* or have 'scisci tune' choose it"):
        sweep_main(["plan", str(potentials)])
    out = tmp_path / "out"
    grid = ["--trials", "3", "--lowest", "0.001", "--highest", "0.1", "--widen", "0"]
    main([str(potentials), "--out", str(out), *grid, "--engine", "inline"])
    printed = capsys.readouterr().out
    assert "the study's own learning rates are left aside" in printed
    assert "6 trainings: 2 models × 3 learning rates from 0.001 to 0.1 × 1 seed, of 8 steps of 8 samples" in printed

    table = read_results(out / "trials.parquet").to_pandas()
    assert set(table.split) == {"val"}
    trials = table[(table.study == "small-tune") & (table.metric == "force_mae")]
    best: pd.DataFrame = trials.loc[trials.groupby("architecture").value.idxmin()].set_index("architecture")
    assert sorted(trials.lr) == [0.001, 0.001, 0.01, 0.01, 0.1, 0.1]
    assert set(trials.data) == {64}
    for name in best.index:
        row = next(line for line in printed.splitlines() if line.startswith(f"{name} ") and "*" in line)
        assert f"{best.value[name]:.4g}*" in row

    sweep_main(["run", str(out / "study.yaml"), "--out", str(tmp_path / "runs"), "--engine", "inline"])
    folders = list((tmp_path / "runs" / "runs").iterdir())
    assert len(folders) == 2
    for folder in folders:
        spec, result = (json.loads((folder / f"{name}.json").read_text()) for name in ("spec", "result"))
        chosen = best.loc[spec["architecture"]]
        assert spec["optimization"]["learning_rate"] == result["learning_rate"] == chosen.lr
        sentence = result["learning_rate_choice"]
        assert sentence == spec["optimization"]["learning_rate_choice"]
        assert (
            f"lowest force_mae on val of 3 rates from 0.001 to 0.1 ({chosen.value:.4g} meV/Å at {chosen.lr:g}, next"
            in sentence
        )
        assert "8 steps, 64 samples, seed 0" in sentence
    sweep_main(["status", str(out / "trials")])
    assert "small-tune: 6 of 6 runs done" in capsys.readouterr().out


def test_baselines_are_left_as_they_are(series_store, tmp_path, capsys):
    content = study(
        dataset=str(series_store),
        architectures={"seasonal_naive": {"sizes": ["0"]}, "patch_encoder": {"sizes": ["1k"]}},
        task={"context": 64, "horizon": 16},
        data=[8],
        seeds=[0],
        optimization={"steps": 4, "batch_size": 4},
    )
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(content))
    grid = ["--trials", "2", "--lowest", "0.001", "--highest", "0.01", "--widen", "0"]
    main([str(path), "--out", str(out), *grid, "--engine", "inline"])
    made = load_study(out / "study.yaml")
    assert made.architectures["seasonal_naive"] == load_study(path).architectures["seasonal_naive"]
    assert set(read_results(out / "trials.parquet")["architecture"].to_pylist()) == {"patch_encoder"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--lowest", "0.1", "--highest", "0.1"], "a grid needs --trials of 2 or more and 0 < --lowest < --highest"),
        (["--lowest", "nan"], "0 < --lowest < --highest"),
        (["--trials", "1"], "--trials of 2 or more"),
        (["--trials", "9", "--lowest", "0.01", "--highest", "0.0101"], "learning_rates lists 0.01 twice"),
        (["--seeds", "1", "1"], "seeds lists 1 twice"),
        (["--data", "97"], "asks for 97 training samples"),
        (["--metric", "forcemae"], "unknown metric 'forcemae'; did you mean .*'force_mae'"),
        (["--workers", "2", "--engine", "inline"], "works in this process alone"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(potentials, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        main([str(potentials), "--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_a_metric_that_these_models_do_not_have_is_refused_before_the_trials(potentials, tmp_path):
    with pytest.raises(UserError, match=r"unknown metric of these models 'stress_mae'; .*'force_mae'"):
        main([str(potentials), "--out", str(tmp_path / "out"), "--metric", "stress_mae", "--engine", "inline"])
    assert not (tmp_path / "out" / "trials").exists()
