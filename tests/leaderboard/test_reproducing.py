"""Reproductions: when a retrained model agrees, by simulation and against Student's test; what is on record of it."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm, t, ttest_ind

from scisci.contracts.errors import UserError
from scisci.leaderboard.packing import pack
from scisci.leaderboard.reproducing import compare, costs, not_retrained, reproduce, reproduced
from scisci.leaderboard.scoring import digest

from .scores import Cell, Error, results
from .sweeps import study, swept

SPLITS = ("test", "ood_hot")
SEED_SPREAD, SAMPLING = 0.03, 0.05


def trained(rng: np.random.Generator, seeds: int, factor: float = 1.0, sizes: str = "sml") -> pa.Table:
    """Runs of a model whose errors spread by 3 % over seeds, on samples that could have been harder by 5 %."""
    errors: dict[Cell, dict[str, Error]] = {}
    for (k, size), seed in product(enumerate(sizes), range(seeds)):
        errors[size, 64, seed] = {
            split: (value := factor * 100 / (k + 1) * np.exp(SEED_SPREAD * rng.standard_normal()), SAMPLING * value)
            for split in SPLITS
        }
    return results("model", errors)


def verdicts(submitted: pa.Table, again: pa.Table) -> list[str]:
    return [one.verdict for one in compare(submitted, again)]


@pytest.mark.parametrize("seeds", [(2, 2), (3, 1), (1, 4)])
def test_true_submissions_are_all_found_to_agree_nineteen_times_in_twenty(seeds: tuple[int, int]) -> None:
    rng, trials = np.random.default_rng(sum(seeds)), 60
    missed = 0
    for _ in range(trials):
        found = verdicts(trained(rng, seeds[0]), trained(rng, seeds[1]))
        assert len(found) == 6
        missed += "differs" in found
    # Bonferroni: at most one in twenty; three standard errors above that.
    assert missed <= 0.05 * trials + 3 * np.sqrt(0.05 * 0.95 * trials)


def test_errors_that_were_made_smaller_are_found_out() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        found = compare(trained(rng, 3, factor=0.7), trained(rng, 3))
        assert all(one.verdict == "differs" and one.low is not None and one.low > 1 for one in found)


def test_one_configuration_is_compared_by_students_test() -> None:
    rng = np.random.default_rng(2)
    theirs, ours = trained(rng, 3, sizes="s"), trained(rng, 4, factor=1.05, sizes="s")
    for one in compare(theirs, ours):
        logs = [
            np.log([row["value"] for row in table.to_pylist() if row["split"] == one.split]) for table in (ours, theirs)
        ]
        expected = ttest_ind(*logs).confidence_interval(1 - 0.05 / 2)
        assert one.seeds == (3, 4)
        assert one.ratio == pytest.approx(np.exp(logs[0].mean() - logs[1].mean()))
        assert (one.low, one.high) == pytest.approx(tuple(np.exp(expected)))
        assert (one.submitted, one.again) == pytest.approx((np.exp(logs[1]).mean(), np.exp(logs[0]).mean()))


def test_spread_over_seeds_is_that_of_all_configurations() -> None:
    """A configuration trained once is judged by how much others spread, however small its errors of sampling."""
    rng = np.random.default_rng(3)
    theirs = trained(rng, 3)
    ours = results("again", {("s", 64, 5): {"test": (100.0, 1e-9), "ood_hot": (100.0, 1e-9)}})
    for one in compare(theirs, ours):
        logs = np.log(
            [
                [row["value"] for row in theirs.to_pylist() if (row["size"], row["split"]) == (size, one.split)]
                for size in "sml"
            ]
        )
        spread = np.sqrt(((logs - logs.mean(axis=1, keepdims=True)) ** 2).sum() / 6)
        assert one.seeds == (3, 1)
        width = np.log(one.high / one.low) / 2
        assert width == pytest.approx(t.ppf(1 - 0.05 / 4, 6) * spread * np.sqrt(1 + 1 / 3))


def test_single_runs_are_compared_by_their_errors_of_sampling() -> None:
    def one_run(value: float, error: float | None) -> pa.Table:
        return results("a", {("s", 8, 0): {"test": value if error is None else (value, error)}})

    (same,) = compare(one_run(100, 3.0), one_run(115, 4.6))
    half = norm.ppf(0.975) * np.hypot(0.03, 0.04)
    assert (same.low, same.high) == pytest.approx((1.15 * np.exp(-half), 1.15 * np.exp(half)))
    assert same.verdict == "differs"
    assert verdicts(one_run(100, 3.0), one_run(105, 4.4)) == ["agrees"]
    # An interval that would agree with anything says nothing.
    assert verdicts(one_run(100, 60.0), one_run(105, 4.4)) == ["cannot be told"]
    (unknown,) = compare(one_run(100, None), one_run(100, 1.0))
    assert (unknown.verdict, unknown.low, unknown.high) == ("cannot be told", None, None)


def test_whole_groups_are_the_samples_where_there_are_some() -> None:
    tables = [results("a", {("s", 8, 0): {"test": (100.0, 0.1)}}, se_groups=5.0) for _ in range(2)]
    (one,) = compare(*tables)
    assert np.log(one.high / one.low) == pytest.approx(2 * norm.ppf(0.975) * 0.05 * np.sqrt(2))


def test_an_error_of_nothing_is_compared_too() -> None:
    exact, other = (results("a", {("s", 8, 0): {"test": (value, 0.0)}}) for value in (0.0, 1.0))
    (one,) = compare(exact, other)
    assert one.verdict != "agrees"
    assert one.ratio > 1e20


def test_only_what_both_trained_and_measured_alike_is_compared() -> None:
    errors: dict[Cell, dict[str, Error]] = {
        (size, data, 0): {"test": (1.0, 0.1)} for size, data in (("s", 8), ("s", 16), ("m", 8))
    }
    fewer = {("s", 16, 3): {"test": (1.0, 0.1), "ood_hot": (1.0, 0.1)}, ("l", 8, 0): {"test": (1.0, 0.1)}}
    (one,) = compare(results("a", errors), results("a", fewer))
    assert (one.size, one.data, one.split) == ("s", 16, "test")
    for other in (
        results("a", errors, samples=99),
        results("a", errors, "other"),
        results("a", errors, treatment="augmentation"),
        results("a", errors, metric="energy_mae"),
        results("a", {("s", 8, 0): {}}),
    ):
        with pytest.raises(
            UserError, match="nothing was retrained at a size and an amount of data that were submitted"
        ):
            compare(results("a", errors), other)


def changed(table: pa.Table, **columns: Any) -> pa.Table:
    return pa.Table.from_pylist([row | columns for row in table.to_pylist()], table.schema)


def test_costs_that_were_made_smaller_are_found_out() -> None:
    one = results("a", {("s", 8, seed): {"test": 1.0} for seed in (0, 1)})
    assert list(costs(one, one)) == []
    flops = one["flops"][0].as_py()
    assert list(costs(one, changed(one, flops=1.005 * flops, seconds=9.0))) == []
    assert list(costs(one, changed(one, flops=None))) == []
    assert list(costs(one, changed(one, params=1001, flops=2 * flops))) == [
        "molecules: s with 8 samples has 1001 params, but 1000 were submitted",
        f"molecules: s with 8 samples has {2 * flops:.6g} flops, but {flops:.6g} were submitted",
    ]
    failed = results("a", {("s", 8, seed): {} for seed in (0, 1)})
    assert list(costs(one, failed)) == ["molecules: s with 8 samples did not end well when it was trained again"]
    assert list(costs(failed, one)) == []


def test_the_ranked_configuration_has_to_be_retrained() -> None:
    errors: dict[Cell, dict[str, Error]] = {
        ("s", 8, 0): {"val": (1.0, 0.1), "test": (3.0, 0.1)},
        ("m", 8, 0): {"val": (2.0, 0.1), "test": (2.0, 0.1)},
    }
    theirs = results("a", errors)
    for size, expected in (("s", []), ("m", ["molecules: s with 8 samples, which is ranked, was not trained again"])):
        ours = results("a", {cell: error for cell, error in errors.items() if cell[0] == size})
        assert list(not_retrained(theirs, compare(theirs, ours))) == expected


@pytest.fixture(scope="module")
def folders(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A submission, and two by runs with other seeds: of the same recipe, and of one that trains longer."""
    root, found = tmp_path_factory.mktemp("reproducing"), {}
    for name, seeds, steps in (("small", [0, 1, 2], 4), ("again", [3, 4, 5], 4), ("longer", [3, 4, 5], 60)):
        (root / name).mkdir()
        models = {"schnet": {"sizes": ["3k"], "learning_rate": 0.01}}
        recipe = {"steps": steps, "batch_size": 4, "validations": 2}
        content = study("tiny-molecules", models, seeds=seeds, data=[16], optimization=recipe)
        (found[name],) = pack(swept(content, root / name / "sweep"), root / name / "submissions")
    return found


def test_a_model_that_was_trained_again_agrees(folders: dict[str, Path], tmp_path: Path) -> None:
    record = reproduce(folders["small"], folders["again"], tmp_path)
    assert record.verdict == "reproduced", record.reasons
    assert {one.split for one in record.comparisons} == {"val", "test"}
    assert all(one.seeds == (3, 3) for one in record.comparisons)
    (path,) = tmp_path.iterdir()
    assert path.name == f"{folders['small'].name}.json"
    assert reproduced(tmp_path) == {folders["small"].name: digest(folders["small"])}
    before = path.read_bytes()
    reproduce(folders["small"], folders["again"], tmp_path)
    assert path.read_bytes() == before


def test_a_record_is_for_the_submission_as_it_was(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / folders["small"].name
    shutil.copytree(folders["small"], folder)
    reproduce(folder, folders["again"], tmp_path / "records")
    before = reproduced(tmp_path / "records")[folder.name]
    path = next(folder.glob("predictions/*/test.h5"))
    with h5py.File(path, "r+") as file:
        file["energy"][0] += 1e-9
    assert digest(folder) != before


def test_another_recipe_is_not_a_reproduction(folders: dict[str, Path], tmp_path: Path) -> None:
    record = reproduce(folders["small"], folders["longer"], tmp_path)
    assert record.verdict == "not reproduced"
    assert any("flops, but" in reason for reason in record.reasons)
    assert reproduced(tmp_path) == {}


def test_a_submission_does_not_reproduce_itself(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the submission itself; give one that was packed from runs of your own"):
        reproduce(folders["small"], folders["small"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"verdict": "reproduced"}'])
def test_what_is_no_record_is_said(folders: dict[str, Path], tmp_path: Path, text: str) -> None:
    reproduce(folders["small"], folders["again"], tmp_path)
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    for other in (text, json.dumps(content | {"more": 1}), json.dumps(content | {"schema_version": 2})):
        path.write_text(other)
        with pytest.raises(UserError, match="is not a record of 'scisci leaderboard reproduce'; write it again"):
            reproduced(tmp_path)
    assert reproduced(tmp_path / "none") == {}
