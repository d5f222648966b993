from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.library import read_card
from scisci.data.module import StoreDataModule
from scisci.data.splits import leaks
from scisci.data.store import Store
from scisci.generate import charged_nbody as source
from scisci.generate.charged_nbody import POPULATIONS, Clip, Population, States, initial_states, simulate

DT = source.TIMESTEP
PUBLISHED_LINEAR_MSE = 0.0819


def population(systems: int, bodies: int = 5, seed: int = 3) -> States:
    return initial_states(Population(systems, "", bodies=bodies), [seed])


def two_bodies(apart: np.ndarray, velocity: np.ndarray, charges: tuple[float, float]) -> States:
    """Two bodies placed and moving oppositely about the origin."""
    halves = np.array([0.5, -0.5])[:, None]
    return States((halves * apart)[None], (halves * velocity)[None], np.array([charges]), np.zeros(1, dtype=int))


def only(states: States, chosen: np.ndarray | slice) -> States:
    return States(states.positions[chosen], states.velocities[chosen], states.charges[chosen], states.clipped[chosen])


def slow_twin(states: States, system: int, steps: int, clip: Clip) -> tuple[list[list[float]], int]:
    """The equations, one number at a time: final positions, and the steps at which a force was clipped."""
    x, v = states.positions[system].tolist(), states.velocities[system].tolist()
    q, clipped = states.charges[system].tolist(), 0
    for _ in range(steps):
        forces = []
        for i, here in enumerate(x):
            force = [0.0, 0.0, 0.0]
            for j, there in enumerate(x):
                if i != j:
                    distance = math.dist(here, there)
                    for axis in range(3):
                        force[axis] += q[i] * q[j] * (here[axis] - there[axis]) / distance**3
            forces.append(force)
        too_large = False
        for i, force in enumerate(forces):
            size = math.hypot(*force) if clip == "norm" else max(map(abs, force))
            too_large |= size > 100
            for axis in range(3):
                kick = min(max(force[axis], -100), 100) if clip == "component" else force[axis] * min(1, 100 / size)
                v[i][axis] += DT * kick
                x[i][axis] += DT * v[i][axis]
        clipped += too_large
    return x, clipped


@pytest.mark.parametrize("clip", ["component", "norm"])
def test_states_are_those_of_the_equations_one_number_at_a_time(clip: Clip) -> None:
    start = population(40)
    (end,) = simulate(start, [500], clip)
    chosen = [*np.flatnonzero(end.clipped)[:3], *np.flatnonzero(end.clipped == 0)[:2]]
    assert len(chosen) == 5
    for system in chosen:
        positions, clipped = slow_twin(start, system, 500, clip)
        assert end.clipped[system] == clipped
        # A close encounter amplifies the rounding of the two ways.
        np.testing.assert_allclose(end.positions[system], positions, rtol=0, atol=1e-6 if clipped else 1e-11)


def published_states(systems: int, rng: np.random.RandomState) -> States:
    """Initial states in the order in which the authors' generator draws them from numpy's legacy stream."""
    drawn = []
    for _ in range(systems):
        charges = rng.choice([-1.0, 0.0, 1.0], size=(5, 1), p=[0.5, 0, 0.5])[:, 0]
        positions, directions = rng.randn(3, 5), rng.randn(3, 5)
        rng.randn(2 * 49 * 15)  # the noise they multiply by zero
        velocities = 0.5 * directions / np.sqrt(np.square(directions).sum(axis=0))
        drawn.append((positions.T, velocities.T, charges))
    return States(*(np.stack(column) for column in zip(*drawn, strict=True)), np.zeros(systems, dtype=int))


def test_trajectory_is_that_of_the_authors_code() -> None:
    start = only(published_states(2, np.random.RandomState(43)), slice(1, 2))
    before, after = simulate(start, [3100, 4100])
    # Printed by their generator, seed 43, second system: velocities in frame 30 and positions in frame 40.
    velocities = [
        [-0.02414793821, -0.713681228716, -0.086409141583],
        [-0.369754121421, -0.441159380928, -0.036133478674],
        [1.401708092229, -0.05267036311, -0.004047905903],
        [-1.427502441822, 0.989776216589, 0.487183700981],
        [0.258010268201, 0.365738277818, 0.39320059314],
    ]
    positions = [
        [-2.275226311315, -2.710295240712, -1.262262958927],
        [-0.560978634762, 0.406235002145, 0.561801186773],
        [5.735381340307, 1.00558020917, 0.977183454928],
        [-6.197271213399, 4.775453635734, 1.763182094877],
        [1.720331800081, 1.214180939393, 1.009667196113],
    ]
    np.testing.assert_allclose(before.velocities[0], velocities, atol=1e-11)
    np.testing.assert_allclose(after.positions[0], positions, atol=1e-11)


def test_linear_motion_errs_on_the_authors_test_systems_as_published() -> None:
    rng = np.random.RandomState(43)
    published_states(10_000 + 2_000, rng)
    before, after = simulate(published_states(2_000, rng), [3100, 4100])
    moved, v = after.positions - before.positions, before.velocities
    errors = np.square(moved - v * (v * moved).sum() / np.square(v).sum()).mean(axis=(1, 2))
    standard_error = errors.std() / np.sqrt(len(errors))
    assert standard_error < 0.003
    assert errors.mean() == pytest.approx(PUBLISHED_LINEAR_MSE, abs=standard_error)


def test_momentum_is_conserved_until_a_force_is_clipped() -> None:
    start = population(200)
    (end,) = simulate(start, [2000])
    change = np.abs((end.velocities - start.velocities).sum(axis=1)).max(axis=1)
    assert 20 < (end.clipped > 0).sum() < 180
    assert change[end.clipped == 0].max() < 1e-12
    assert np.median(change[end.clipped > 0]) > 1e-6


def test_energy_is_conserved_where_bodies_keep_apart() -> None:
    start = population(100)
    states = simulate(start, range(1, 1001))
    i, j = np.triu_indices(5, 1)
    couplings = start.charges[:, i] * start.charges[:, j]
    energies, closest = [], np.full(100, np.inf)
    for state in states:
        apart = state.positions[:, i] - state.positions[:, j]
        distance = np.sqrt(np.square(apart).sum(axis=2))
        pull = (couplings / distance**3)[..., None] * apart
        force = np.zeros_like(state.positions)
        for pair, (a, b) in enumerate(zip(i, j, strict=True)):
            force[:, a] += pull[:, pair]
            force[:, b] -= pull[:, pair]
        # Velocities belong to half a step earlier; brought to the time of the positions, the error is dt².
        centred = state.velocities + DT / 2 * force
        energies.append(np.square(centred).sum(axis=(1, 2)) / 2 + (couplings / distance).sum(axis=1))
        closest = np.minimum(closest, distance.min(axis=1))
    drift = np.ptp(np.array(energies), axis=0)
    assert (closest > 0.5).sum() > 20
    assert drift[closest > 0.5].max() < 1e-5
    assert drift[closest < 0.1].max() > 1e-2


def test_opposite_charges_circle_each_other_as_in_closed_form() -> None:
    radius, turn = 1.3, Rotation.from_euler("xyz", [0.3, -1.1, 2.0])
    speed = math.sqrt(2 / radius)
    # Velocities half a step earlier than the positions, as the integrator takes them.
    early = speed / radius * DT / 2
    velocity = turn.apply(speed * np.array([math.sin(early), math.cos(early), 0.0]))
    start = two_bodies(turn.apply([radius, 0, 0]), velocity, (1.0, -1.0))
    for steps, state in zip((700, 5000), simulate(start, [700, 5000]), strict=True):
        angle = speed / radius * steps * DT
        expected = turn.apply(radius * np.array([math.cos(angle), math.sin(angle), 0.0]))
        np.testing.assert_allclose(state.positions[0, 0] - state.positions[0, 1], expected, atol=3e-6)
        np.testing.assert_allclose(state.positions[0].sum(axis=0), 0, atol=1e-12)


def test_like_charges_fly_apart_from_rest_as_in_closed_form() -> None:
    start_radius = 0.8
    start = two_bodies(np.array([0.0, start_radius, 0.0]), np.zeros(3), (-1.0, -1.0))
    push = 1 / start_radius**2 * DT / 2
    start.velocities[0, :, 1] = [-push, push]
    (end,) = simulate(start, [3000])
    u = np.linalg.norm(end.positions[0, 0] - end.positions[0, 1]) / start_radius
    # r'' = 2 / r² from rest at r0: t = r0^(3/2) / 2 (sqrt(u (u - 1)) + arcosh(sqrt(u))), u = r / r0
    time = start_radius**1.5 / 2 * (math.sqrt(u * (u - 1)) + math.acosh(math.sqrt(u)))
    assert time == pytest.approx(3000 * DT, abs=1e-6)


@pytest.mark.parametrize(("clip", "kick"), [("component", (100.0, 100.0, 57.6)), ("norm", (80.0, 48.0, 36.0))])
def test_force_that_is_too_large_is_clipped(clip: Clip, kick: tuple[float, ...]) -> None:
    # |r| = 1 / 16, so |F| = 256 along r; by components it is (204.8, 122.88, 92.16).
    direction = np.array([0.8, 0.48, 0.36])
    start = two_bodies(direction / 16, np.zeros(3), (1.0, 1.0))
    (end,) = simulate(start, [1], clip)
    expected = (100.0, 100.0, 92.16) if clip == "component" else kick
    np.testing.assert_allclose(end.velocities[0, 0] / DT, expected, rtol=1e-9)
    np.testing.assert_allclose(end.velocities[0, 1], -end.velocities[0, 0])
    assert end.clipped.tolist() == [1]


def test_dynamics_commutes_with_rotations_but_for_clipping_by_component() -> None:
    start = population(300)
    turn = Rotation.from_euler("xyz", [0.4, 1.0, -0.7])
    turned = replace(
        start, positions=start.positions @ turn.as_matrix().T, velocities=start.velocities @ turn.as_matrix().T
    )
    gaps, clipped = {}, np.zeros(300, dtype=bool)
    for clip in ("component", "norm"):
        (plain,), (other,) = simulate(start, [300], clip), simulate(turned, [300], clip)
        gaps[clip] = np.abs(other.positions @ turn.as_matrix() - plain.positions).max(axis=(1, 2))
        clipped |= (plain.clipped > 0) | (other.clipped > 0)
    assert clipped.sum() > 10
    assert gaps["norm"].max() < 1e-6
    assert gaps["component"][~clipped].max() < 1e-9
    assert np.median(gaps["component"][clipped]) > 1e-3


@pytest.mark.parametrize("bodies", [5, 10])
def test_initial_states_have_the_published_distribution(bodies: int) -> None:
    states = initial_states(Population(4000, "", bodies=bodies), [11])
    assert states.positions.std() == pytest.approx((bodies / 5) ** (1 / 3), rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(states.velocities, axis=2), 0.5, rtol=1e-12)
    np.testing.assert_allclose(states.velocities.mean(axis=(0, 1)), 0, atol=0.01)
    second = np.einsum("bni,bnj->ij", states.velocities, states.velocities) / states.charges.size
    np.testing.assert_allclose(second, np.eye(3) / 12, atol=0.003)
    assert set(states.charges.ravel()) == {-1.0, 1.0}
    assert states.charges.mean() == pytest.approx(0, abs=0.03)
    likes = initial_states(Population(400, "", like_charges=True), [11]).charges
    assert (likes == likes[:, :1]).all()
    assert 150 < (likes[:, 0] > 0).sum() < 250


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same populations with 24 systems each."""
    monkeypatch.setattr(source, "POPULATIONS", {n: replace(p, systems=24) for n, p in POPULATIONS.items()})


BRIEF = ("--frames", "2", "5", "--every", "50")


def made(path: Path, *options: str) -> Store:
    main(["generate", "charged-nbody", "--out", str(path), *options])
    return Store(path)


@pytest.mark.usefixtures("small")
def test_store_is_remade_bit_by_bit_from_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(tmp_path / "a.h5", *BRIEF, "--train", "40")
    monkeypatch.setattr(source, "SYSTEMS_AT_ONCE", 7)
    assert made(tmp_path / "b.h5", *BRIEF, "--train", "40").fingerprint == first.fingerprint
    assert made(tmp_path / "c.h5", *BRIEF, "--train", "40", "--seed", "1").fingerprint != first.fingerprint


@pytest.mark.usefixtures("small")
def test_larger_training_set_begins_with_the_smaller_and_leaves_the_rest(tmp_path: Path) -> None:
    few, many = made(tmp_path / "a.h5", *BRIEF, "--train", "10"), made(tmp_path / "b.h5", *BRIEF, "--train", "30")
    for name in POPULATIONS:
        samples = [s.take(s.split(name).indices(10 if name == "train" else None)) for s in (few, many)]
        for field in few.fields:
            np.testing.assert_array_equal(*(s.items[field] for s in samples))
    assert (len(few.split("train")), len(many.split("train")), len(few.split("val"))) == (10, 30, 24)


@pytest.mark.usefixtures("small")
def test_store_holds_the_simulated_frames_without_leaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path / "a.h5", "--train", "24", *BRIEF)
    assert leaks(store) == []
    assert set(store.metadata("input_time")) == {150 * DT}
    assert set(store.metadata("target_time")) == {300 * DT}
    ids = store.split("ood_bodies10").indices()
    ragged = store.take(ids)
    x, v, q, later = (
        ragged.items[f].reshape(24, 10, -1) for f in ("positions", "velocities", "charges", "target_positions")
    )
    start = States(x.astype(float), v.astype(float), q[..., 0].astype(float), np.zeros(24, dtype=int))
    (end,) = simulate(start, [150])
    apart = store.metadata("clipped_steps")[ids] == 0
    assert apart.sum() > 10
    # Stored in float32, whose rounding an encounter amplifies.
    np.testing.assert_allclose(end.positions[apart], later[apart], atol=2e-3)
    assert np.median(np.abs(end.positions - later)) < 1e-6
    main(["verify", str(tmp_path / "a.h5")])
    monkeypatch.setenv("COLUMNS", "200")
    main(["info", str(tmp_path / "a.h5")])
    shown = capsys.readouterr().out
    assert "domain 'particles'" in shown
    assert store.fingerprint in shown


@pytest.mark.parametrize(
    "options",
    [["--frames", "40", "30"], ["--frames", "-1", "3"], ["--frames", "3", "3"], ["--every", "0"], ["--train", "0"]],
)
def test_impossible_options_are_refused_before_anything_is_written(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(UserError, match="not possible"):
        made(tmp_path / "a.h5", *options)
    assert list(tmp_path.iterdir()) == []


def test_option_of_another_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="xtb-molecules has no option --train"):
        main(["generate", "xtb-molecules", "--out", str(tmp_path / "a.h5"), "--train", "5"])


class LinearMotion(L.LightningModule):
    """target = position + time x velocity, with one learned time."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(()))])
        self.model.cutoff = math.inf

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        # Every body sees every other one of its system.
        assert batch.edge_index.shape[1] == (batch.ptr.diff() * (batch.ptr.diff() - 1)).sum()
        return self.error(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert torch.isfinite(self.error(batch))

    def error(self, batch: Any) -> torch.Tensor:
        return (batch.pos + self.model[0] * batch.velocities - batch.target_positions).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.usefixtures("small")
def test_data_module_feeds_a_task_with_particles(tmp_path: Path) -> None:
    store = made(tmp_path / "a.h5", "--train", "24", *BRIEF)
    data = StoreDataModule(str(tmp_path / "a.h5"), batch_size=24)
    with pytest.raises(UserError, match="domain 'particles', this task needs 'atoms'"):
        data.check()
    data.check("particles")
    task = LinearMotion()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(max_epochs=60, **options).fit(task, data)
    items = store.take(store.split("train").indices()).items
    v, moved = items["velocities"], items["target_positions"] - items["positions"]
    assert task.model[0].item() == pytest.approx((v * moved).sum() / np.square(v).sum(), rel=1e-4)
    assert len(data.test_dataloader()) == 6


@pytest.mark.slow
def test_whole_data_set_is_the_one_of_its_card(tmp_path: Path) -> None:
    store = made(tmp_path / "a.h5")
    assert read_card("charged-nbody").differences(store) == []
