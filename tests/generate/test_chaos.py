from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scisci.contracts.errors import UserError
from scisci.data.library import open_dataset
from scisci.data.splits import leaks
from scisci.data.store import Store
from scisci.generate import chaos
from scisci.generate.chaos import Flow

SPLITS = ("train", "val", "test", "ood_system")


@pytest.fixture(scope="module")
def store() -> Store:
    return open_dataset("chaos")


@pytest.fixture(scope="module")
def trajectories(store: Store) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Split → the name of the system and the trajectory [D, T] of each of its samples."""
    return {split: [one(store, k) for k in store.split(split).indices().tolist()] for split in SPLITS}


@pytest.fixture(scope="module")
def flows() -> dict[str, Flow]:
    pytest.importorskip("dysts")
    return chaos.flows()


def one(store: Store, index: int) -> tuple[str, np.ndarray]:
    ragged = store.take(np.array([index]))
    values = ragged.items["values"].reshape(int(ragged.samples["channels"][0]), -1)
    return store.groups[int(ragged.samples["group"][0])], values.astype(np.float64)


def largest_exponent(flow: Flow, time: float, interval: float) -> float:
    """The largest Lyapunov exponent: how a small separation grows, made small again after every interval.

    Benettin, Galgani, Giorgilli, Strelcyn, Meccanica 15, 9 (1980).
    """
    size = 1e-7
    state = flow.near
    apart = np.full(len(state), size / np.sqrt(len(state)))
    growth = []
    for _ in range(round(time / interval)):
        near = chaos.integrate(flow, state + apart, np.array([interval]))[:, -1]
        state = chaos.integrate(flow, state, np.array([interval]))[:, -1]
        distance = np.linalg.norm(near - state)
        growth.append(np.log(distance / size))
        apart = (near - state) * size / distance
    return float(np.mean(growth[len(growth) // 20 :]) / interval)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published", "time", "interval"),
    [
        ("Lorenz", 0.9056, 600.0, 2.0),  # Sprott, Chaos and Time-Series Analysis (2003)
        ("Rossler", 0.0714, 2500.0, 20.0),  # the same
        ("SprottB", 0.210, 1500.0, 10.0),  # Sprott, Phys. Rev. E 50, R647 (1994), table I
    ],
)
def test_largest_lyapunov_exponents_are_the_published_ones(
    flows: dict[str, Flow], name: str, published: float, time: float, interval: float
) -> None:
    assert largest_exponent(flows[name], time, interval) == pytest.approx(published, rel=0.08)


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("Lorenz", -(10 + 1 + 2.667)),  # -(sigma + 1 + beta)
        ("SprottB", -1.0),
        ("Halvorsen", -3 * 1.4),  # -3 a
        ("HenonHeiles", 0.0),  # Hamiltonian
        ("ArnoldBeltramiChildress", 0.0),  # incompressible
    ],
)
def test_volumes_shrink_as_the_equations_say(flows: dict[str, Flow], name: str, divergence: float) -> None:
    """The sum of the Lyapunov exponents, which is the same everywhere in these systems."""
    flow, step = flows[name], 1e-6
    for state in np.random.default_rng(0).normal(flow.near, flow.spread, (5, len(flow.near))):
        ahead = [flow.rhs(0.0, state + step * unit)[k] for k, unit in enumerate(np.eye(len(state)))]
        back = [flow.rhs(0.0, state - step * unit)[k] for k, unit in enumerate(np.eye(len(state)))]
        assert np.sum(np.subtract(ahead, back)) / (2 * step) == pytest.approx(divergence, abs=1e-6)


def test_energy_is_conserved_where_it_should_be(flows: dict[str, Flow]) -> None:
    x, y, px, py = chaos.integrate(flows["HenonHeiles"], flows["HenonHeiles"].near, np.linspace(0, 300, 50))
    energy = (px**2 + py**2 + x**2 + y**2) / 2 + x**2 * y - y**3 / 3
    np.testing.assert_allclose(energy, energy[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["Lorenz", "Rossler", "Thomas", "HindmarshRose", "NoseHoover"])
def test_trajectories_do_not_depend_on_the_tolerance_until_chaos_does(flows: dict[str, Flow], name: str) -> None:
    flow = flows[name]
    times = np.linspace(0, flow.period, 33)
    loose, tight = (chaos.integrate(flow, flow.near, times, tolerance) for tolerance in (chaos.TOLERANCE, 1e-12))
    assert (abs(loose - tight).max(axis=1) < 1e-5 * flow.spread).all()


def test_time_averages_of_the_lorenz_system_balance(
    trajectories: dict[str, list[tuple[str, np.ndarray]]],
) -> None:
    """d<x²>/dt = 0 gives <x²> = <xy>, and d<z>/dt = 0 gives <xy> = beta <z>."""
    x, y, z = next(values for name, values in trajectories["train"] if name == "Lorenz")
    assert np.mean(x * y) == pytest.approx(np.mean(x * x), rel=0.02)
    assert np.mean(x * y) == pytest.approx(2.667 * np.mean(z), rel=0.02)
    assert np.mean(z) == pytest.approx(23.55, rel=0.02)


def test_stored_trajectories_obey_their_equations(
    flows: dict[str, Flow], trajectories: dict[str, list[tuple[str, np.ndarray]]]
) -> None:
    """From a stored state, one sampling step on is the next one; where what is stored is the state."""
    followed = 0
    rng = np.random.default_rng(0)
    for name, values in (pair for split in SPLITS for pair in trajectories[split]):
        flow = flows[name]
        probe = np.arange(1.0, 1.0 + len(flow.near))[:, None]
        if flow.observe(probe) is not probe:
            continue
        at = int(rng.integers(0, values.shape[1] - 1))
        arrived = chaos.integrate(flow, values[:, at], np.array([flow.period / chaos.POINTS_PER_PERIOD]))[:, 0]
        assert (abs(arrived - values[:, at + 1]) < 2e-4 * values.std(axis=1)).all(), name
        followed += 1
    assert followed > 100


def test_nothing_leaks_between_splits(store: Store, trajectories: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    assert leaks(store) == []
    assert {name for name, split in store.splits.items() if split.disjoint} == {"ood_system"}
    names = {split: [name for name, _ in trajectories[split]] for split in SPLITS}
    assert all(len(set(found)) == len(found) for found in names.values())
    assert set(names["val"]) < set(names["train"])
    assert set(names["test"]) < set(names["train"])
    assert not set(names["ood_system"]) & set(names["train"])
    assert len({*names["train"], *names["ood_system"]}) == len(store.groups) >= 100
    for family in chaos.FAMILIES:
        assert not any(family in name for name in names["ood_system"])


def test_splits_are_of_the_systems_that_dysts_has(
    flows: dict[str, Flow], trajectories: dict[str, list[tuple[str, np.ndarray]]]
) -> None:
    """129 of dysts' 135 are ordinary differential equations."""
    assert len(flows) == 129
    assert set(flows) > chaos.LEFT_OUT
    found = {split: [name for name, _ in trajectories[split]] for split in SPLITS}
    assert found == chaos.divided(flows, chaos.SEED)


def test_trajectories_move_and_stay_on_their_attractors(
    trajectories: dict[str, list[tuple[str, np.ndarray]]],
) -> None:
    for name, values in (pair for split in SPLITS for pair in trajectories[split]):
        assert values.shape[1] == chaos.LENGTH
        halves = np.array([half.std(axis=1) for half in np.split(values, 2, axis=1)])
        assert (halves[0] > 0).all(), name
        assert ((halves[1] / halves[0] < 10) & (halves[1] / halves[0] > 0.1)).all(), name


def test_evaluation_is_not_a_copy_of_training(trajectories: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """No context of 512 steps of `val` or `test` is, at any lag, one of the same system in `train`."""
    trained = dict(trajectories["train"])
    closest = {}
    for name, values in trajectories["val"] + trajectories["test"]:
        scale = trained[name].std(axis=1, keepdims=True)
        windows = np.lib.stride_tricks.sliding_window_view(trained[name] / scale, 512, axis=1)
        gap = windows[:, ::4] - (values / scale)[:, None, :512]
        closest[name] = float(np.sqrt((gap**2).mean(axis=(0, 2))).min())
    assert min(closest.values()) > 0.02, closest
    assert np.median([*closest.values()]) > 0.3


def test_a_period_has_as_many_points_as_stated(trajectories: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """The spectrum of the Rössler system has one sharp peak."""
    x = next(values[0] for name, values in trajectories["train"] if name == "Rossler")
    power = np.abs(np.fft.rfft((x - x.mean()) * np.hanning(len(x)))) ** 2
    assert 1 / np.fft.rfftfreq(len(x))[power.argmax()] == pytest.approx(chaos.POINTS_PER_PERIOD, rel=0.05)


def short(names: list[str]) -> Callable[..., dict[str, list[str]]]:
    """Splits of a few systems only."""
    return lambda *_: {"train": names[:2], "val": names[:1], "test": names[1:2], "ood_system": names[2:]}


def test_more_trajectories_begin_with_the_same_ones(
    flows: dict[str, Flow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "divided", short(["Rossler", "Lorenz", "SprottB"]))
    made = []
    for count in (1, 2):
        chaos.generate(tmp_path / f"{count}.h5", seed=3, trajectories=count, length=64)
        made.append(Store(tmp_path / f"{count}.h5"))
    few, many = ([one(store, k) for k in store.split("train").indices().tolist()] for store in made)
    assert [name for name, _ in many] == ["Rossler", "Lorenz"] * 2
    for (name, values), (other, longer) in zip(few, many, strict=False):
        assert name == other
        np.testing.assert_array_equal(values, longer)
    assert abs(many[0][1] - many[2][1]).max() > 1
    assert set(made[1].metadata("freq").astype(str)) == {chaos.FREQ}


def plain(name: str, near: float, rhs: Callable[[float, np.ndarray], np.ndarray]) -> Flow:
    """A system of one variable, recorded as it is."""
    return Flow(name, rhs, lambda states: states, np.array([near]), np.ones(1), 1.0)


def test_trajectories_that_leave_their_attractor_are_not_kept() -> None:
    runaway = plain("Runaway", 1.0, lambda time, state: state**2)
    with pytest.raises(chaos.LeftAttractorError, match="Runaway left"):
        chaos.integrate(runaway, runaway.near, np.array([2.0]))
    for lost in (runaway, plain("Resting", 1.0, lambda time, state: -state)):
        with pytest.raises(chaos.LeftAttractorError, match="8 times"):
            chaos.trajectory(lost, np.random.default_rng(0), 64)
    # Half of the nudges go up without bound; the others go down in waves.
    half = plain("Half", 0.0, lambda time, state: np.where(state > 0, 40 * state**2 + 40 * state, np.cos(time) - 1.0))
    kept = [chaos.trajectory(half, np.random.default_rng(seed), 64) for seed in range(6)]
    assert all((values < 0).all() for values in kept)


def test_splits_of_systems_depend_on_the_seed_alone() -> None:
    names = [f"System{k}" for k in range(100)] + ["Lorenz", "HyperLu", "Torus"]
    found = chaos.divided(names, 1)
    assert found == chaos.divided(reversed(names), 1) != chaos.divided(names, 2)
    assert len(found["ood_system"]) == chaos.HELD_OUT
    assert {*found["train"], *found["ood_system"]} == set(names) - {"Torus"}
    assert found["val"] == found["train"][:12]


def test_without_dysts_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dysts.flows", None)
    chaos.flows.cache_clear()
    with pytest.raises(UserError, match=r"pip install scisci\[chaos\]"):
        chaos.generate(tmp_path / "data.h5")
    chaos.flows.cache_clear()
    with pytest.raises(UserError, match="give at least 1"):
        chaos.generate(tmp_path / "data.h5", trajectories=0)
    assert not list(tmp_path.iterdir())
