"""Baselines against closed forms: what they are fitted to is made so that the answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.batch import graph_batch
from scisci.data.samples import CloudSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.generate.pm_halos import Box, Job, cosmologies
from scisci.models.cloud import Cloud
from scisci.tasks.baselines import cli
from scisci.tasks.baselines.linear import PENALTIES, Moments, ridge
from scisci.tasks.baselines.pairs import half_width, two_point
from scisci.tasks.baselines.registry import BASELINES, build
from scisci.tasks.clouds import CloudTask
from scisci.tasks.heaviest import heaviest
from scisci.tasks.metrics import Accumulator, parameter_errors, velocity_errors
from scisci.tasks.run import execute
from scisci.tasks.symmetry import measured
from scisci.tasks.version import code_version

from .test_clouds import batch_of

SIDE, CELLS = 96.0, 32
Make = Callable[[np.random.Generator], CloudSample]
OF_CLOUDS = [(target, name) for target, known in BASELINES["cloud"].items() for name in known]


def store_of(path: Path, make: Make, train: int = 12, held: int = 6) -> Path:
    rng = np.random.default_rng(0)
    with StoreWriter(path, "cloud") as writer:
        for name, count in (("train", train), ("val", held), ("test", held)):
            members = [writer.append(make(rng), f"{name} {k}") for k in range(count)]
            writer.split(name, np.array(members), "none", disjoint=name != "train")
    return path


def cloud(positions: np.ndarray, velocities: np.ndarray | None = None, **fields: float | np.ndarray) -> CloudSample:
    fields = {"omega_m": 0.3, "sigma_8": 0.8} | fields
    velocities = np.zeros_like(positions) if velocities is None else velocities
    return CloudSample(positions, np.full(3, SIDE), velocities, **fields)


def fit(store: Path, folder: Path, target: str, name: str, size: str, seed: int = 0, **changes: object) -> RunResult:
    opened = Store(store)
    options: dict = {
        "data": len(opened.split("train")),
        "task": {"target": target},
        "optimization": OptimizationSpec(steps=1, learning_rate=None),
    } | changes
    folder.mkdir(exist_ok=True)
    return execute(
        RunSpec(
            study="test",
            dataset=str(store),
            fingerprint=opened.fingerprint,
            architecture=name,
            size=size,
            seed=seed,
            evaluation=EvaluationSpec(splits=("test",), symmetry_samples=3),
            code_version=code_version(),
            **options,
        ),
        folder,
    )


def choices(folder: Path) -> dict[str, float]:
    return json.loads((folder / "baseline.json").read_text())["choices"]


def linear_velocities(cells: np.ndarray, beta: float, radius: float, modes: int) -> np.ndarray:
    """Linear theory by FFT for points [n, 3] that are cells of a mesh."""
    density = np.zeros((CELLS,) * 3)
    np.add.at(density, tuple(cells.T), CELLS**3 / len(cells))
    number = np.stack(np.meshgrid(*[np.fft.fftfreq(CELLS, 1 / CELLS)] * 3, indexing="ij"))
    k = 2 * np.pi / SIDE * number
    square = (k**2).sum(axis=0)
    kept = (np.abs(number) <= modes).all(axis=0) & (square > 0)
    wave = np.fft.fftn(density) * np.exp(-0.5 * square * radius**2) * kept / np.where(square > 0, square, 1)
    field = [np.fft.ifftn(1j * part * wave).real[tuple(cells.T)] for part in k]
    return 100 * beta * np.stack(field, axis=1)


@pytest.mark.parametrize(("size", "slope"), [("1", 0.0), ("2", -0.15)])
def test_linear_theory_finds_beta_and_the_smoothing(tmp_path: Path, size: str, slope: float) -> None:
    modes = 7
    radius = SIDE * 3 / (2 * np.pi * modes)

    def make(rng: np.random.Generator) -> CloudSample:
        cells = rng.integers(CELLS, size=(rng.integers(60, 200), 3))
        beta = 0.4 + slope * np.log(len(cells) / 120)
        return cloud(cells * (SIDE / CELLS), linear_velocities(cells, beta, radius, modes))

    store = store_of(tmp_path / "clouds.h5", make)
    result = fit(store, tmp_path / "run", "velocities", "linear_theory", size)
    metrics, found = result.splits["test"].metrics, choices(tmp_path / "run")
    assert metrics["velocities_fvu"].value < 1e-8
    lengths = Store(store).take(np.arange(12)).lengths
    assert found["beta"] == pytest.approx(0.4 + slope * np.log(lengths / 120).mean(), rel=1e-4)
    assert found["radius_over_side"] == pytest.approx(radius / SIDE)


def brute_force_pairs(positions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [n, n, 3] to the nearest of 27 images of each point, and distances [n, n]."""
    images = box * np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
    apart = positions[None, :, None] + images - positions[:, None, None]
    nearest = np.linalg.norm(apart, axis=-1).argmin(axis=2)
    apart = np.take_along_axis(apart, nearest[:, :, None, None], axis=2)[:, :, 0]
    distance = np.linalg.norm(apart, axis=-1)
    np.fill_diagonal(distance, np.inf)
    return apart, distance


def by_pairs(law: Callable[[np.ndarray], np.ndarray]) -> Make:
    """Velocities that are sums of unit vectors to all others within half the box, weighted by a law of distance."""

    def make(rng: np.random.Generator) -> CloudSample:
        positions = rng.uniform(0, SIDE, (80, 3))
        apart, distance = brute_force_pairs(positions, np.full(3, SIDE))
        weight = law(np.minimum(2 * distance / SIDE, 1)) / distance
        return cloud(positions, (weight[..., None] * apart).sum(axis=1))

    return make


@pytest.mark.parametrize(
    ("law", "size", "unexplained"),
    [
        (lambda r: 70 * (1 - np.sqrt(r)), "4", 1e-8),
        (lambda r: 90 * (1 - r) ** 2, "16", 1e-3),
        (lambda r: -20 * np.where(r < 0.5625, 1, 4 - 4 * np.sqrt(r)), "24", 1e-8),
    ],
)
def test_linear_vectors_find_a_law_of_pairs(tmp_path: Path, law: Callable, size: str, unexplained: float) -> None:
    store = store_of(tmp_path / "clouds.h5", by_pairs(law))
    metrics = fit(store, tmp_path / "run", "velocities", "linear_vectors", size).splits["test"].metrics
    assert metrics["velocities_fvu"].value < unexplained


@given(st.integers(2, 40), st.integers(0, 2**32), st.tuples(*[st.floats(20, 60)] * 3))
def test_two_point_function_is_that_of_brute_force_counts(count: int, seed: int, box: tuple[float, ...]) -> None:
    positions = np.random.default_rng(seed).uniform(0, box, (count, 3))
    cell = torch.diag(torch.tensor(box, dtype=torch.float64))
    assert half_width(cell) == pytest.approx(min(box) / 2)
    edges = np.linspace(0, 1, 6) ** 2 * min(box) / 2
    found = two_point(torch.from_numpy(positions), cell, torch.from_numpy(edges))
    _, distance = brute_force_pairs(positions, np.array(box))
    expected = count * (count - 1) * 4 / 3 * np.pi * np.diff(edges**3) / np.prod(box)
    assert found.numpy() == pytest.approx(np.histogram(distance, edges)[0] / expected - 1)


def test_two_point_function_of_random_points_is_zero() -> None:
    rng, edges = np.random.default_rng(0), torch.linspace(0, SIDE / 2, 9, dtype=torch.float64)
    cell = SIDE * torch.eye(3, dtype=torch.float64)
    found = np.stack([two_point(torch.from_numpy(rng.uniform(0, SIDE, (300, 3))), cell, edges) for _ in range(30)])
    error = found.std(axis=0, ddof=1) / np.sqrt(30)
    assert (np.abs(found.mean(axis=0)) < 4 * error).all()
    assert error.max() < 0.05


@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_regression_is_that_of_standardised_features(intercept: bool) -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(50), 5 + rng.normal(0, 3, 50), np.full(50, 7.0), rng.normal(-1, 0.1, 50)])
    x = x if intercept else x[:, 1::2]
    y = rng.normal(2, 1, (50, 2)) + x[:, -1:] * [3, -2]
    moments = Moments()
    for part in np.array_split(np.arange(50), 3):
        moments.add(torch.from_numpy(x[part])[None], torch.from_numpy(y[part]))
    middle, spread = (x.mean(0), x.std(0)) if intercept else (0 * x[0], np.sqrt((x**2).mean(0)))
    used = spread > 0
    z = (x - middle)[:, used] / spread[used]
    found = ridge(moments, intercept)[:, 0].numpy()
    for penalty, weights in zip(PENALTIES.tolist(), found, strict=True):
        target = y - y.mean(0) if intercept else y
        slopes = np.linalg.solve(z.T @ z / 50 + penalty * np.eye(z.shape[1]), z.T @ target / 50)
        expected = z @ slopes + (y.mean(0) if intercept else 0)
        assert x @ weights == pytest.approx(expected, abs=1e-8)
        residuals = ((x @ weights - y) ** 2).sum(0)
        assert moments.missed(torch.from_numpy(weights)[None])[0].numpy() == pytest.approx(residuals)


def counted(rng: np.random.Generator) -> CloudSample:
    """Of the parameters' two halves one follows from the number of points alone, and the other from nothing."""
    count = rng.integers(40, 120)
    sigma_8 = 0.7 + 0.1 * np.log(count / 70) + 0.05 * np.log(count / 70) ** 2
    masses = np.sort(rng.pareto(2, count) + 1)[::-1]
    return cloud(rng.uniform(0, SIDE, (count, 3)), omega_m=rng.uniform(0.1, 0.5), sigma_8=sigma_8, masses=masses)


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory.mktemp("counts") / "clouds.h5", counted, train=60, held=40)


def test_count_tells_what_was_made_from_it(counts: Path, tmp_path: Path) -> None:
    metrics = fit(counts, tmp_path / "run", "parameters", "halo_count", "6").splits["test"].metrics
    assert metrics["sigma_8_fvu"].value < 1e-8
    assert metrics["omega_m_r2"].value < 0.1


@pytest.mark.parametrize(("name", "size"), [("halo_count", "6"), ("two_point", "16"), ("two_point_mlp", "600")])
def test_at_a_fixed_number_of_points_the_count_tells_nothing(
    counts: Path, tmp_path: Path, name: str, size: str
) -> None:
    free, fixed = (
        fit(counts, tmp_path / str(k), "parameters", name, size, task={"target": "parameters", "heaviest": k})
        if k
        else fit(counts, tmp_path / str(k), "parameters", name, size)
        for k in (0, 40)
    )
    assert free.splits["test"].metrics["sigma_8_r2"].value > 0.8
    assert fixed.splits["test"].metrics["sigma_8_r2"].value < 0.15


def test_the_heaviest_points_keep_their_order_and_their_edges(counts: Path) -> None:
    whole = Store(counts).take(np.arange(5))
    masses = np.random.default_rng(0).permutation(whole.items["masses"])
    whole.items["masses"][:] = masses
    batch = graph_batch(whole, 25.0)
    assert torch.equal(heaviest(batch, 10**6).edge_index, batch.edge_index)
    found = heaviest(batch, 30)
    assert found.ptr.tolist() == [0, 30, 60, 90, 120, 150]
    for number, (start, stop) in enumerate(zip(whole.offsets[:-1], whole.offsets[1:], strict=True)):
        rows = start + np.sort(np.argsort(-masses[start:stop])[:30])
        own = found[number]
        assert own.pos.tolist() == whole.items["positions"][rows].tolist()
        apart, distance = brute_force_pairs(own.pos.double().numpy(), np.full(3, SIDE))
        receiver, sender = np.nonzero(distance < 25)
        assert own.edge_index.tolist() == [sender.tolist(), receiver.tolist()]
        vectors = own.pos[sender] + own.edge_shift - own.pos[receiver]
        assert vectors.numpy() == pytest.approx(apart[receiver, sender], abs=1e-4)


@pytest.mark.parametrize("count", [40, 20])
def test_networks_see_the_heaviest_points_only(
    counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """In training, validation, test, symmetry errors and FLOPs; and their statistics are those of these points."""
    seen, forward = set(), Cloud.forward
    monkeypatch.setattr(
        Cloud, "forward", lambda self, batch: seen.update(batch.ptr.diff().tolist()) or forward(self, batch)
    )
    task = {"target": "parameters", "cutoff": 20.0, "heaviest": count}
    optimization = OptimizationSpec(steps=4, learning_rate=0.01)
    fit(counts, tmp_path, "parameters", "schnet", "3k", task=task, optimization=optimization)
    measured(str(tmp_path), str(counts), samples=4, elements=1)
    assert seen == {count}
    statistics = json.loads((tmp_path / "model.json").read_text())["statistics"]
    batch = heaviest(graph_batch(Store(counts).take(np.arange(60)), 20.0), count)
    assert statistics["average_neighbors"] == pytest.approx(batch.edge_index.shape[1] / (60 * count))


def test_more_than_the_smallest_cloud_has_is_refused(counts: Path, tmp_path: Path) -> None:
    for name in ("halo_count", "schnet"):
        with pytest.raises(UserError, match=r"heaviest is 100, but the training clouds have from 4\d to 1\d\d points"):
            size = {"halo_count": "4", "schnet": "3k"}[name]
            optimization = OptimizationSpec(steps=4, learning_rate=0.01)
            task = {"target": "parameters", "heaviest": 100}
            fit(counts, tmp_path, "parameters", name, size, task=task, optimization=optimization)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarse but real simulations: halos with positions, velocities and masses."""
    box = Box(side=128.0, particles=32, mesh=64, steps=4)
    jobs = iter([Job(om, s8, k, box, 12) for k, (om, s8) in enumerate(cosmologies(28, 1).tolist())])
    return store_of(tmp_path_factory.mktemp("simulated") / "halos.h5", lambda rng: next(jobs).run(), 14, 7)


@pytest.mark.parametrize(("target", "name"), OF_CLOUDS)
def test_every_baseline_gives_a_whole_result(simulated: Path, tmp_path: Path, target: str, name: str) -> None:
    size = next(iter(BASELINES["cloud"][target][name].SIZES))
    options = {"overrides": {"modes": 6}} if name == "linear_theory" else {}
    result = fit(simulated, tmp_path / "a", target, name, size, **options)
    assert result == RunResult.model_validate_json(result.model_dump_json())
    metrics = result.splits["test"].metrics
    quantities = CloudTask(target=target).targets
    for quantity in quantities:
        assert metrics[f"{quantity}_r2"].se > 0
        assert metrics[f"{quantity}_r2"].n == 7
        for group in CloudTask.groups:
            assert metrics[f"symmetry_{group}_{quantity}_float64"].value < 1e-10
            assert metrics[f"symmetry_{group}_{quantity}"].value < 1e-3
    assert (result.unique_samples, result.learning_rate) == (14, None)
    assert result.params == build(name, "cloud", {"target": target}, size).params
    assert (result.flops_per_sample > 0) == (result.params > 0)
    again = fit(simulated, tmp_path / "b", target, name, size, **options)
    assert again.splits == result.splits
    fewer = fit(simulated, tmp_path / "c", target, name, size, data=7, **options)
    assert fewer.flops_per_sample == result.flops_per_sample
    assert (fewer.splits == result.splits) == (result.params == 0)


def test_linear_theory_explains_simulated_velocities_and_rest_does_not(simulated: Path, tmp_path: Path) -> None:
    rest, theory, vectors = (
        fit(simulated, tmp_path / name, "velocities", name, size).splits["test"].metrics["velocities_r2"].value
        for name, size in (("constant", "0"), ("linear_theory", "2"), ("linear_vectors", "24"))
    )
    assert -0.1 < rest <= 0
    assert theory > 0.3
    assert vectors > 0.3
    assert 0 < choices(tmp_path / "linear_theory")["beta"] < 1


def test_seeds_tell_networks_apart(simulated: Path, tmp_path: Path) -> None:
    splits = [fit(simulated, tmp_path, "parameters", "two_point_mlp", "600", seed=k).splits for k in (0, 1)]
    assert splits[0] != splits[1]


def bootstrap(value: Callable[[np.ndarray], float], n: int) -> float:
    rng = np.random.default_rng(0)
    return float(np.std([value(rng.integers(n, size=n)) for _ in range(3000)]))


def test_standard_errors_are_those_of_a_bootstrap_over_clouds() -> None:
    """Clouds differ in their number of points and in how fast these are, as those of simulations do."""
    rng, n = np.random.default_rng(4), 150
    sizes = np.maximum(3, rng.lognormal(4, 0.5, n)).astype(int)
    batch = batch_of(sizes.tolist(), rng)
    speed = torch.from_numpy(rng.lognormal(0, 0.3, n))[batch.batch][:, None]
    batch.velocities = batch.velocities * speed
    predicted = batch.velocities + speed * torch.from_numpy(rng.normal(0, 1.5, batch.velocities.shape))
    accumulator = Accumulator(velocity_errors)
    accumulator.update({"velocities": predicted}, batch)
    found = accumulator.compute()
    of = [batch.batch.numpy() == k for k in range(n)]
    v, w = batch.velocities.double().numpy(), predicted.double().numpy()
    apart = np.array([[np.square(w[k] - v[k]).sum(), np.square(v[k] - v[k].mean(axis=0)).sum()] for k in of])
    definitions: dict[str, Callable[[np.ndarray], float]] = {
        "velocities_r2": lambda drawn: 1 - apart[drawn, 0].sum() / apart[drawn, 1].sum(),
        "velocities_r2_mean": lambda drawn: float(np.mean(1 - apart[drawn, 0] / apart[drawn, 1])),
        "velocities_mse": lambda drawn: apart[drawn, 0].sum() / (3 * sizes[drawn]).sum(),
    }
    for name, definition in definitions.items():
        assert found[name].value == pytest.approx(definition(np.arange(n))), name
        assert found[name].se == pytest.approx(bootstrap(definition, n), rel=0.15), name
    assert found["velocities_r2"].value != pytest.approx(found["velocities_r2_mean"].value, abs=0.01)
    true, guess = batch.omega_m.double(), batch.omega_m.double() + 0.2 * torch.randn(n, generator=torch.manual_seed(0))
    outputs = {"omega_m": guess, "sigma_8": guess}
    accumulator = Accumulator(parameter_errors)
    accumulator.update(outputs, batch)
    y, f = true.numpy(), guess.numpy()
    expected = bootstrap(lambda drawn: 1 - np.square(y[drawn] - f[drawn]).mean() / y[drawn].var(), n)
    assert accumulator.compute()["omega_m_r2"].se == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("domain", "target", "name", "size", "overrides", "sentence"),
    [
        (
            "cloud",
            "velocities",
            "linear_theorie",
            "1",
            {},
            "unknown baseline 'linear_theorie'; did you mean 'linear_theory'",
        ),
        ("atoms", "velocities", "linear_theory", "1", {}, "for samples of the domain 'cloud', not 'atoms'"),
        (
            "cloud",
            "parameters",
            "linear_theory",
            "1",
            {},
            "does not predict parameters; for these choose one of: constant",
        ),
        ("cloud", "velocity", "linear_theory", "1", {}, "unknown target 'velocity'; did you mean 'velocities'"),
        ("cloud", "velocities", "linear_theory", "7", {}, "unknown size of linear_theory '7'"),
        ("cloud", "velocities", "linear_theory", "1", {"mode": 3}, "unknown option of linear_theory 'mode'; did you"),
        ("cloud", "velocities", "linear_theory", "1", {"modes": 0}, "but must be a whole number from 1 up"),
        ("cloud", "parameters", "two_point", "16", {"count": -1}, "but must be a whole number from 0 up"),
    ],
)
def test_what_cannot_be_is_refused(
    domain: str, target: str, name: str, size: str, overrides: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        build(name, domain, {"target": target}, size, overrides)


def test_isolated_clouds_are_refused(tmp_path: Path) -> None:
    make = lambda rng: CloudSample(rng.uniform(0, 9, (5, 3)), None, rng.normal(size=(5, 3)))
    store = store_of(tmp_path / "clouds.h5", make)
    for name, size in (("linear_theory", "1"), ("linear_vectors", "4")):
        with pytest.raises(UserError, match="no periodic box"):
            fit(store, tmp_path / "run", "velocities", name, size)


def test_command_fits_lists_and_refuses(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cli.main(["list"])
    assert "two_point_mlp" in capsys.readouterr().out
    options = ["--data", str(simulated), "--runs", str(tmp_path), "--target", "parameters", "--train-samples", "10"]
    cli.main(["fit", "two_point", *options, "--set", "count", "0"])
    assert "omega_m R²" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    result = RunResult.model_validate_json((folder / "result.json").read_text())
    assert (result.params, result.unique_samples) == (12, 10)
    with pytest.raises(UserError, match="give a whole number"):
        cli.main(["fit", "two_point", *options, "--set", "count", "some"])
    fresh = [*options, "--runs", str(tmp_path / "none"), "--heaviest", "99999"]
    with pytest.raises(UserError, match="heaviest is 99999"):
        cli.main(["fit", "halo_count", *fresh])
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    with pytest.raises(UserError, match="linear_theory is a baseline; give it to 'scisci baseline fit'"):
        CloudTask(architecture="linear_theory")
