"""Training on merger trees: parameters of their universe, mergers that were left out, and the metrics of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import METRICS
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.batch import graph_batch
from scisci.data.samples import TreeSample, problem
from scisci.data.statistics import NODE_FEATURES, tree_statistics
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.models.tree import Tree, roots
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study
from scisci.symmetry.actions import apply
from scisci.symmetry.groups import GROUPS
from scisci.tasks.checkpoints import load_task
from scisci.tasks.cli import main
from scisci.tasks.metrics import Accumulator, infilling_errors, ratio_estimate
from scisci.tasks.run import execute
from scisci.tasks.symmetry import measured
from scisci.tasks.trees import TreeTask
from scisci.tasks.version import code_version

SNAPSHOTS = 7


def grown(rng: np.random.Generator, merging: float) -> tuple[np.ndarray, np.ndarray]:
    """Parents and scale factors of a tree whose halos have two progenitors with probability `merging`, else one."""
    parents, depths, latest = [-1], [0], [0]
    for depth in range(1, SNAPSHOTS):
        latest = [node for node in latest for _ in range(1 + (rng.random() < merging))]
        parents += latest
        depths += [depth] * len(latest)
        latest = list(range(len(parents) - len(latest), len(parents)))
    return np.array(parents), 1.0 - 0.1 * np.array(depths)


def by_shape(rng: np.random.Generator) -> TreeSample:
    """Omega_m is the share of halos that are mergers, sigma_8 goes with the mean of a feature."""
    parent, scale = grown(rng, rng.uniform(0.05, 0.6))
    mean = rng.normal()
    features = rng.normal((12.0, 0.0, mean, 0.0), 1.0, (len(parent), 4))
    features[:, 3] = scale
    mergers = np.bincount(parent[1:], minlength=len(parent)) > 1
    return TreeSample(features, parent, omega_m=mergers.mean(), sigma_8=0.8 + 0.1 * mean)


def to_fill(rng: np.random.Generator) -> TreeSample:
    """Beside every merger a virtual node; a halo was left out where the merger outweighs its progenitors by far."""
    parent, scale = grown(rng, 0.5)
    mass = 10 ** (11 + rng.uniform(size=len(parent)))
    children = np.bincount(parent[1:], minlength=len(parent))
    mergers = np.flatnonzero(children > 1)
    left_out = rng.random(len(mergers)) < 0.4
    for node, more in zip(mergers[::-1], left_out[::-1], strict=True):
        mass[node] = mass[parent == node].sum() * (2.5 if more else 1.0)
    features = np.stack([np.log10(mass), rng.normal(size=len(mass)), rng.normal(size=len(mass)), scale], axis=1)
    virtual = np.tile(features.mean(axis=0), (len(mergers), 1))
    return TreeSample(
        np.concatenate([features, virtual]),
        np.concatenate([parent, mergers]),
        label=np.concatenate([np.full(len(parent), -1), left_out]),
    )


def store_of(path: Path, make: Callable[[np.random.Generator], TreeSample], train: int = 192) -> Path:
    rng = np.random.default_rng(0)
    with StoreWriter(path, "tree") as writer:
        for name, count in (("train", train), ("val", 24), ("test", 48)):
            samples = [make(rng) for _ in range(count)]
            assert not any(map(problem, samples))
            members = [writer.append(sample, f"{name} {k}") for k, sample in enumerate(samples)]
            writer.split(name, np.array(members), "none", disjoint=name != "train")
    return path


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory.mktemp("trees") / "shapes.h5", by_shape)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory.mktemp("trees") / "gaps.h5", to_fill)


def train(store: Path, folder: Path, architecture: str, target: str, steps: int, **overrides: Any) -> RunResult:
    return execute(
        RunSpec(
            study="test",
            dataset=str(store),
            fingerprint=Store(store).fingerprint,
            architecture=architecture,
            size="3k",
            overrides=overrides,
            task={"target": target},
            data=192,
            optimization=OptimizationSpec(steps=steps, learning_rate=0.01, batch_size=16),
            evaluation=EvaluationSpec(splits=("test",), symmetry_samples=8),
            code_version=code_version(),
        ),
        folder,
    )


@pytest.mark.parametrize("architecture", ["gin", "deepsets"])
def test_parameters_are_learned(shapes: Path, tmp_path: Path, architecture: str) -> None:
    metrics = train(shapes, tmp_path, architecture, "parameters", 150).splits["test"].metrics
    assert metrics["omega_m_r2"].value > 0.8
    assert metrics["sigma_8_r2"].value > 0.8
    for name in ("omega_m", "sigma_8"):
        assert metrics[f"symmetry_permutation_{name}_float64"].value < 1e-10
    assert set(metrics) <= set(METRICS)
    assert isinstance(load_task(tmp_path), TreeTask)


def test_gaps_are_found_by_a_model_of_edges_alone(gaps: Path, tmp_path: Path) -> None:
    """Which halos stand around a virtual node is said by edges and nothing else."""
    found = train(gaps, tmp_path, "gin", "infilling", 400).splits["test"].metrics
    assert found["infilling_balanced_accuracy"].value > 0.85
    assert found["infilling_f1"].value > 0.8
    assert found["symmetry_permutation_infilling_float64"].value < 1e-10
    blind = train(gaps, tmp_path, "deepsets", "infilling", 40).splits["test"].metrics
    labels = Store(gaps).take(Store(gaps).split("test").indices()).items["label"]
    virtual = labels[labels >= 0]
    assert blind["infilling_accuracy"].value < max(virtual.mean(), 1 - virtual.mean()) + 0.05
    assert blind["infilling_nll"].value > 5 * found["infilling_nll"].value / 2


def test_metrics_against_counts(gaps: Path) -> None:
    rng, store = np.random.default_rng(1), Store(gaps)
    accumulator, odds, labels = Accumulator(infilling_errors), [], []
    for part in np.array_split(np.arange(60), 7):
        batch = graph_batch(store.take(part), 0)
        guess = torch.from_numpy(rng.normal(size=len(batch.label)) + 0.5 * (batch.label.numpy() == 1))
        accumulator.update({"infilling": guess}, batch)
        odds.append(guess.numpy()[batch.label >= 0])
        labels.append(batch.label.numpy()[batch.label >= 0])
    x, y = np.concatenate(odds), np.concatenate(labels)
    said, found = x > 0, accumulator.compute()
    hits, misses, alarms = (said & (y == 1)).sum(), (~said & (y == 1)).sum(), (said & (y == 0)).sum()
    precision, recall = hits / (hits + alarms), hits / (hits + misses)
    assert found["infilling_accuracy"].value == pytest.approx((said == y).mean())
    assert found["infilling_f1"].value == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["infilling_balanced_accuracy"].value == pytest.approx((recall + (~said[y == 0]).mean()) / 2)
    probability = 1 / (1 + np.exp(-x))
    assert found["infilling_nll"].value == pytest.approx(-np.log(np.where(y == 1, probability, 1 - probability)).mean())


def test_standard_error_of_a_mean_of_ratios_against_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 9, (200, 2)).astype(float)
    numerators = rng.binomial(weights.astype(int), [0.9, 0.4]).astype(float)
    found = ratio_estimate(numerators, weights, np.arange(200))
    draws = rng.integers(0, 200, (3000, 200))
    again = (numerators[draws].sum(axis=1) / weights[draws].sum(axis=1)).mean(axis=1)
    assert found.value == pytest.approx((numerators.sum(axis=0) / weights.sum(axis=0)).mean())
    assert found.se == pytest.approx(again.std(), rel=0.1)
    # A label that does not occur takes no part.
    alone = ratio_estimate(numerators * [1, 0], weights * [1, 0], np.arange(200))
    assert alone == ratio_estimate(numerators[:, 0], weights[:, 0], np.arange(200))


def test_trees_without_mergers_teach_nothing_and_have_no_metrics(gaps: Path) -> None:
    store = Store(gaps)
    task = TreeTask("gin", "3k", target="infilling")
    task.build(tree_statistics(store, np.arange(20), ("label",)))
    batch = graph_batch(store.take(np.arange(4)), 0)
    batch.label = torch.full_like(batch.label, -1)
    batch.edge_index = batch.edge_index[:, :3]
    outputs = {"infilling": torch.zeros(len(batch.label), requires_grad=True)}
    assert float(task.loss(outputs, batch).detach()) == 0
    accumulator = Accumulator(infilling_errors)
    accumulator.update(outputs, batch)
    assert accumulator.compute() == {}


def test_statistics_are_those_of_halos(gaps: Path, shapes: Path) -> None:
    store = Store(gaps)
    held = store.take(np.arange(10))
    halos = held.items["node_features"][held.items["label"] < 0]
    found = tree_statistics(store, np.arange(10), ("label",))
    for k, name in enumerate(NODE_FEATURES):
        assert found.offsets[name] == pytest.approx(halos[:, k].mean(), rel=1e-5)
        assert found.scales[name] == pytest.approx(halos[:, k].std(), rel=1e-5)
    parameters = tree_statistics(Store(shapes), np.arange(10), ("omega_m",))
    assert parameters.offsets["omega_m"] == pytest.approx(Store(shapes).take(np.arange(10)).samples["omega_m"].mean())


def test_the_root_is_found_whatever_the_order_of_nodes(gaps: Path) -> None:
    ragged = Store(gaps).take(np.arange(8))
    batch = graph_batch(ragged, 0)
    expected = np.flatnonzero(ragged.items["parent"] < 0)
    np.testing.assert_array_equal(roots(batch), expected)
    element = GROUPS["permutation"].draw(batch, np.random.default_rng(0))
    acted, _ = apply(element, batch)
    assert element.order is not None
    np.testing.assert_array_equal(element.order[roots(acted)], expected)


def test_features_enter_standardised(shapes: Path) -> None:
    task = TreeTask("gin", "3k")
    task.build(tree_statistics(Store(shapes), np.arange(192), ("omega_m", "sigma_8")))
    assert isinstance(task.model, Tree)
    seen = task.model.graph(graph_batch(Store(shapes).take(np.arange(192)), 0)).node_scalars
    assert seen is not None
    np.testing.assert_allclose(seen.mean(dim=0), [0, 0, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(seen.std(dim=0), [1, 1, 1, 1, 0], rtol=1e-3)


def test_by_the_command_line_and_back(gaps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            *("fit", f"--data.dataset={gaps}", f"--runs={tmp_path}", "--model.target=infilling", "--model.size=3k"),
            *("--model.overrides={both_ways: true}", "--trainer.max_steps=10", "--trainer.val_check_interval=5"),
            "--trainer.enable_progress_bar=false",
        ]
    )
    (folder,) = tmp_path.iterdir()
    assert "in-filling F1" in capsys.readouterr().out
    main(["predict", "--run", str(folder), "--trainer.enable_progress_bar=false"])
    result = RunResult.model_validate_json((folder / "result.json").read_text())
    assert result.domain == "tree"
    with h5py.File(folder / "predictions" / "test.h5") as file:
        labels = Store(gaps).take(file["ids"][...]).items["label"]
        right = (file["infilling"][...] > 0) == (labels == 1)
    reported = result.splits["test"].metrics["infilling_accuracy"].value
    assert right[labels >= 0].mean() == pytest.approx(reported, abs=1e-6)
    errors = measured(str(folder), str(gaps), dtype="float64")
    assert set(errors.group) == {"permutation"}
    assert errors.value[errors.statistic == "relative"].max() < 1e-10
    with pytest.raises(UserError, match="cannot act on these data: they have no positions; 'permutation' reorders"):
        measured(str(folder), str(gaps), groups=["rotation"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "mpnn"}, "mpnn is for samples of the domain 'atoms' .*; choose one of: deepsets, gin"),
        ({"architecture": "gni"}, "unknown architecture 'gni'; did you mean 'egnn' or 'gin'"),
        (
            {"symmetry_treatment": "augmentation"},
            "unknown symmetry_treatment .*; choose one of: none",
        ),
        ({"target": "infiling"}, "unknown target of the task 'trees'.*; did you mean 'infilling'"),
        ({"overrides": {"both_ways": 1}}, "both_ways of gin is 1, but must be true or false"),
    ],
)
def test_what_is_not_for_trees_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TreeTask(**options)


def test_a_study_plans_models_for_trees_and_refuses_others(gaps: Path) -> None:
    section = {"sizes": ["3k", "10k"], "learning_rate": 0.01}
    study = {
        "study": "trees",
        "dataset": str(gaps),
        "task": {"target": "infilling"},
        "architectures": {"gin": section, "deepsets": section},
        "data": [64, 192],
        "seeds": [0],
        "optimization": {"steps": 10},
        "evaluation": {"splits": ["test"]},
    }
    plan = make_plan(Study.model_validate(study))
    assert (plan.domain, len(plan)) == ("tree", 8)
    with pytest.raises(UserError, match="egnn is for samples of the domain 'atoms'"):
        make_plan(Study.model_validate(study | {"architectures": {"egnn": section}}))
    with pytest.raises(UserError, match="unknown symmetry_treatment"):
        make_plan(Study.model_validate(study | {"architectures": {"gin": section | {"treatment": "augmentation"}}}))
    with pytest.raises(UserError, match="unknown target"):
        make_plan(Study.model_validate(study | {"task": {"target": "filling"}}))


def test_what_the_data_lack_is_named(shapes: Path, gaps: Path) -> None:
    with pytest.raises(UserError, match="has no label; it has node_features, parent, omega_m, sigma_8"):
        tree_statistics(Store(shapes), np.arange(4), ("label",))
    with pytest.raises(UserError, match="has no omega_m and no sigma_8"):
        tree_statistics(Store(gaps), np.arange(4), ("omega_m", "sigma_8"))


def test_one_label_alone_is_refused(tmp_path: Path) -> None:
    def same(rng: np.random.Generator) -> TreeSample:
        sample = to_fill(rng)
        assert sample.label is not None
        sample.label = np.minimum(sample.label, 0)
        return sample

    store = Store(store_of(tmp_path / "same.h5", same, train=4))
    with pytest.raises(UserError, match="do not have virtual nodes of both labels"):
        tree_statistics(store, np.arange(4), ("label",))
