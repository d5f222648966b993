"""Baselines of merger trees against counts, a slow oracle and an optimiser of another kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.batch import graph_batch
from scisci.data.samples import TreeSample
from scisci.data.store import Store
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study
from scisci.symmetry.actions import act
from scisci.tasks.baselines.infilling import Logistic, around
from scisci.tasks.baselines.registry import BASELINES, build
from scisci.tasks.baselines.stored import load
from scisci.tasks.run import execute
from scisci.tasks.trees import TreeTask
from scisci.tasks.version import code_version

from .test_trees import by_shape, grown, store_of, to_fill

OF_TREES = [(target, name) for target, known in BASELINES["tree"].items() for name in known]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory.mktemp("trees") / "shapes.h5", by_shape)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory.mktemp("trees") / "gaps.h5", to_fill)


def fit(store: Path, folder: Path, target: str, name: str, size: str | None = None) -> RunResult:
    folder.mkdir(exist_ok=True)
    return execute(
        RunSpec(
            study="test",
            dataset=str(store),
            fingerprint=Store(store).fingerprint,
            architecture=name,
            size=size or next(iter(BASELINES["tree"][target][name].SIZES)),
            task={"target": target},
            data=192,
            optimization=OptimizationSpec(steps=1, learning_rate=None),
            evaluation=EvaluationSpec(splits=("test",), symmetry_samples=8),
            code_version=code_version(),
        ),
        folder,
    )


def of_split(store: Path, split: str, column: str) -> np.ndarray:
    held = Store(store).take(Store(store).split(split).indices())
    return (held.samples | held.items)[column]


@pytest.mark.parametrize(("target", "name"), OF_TREES)
def test_every_baseline_gives_a_whole_result(shapes: Path, gaps: Path, tmp_path: Path, target: str, name: str) -> None:
    result = fit(gaps if target == "infilling" else shapes, tmp_path, target, name)
    metrics, task = result.splits["test"].metrics, TreeTask(target=target)
    assert result == RunResult.model_validate_json(result.model_dump_json())
    assert (result.domain, result.unique_samples, result.learning_rate) == ("tree", 192, None)
    assert (result.params > 1) == (result.flops_per_sample > 0)
    for quantity in task.compared:
        assert metrics[f"symmetry_permutation_{quantity}_float64"].value < 1e-12
    assert metrics[task.headline].se is not None


def test_the_number_of_nodes_tells_what_was_made_from_it(tmp_path: Path) -> None:
    def counted(rng: np.random.Generator) -> TreeSample:
        parent, scale = grown(rng, rng.uniform(0.05, 0.6))
        features = np.stack([rng.normal(12, 1, len(parent)), *rng.normal(size=(2, len(parent))), scale], axis=1)
        return TreeSample(features, parent, omega_m=0.1 + 0.05 * np.log(len(parent)) ** 2, sigma_8=rng.uniform(0.6, 1))

    store = store_of(tmp_path / "trees.h5", counted)
    metrics = fit(store, tmp_path / "run", "parameters", "node_count", "6").splits["test"].metrics
    assert metrics["omega_m_fvu"].value < 1e-8
    assert metrics["sigma_8_r2"].value < 0.1


def test_virtual_nodes_are_no_halos_to_be_counted(gaps: Path) -> None:
    baseline, batch = build("node_count", "tree", {}, "4"), graph_batch(Store(gaps).take(np.arange(6)), 0)
    halos = [(batch.label[batch.batch == k] < 0).sum() for k in range(6)]
    assert baseline.features(batch)[0, :, 1].exp().numpy() == pytest.approx(np.array(halos))


def test_the_mean_explains_nothing_and_misses_by_the_variance(shapes: Path, tmp_path: Path) -> None:
    metrics = fit(shapes, tmp_path, "parameters", "constant").splits["test"].metrics
    for name in ("omega_m", "sigma_8"):
        train, test = (of_split(shapes, split, name) for split in ("train", "test"))
        assert metrics[f"{name}_mse"].value == pytest.approx(np.square(test - train.mean()).mean())
        assert -0.1 < metrics[f"{name}_r2"].value <= 0


def test_the_share_of_a_label_gives_accuracy_and_entropy_of_a_majority_vote(gaps: Path, tmp_path: Path) -> None:
    metrics = fit(gaps, tmp_path, "infilling", "constant").splits["test"].metrics
    train, test = (labels[labels >= 0] for labels in (of_split(gaps, split, "label") for split in ("train", "test")))
    share = train.mean()
    assert share < 0.5
    assert metrics["infilling_accuracy"].value == pytest.approx((test == 0).mean())
    assert metrics["infilling_balanced_accuracy"].value == 0.5
    assert metrics["infilling_f1"].value == 0
    expected = -np.log(share) * test.mean() - np.log(1 - share) * (1 - test.mean())
    assert metrics["infilling_nll"].value == pytest.approx(expected)
    assert float(load(tmp_path).model.weight) == pytest.approx(logit(share))


def surroundings(sample: TreeSample) -> np.ndarray:
    """What is around each virtual node of a tree, node by node."""
    assert sample.label is not None
    rows = []
    for node in np.flatnonzero(sample.label >= 0):
        merger = sample.parent[node]
        halos = [k for k in range(len(sample.parent)) if sample.parent[k] == merger and sample.label[k] < 0]
        before = sample.node_features[halos]
        gain = sample.node_features[merger, 0] - np.log10((10 ** before[:, 0]).sum())
        rows.append([*sample.node_features[merger], *before.mean(axis=0), gain])
    return np.array(rows)


@pytest.mark.parametrize("shuffled", [False, True])
def test_surroundings_are_those_of_a_walk_through_the_tree(tmp_path: Path, shuffled: bool) -> None:
    rng = np.random.default_rng(3)
    samples = [to_fill(rng) for _ in range(34)]
    made = iter(samples)
    store = Store(store_of(tmp_path / "x.h5", lambda _: next(made, samples[0]), train=4))
    batch = graph_batch(store.take(np.arange(4)), 0)
    expected = np.concatenate([surroundings(sample) for sample in samples[:4]])
    found = around(batch).numpy()
    if shuffled:
        acted, _ = act("permutation", batch, np.random.default_rng(0))
        found = around(acted).numpy()
        found, expected = (rows[np.lexsort(rows.round(3).T)] for rows in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_gaps_are_found_by_the_mass_gained(gaps: Path, tmp_path: Path) -> None:
    metrics = fit(gaps, tmp_path, "infilling", "logistic").splits["test"].metrics
    assert metrics["infilling_balanced_accuracy"].value > 0.95


def test_logistic_regression_is_where_another_optimiser_ends(tmp_path: Path) -> None:
    def noisy(rng: np.random.Generator) -> TreeSample:
        sample = to_fill(rng)
        assert sample.label is not None
        wrong = (sample.label >= 0) & (rng.random(len(sample.label)) < 0.2)
        sample.label = np.where(wrong, 1 - sample.label, sample.label)
        return sample

    store = Store(store_of(tmp_path / "noisy.h5", noisy))
    fit(store.path, tmp_path / "run", "infilling", "logistic")
    baseline = load(tmp_path / "run").model
    assert isinstance(baseline, Logistic)
    penalty = json.loads((tmp_path / "run" / "baseline.json").read_text())["choices"]["ridge"]
    batch = graph_batch(store.take(store.split("train").indices()), 0)
    raw, y = around(batch).numpy(), batch.label[batch.label >= 0].numpy()
    x = np.column_stack([np.ones(len(raw)), (raw - raw.mean(0)) / raw.std(0)])
    kept = np.r_[0, np.ones(9)]

    def loss(w: np.ndarray) -> float:
        p = expit(x @ w)
        return -(y * np.log(p) + (1 - y) * np.log1p(-p)).mean() + penalty / 2 * (kept * w**2).sum()

    best = minimize(loss, np.zeros(10), method="BFGS", options={"gtol": 1e-6})
    assert loss(baseline.weights.numpy()) <= best.fun + 1e-10
    np.testing.assert_allclose(x @ baseline.weights.numpy(), x @ best.x, atol=1e-3)


def test_labels_without_a_cause_leave_the_share(tmp_path: Path) -> None:
    def at_random(rng: np.random.Generator) -> TreeSample:
        sample = to_fill(rng)
        assert sample.label is not None
        sample.label = np.where(sample.label < 0, -1, rng.random(len(sample.label)) < 0.3)
        return sample

    store = store_of(tmp_path / "x.h5", at_random)
    share, fitted = (
        fit(store, tmp_path / name, "infilling", name).splits["test"].metrics["infilling_nll"]
        for name in ("constant", "logistic")
    )
    assert fitted.value == pytest.approx(share.value, abs=0.03)


def test_one_label_alone_is_refused(tmp_path: Path) -> None:
    def same(rng: np.random.Generator) -> TreeSample:
        sample = to_fill(rng)
        assert sample.label is not None
        sample.label = np.minimum(sample.label, 0)
        return sample

    store = store_of(tmp_path / "same.h5", same)
    for name in ("constant", "logistic"):
        with pytest.raises(UserError, match="do not have virtual nodes of both labels"):
            fit(store, tmp_path / "run", "infilling", name)


def test_what_the_data_lack_is_named(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shapes.h5 has no label, which is to be predicted"):
        fit(shapes, tmp_path, "infilling", "constant")


def test_a_study_of_trees_has_baselines_beside_networks(gaps: Path) -> None:
    entries = {
        "constant": {"sizes": ["1"]},
        "logistic": {"sizes": ["10"]},
        "gin": {"sizes": ["3k"], "learning_rate": 0.01},
    }
    study = {
        "study": "trees",
        "dataset": str(gaps),
        "task": {"target": "infilling"},
        "architectures": entries,
        "data": [64, 192],
        "optimization": {"steps": 10},
        "evaluation": {"splits": ["test"]},
    }
    assert len(make_plan(Study.model_validate(study))) == 6
    with pytest.raises(
        UserError, match="node_count does not predict infilling; for these choose one of: constant, log"
    ):
        make_plan(Study.model_validate(study | {"architectures": {"node_count": {"sizes": ["4"]}}}))
    with pytest.raises(UserError, match="halo_count is a baseline for samples of the domain 'cloud', not 'tree'"):
        make_plan(Study.model_validate(study | {"architectures": {"halo_count": {"sizes": ["4"]}}}))


def test_the_first_target_is_the_default_of_the_task() -> None:
    from scisci.tasks.domains import task_for

    for domain, targets in BASELINES.items():
        # Series have one target, which is no option.
        assert task_for(domain)().hparams.get("target", "forecast") == next(iter(targets))


def test_odds_of_halos_are_finite(gaps: Path, tmp_path: Path) -> None:
    fit(gaps, tmp_path, "infilling", "logistic")
    batch = graph_batch(Store(gaps).take(np.arange(5)), 0)
    odds = load(tmp_path)(batch)["infilling"]
    assert odds.shape == batch.batch.shape
    assert torch.isfinite(odds).all()
