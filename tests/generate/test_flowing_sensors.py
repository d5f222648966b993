"""Travelling patterns on a ring of sensors: the law of their motion, their populations, and the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scisci.cli_data import main
from scisci.data.library import read_card
from scisci.data.series import steps
from scisci.data.splits import leaks
from scisci.data.store import Store
from scisci.generate import flowing_sensors as source
from scisci.generate.flowing_sensors import POPULATIONS, draw_patterns, draw_velocities, travel
from scisci.symmetry.series import Flow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("flowing") / "data.h5"
    main(["generate", "flowing-sensors", "--out", str(path)])
    return Store(path)


def series(store: Store, name: str, count: int | None = None) -> np.ndarray:
    """[n, N, steps] of a split."""
    ragged = store.take(store.split(name).indices(count))
    assert len({*steps(ragged)}) == 1
    return ragged.items["values"].reshape(len(ragged), source.SENSORS, -1)


def test_patterns_travel_by_their_velocity_each_step() -> None:
    rng = np.random.default_rng(0)
    patterns, velocities = draw_patterns(20, rng, 2), draw_velocities(20, (-3, 3), rng, 2)
    found = travel(patterns, velocities, 9)
    for k in range(20):
        for time in range(9):
            expected = sum(np.roll(p, v * time) for p, v in zip(patterns[k], velocities[k], strict=True))
            np.testing.assert_array_equal(found[k, :, time], expected)


def test_a_moving_frame_makes_faster_patterns_of_slow_ones() -> None:
    """The action by which models are measured, and the velocities drawn here, have one sign and one unit."""
    rng = np.random.default_rng(1)
    patterns, velocities = draw_patterns(8, rng, 2), draw_velocities(8, source.SLOW, rng, 2)
    flow = Flow(torch.full((8,), 2))
    flown = flow(torch.from_numpy(travel(patterns, velocities, 7)))
    np.testing.assert_array_equal(flown.numpy(), travel(patterns, velocities + 2, 7))


def test_patterns_are_smooth_and_know_no_place_on_the_ring() -> None:
    patterns = draw_patterns(4000, np.random.default_rng(2)).reshape(-1, source.SENSORS)
    np.testing.assert_allclose(patterns.mean(axis=0), 0, atol=0.04)
    spread = patterns.std(axis=0)
    np.testing.assert_allclose(spread, spread.mean(), rtol=0.06)
    # Waves shorter than four sensors carry little.
    power = np.square(np.abs(np.fft.rfft(patterns, axis=1))).mean(axis=0)
    assert power[source.SENSORS // 4 :].sum() < 0.01 * power.sum()


def test_velocities_are_uniform_and_fast_ones_go_the_same_way() -> None:
    rng = np.random.default_rng(3)
    slow, fast = (draw_velocities(6000, between, rng, 2) for between in (source.SLOW, source.FAST))
    for drawn, values in ((slow, [-1, 0, 1]), (fast, [-3, -2, 2, 3])):
        found, counts = np.unique(drawn, return_counts=True)
        assert found.tolist() == values
        np.testing.assert_allclose(counts / drawn.size, 1 / len(values), atol=0.015)
    assert (np.abs(fast.sum(axis=1)) == np.abs(fast).sum(axis=1)).all()
    # No two patterns are further apart in velocity than in training.
    assert np.ptp(fast, axis=1).max() <= np.ptp(slow, axis=1).max()


def velocities_seen(values: np.ndarray) -> set[int]:
    """Of series [n, N, T]: velocities that explain all of some series, found in its waves around the ring.

    A pattern with velocity v multiplies the amplitude of wave m by exp(-2 pi i m v / N) each step.
    """
    waves = np.fft.rfft(values.astype(np.float64), axis=1)[:, 1]
    waves = waves[np.abs(waves).min(axis=1) > 0.1]
    turns = -np.angle(waves[:, 1:] / waves[:, :-1]) * source.SENSORS / (2 * np.pi)
    np.testing.assert_allclose(turns, np.broadcast_to(turns[:, :1].round(), turns.shape), atol=1e-4)
    return set(turns[:, 0].round().astype(int).tolist())


@pytest.mark.parametrize("name", POPULATIONS)
def test_store_holds_the_velocities_of_each_split(store: Store, name: str) -> None:
    expected = {2, 3, -2, -3} if "velocity" in name else {-1, 0, 1}
    values = series(store, name, 200)
    assert values.shape[2] == (70 if "length" in name else 30)
    assert velocities_seen(values) == expected
    speed = store.metadata("speed")[store.split(name).indices()]
    assert set(speed) <= {abs(v) for v in expected}


def test_store_is_remade_bit_by_bit_and_has_no_leaks(store: Store, tmp_path: Path) -> None:
    assert leaks(store) == []
    assert set(store.metadata("freq")) == {"ms"}
    prints = []
    for name, seed in (("a", source.SEED), ("b", 1)):
        source.generate(tmp_path / f"{name}.h5", seed=seed)
        prints.append(Store(tmp_path / f"{name}.h5").fingerprint)
    assert prints[0] == store.fingerprint != prints[1]
    # Not even up to where on the ring it began, is a series twice there.
    first = np.concatenate([series(store, n, 500)[..., 0] for n in POPULATIONS])
    spectra = np.abs(np.fft.rfft(first, axis=1)).round(4)
    assert len(np.unique(spectra, axis=0)) == len(first)


def test_card_describes_the_store(store: Store) -> None:
    assert read_card("flowing-sensors").differences(store) == []
