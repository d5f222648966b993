"""A flow-equivariant recurrent network and its plain twin on patterns that travel around a ring of sensors.

Both have the same parameters, initial weights and batches, and both are trained on patterns with velocities -1, 0 and
1, to forecast 20 steps after 10. Each has that of the same learning rates which left the lowest error on `val`, of the
training population, after a training of full length from another seed than those measured. They are tested on those
velocities, on 2 and 3 either way around, and on 60 steps. An error is the mean of (forecast - value)^2 over the
variance of all values of the split.

Run: OMP_NUM_THREADS=1 python -m benchmarks.flow [--steps 800] [--seeds 5] [--rates 0.003 0.01 0.03]
    [--patterns 1]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch.nn.functional import huber_loss

from scisci.data.series import series_batch, steps
from scisci.data.store import Store
from scisci.generate.flowing_sensors import CONTEXT, FREQ, HORIZON, SENSORS, generate
from scisci.models.fernn import FERNN
from scisci.symmetry.series import act_on_series
from scisci.tasks.base import relative_rate

SPLITS = ("test", "ood_velocity", "ood_length", "ood_velocity_length")
BATCH, MEASURED, SIZE, VELOCITIES = 16, 100, "3k", {"FERNN": 3, "twin": 0}
Errors = dict[str, float]


def windows(store: Store, split: str, count: int | None = MEASURED) -> Any:
    """One batch: of the first `count` series their context, and all that follows it."""
    ragged = store.take(store.split(split).indices(count))
    return series_batch(ragged, [FREQ] * len(ragged), CONTEXT, int(steps(ragged)[0]) - CONTEXT)


def train(velocities: int, store: Store, count: int, rate: float, seed: int) -> FERNN:
    """AdamW on Huber's loss of values in units of each ring's standard deviation, with warm-up and cosine decay."""
    torch.manual_seed(seed)
    model, rng = FERNN(CONTEXT, HORIZON, velocities=velocities, **FERNN.SIZES[SIZE]), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    everything = windows(store, "train", None)
    for step in range(count):
        chosen = torch.from_numpy(rng.choice(len(everything.past), BATCH, replace=False))
        past, future = everything.past[chosen], everything.future[chosen]
        unit = past.flatten(1).std(dim=1)[:, None, None]
        for group in optimizer.param_groups:
            group["lr"] = rate * relative_rate(step, count, 0.1, "cosine")
        found = model.forecast(past, torch.ones_like(past, dtype=torch.bool), everything.channels[chosen], HORIZON)
        optimizer.zero_grad()
        huber_loss(found / unit, future / unit, delta=2.0).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def error(model: FERNN, batch: Any) -> float:
    """Mean squared error over the variance."""
    found = model.forecast(batch.past, batch.past_observed, batch.channels, batch.future.shape[2])
    return float((found - batch.future).square().mean() / batch.future.var())


@torch.no_grad()
def flow_error(model: FERNN, store: Store) -> float:
    """f(g x) - g f(x) over f(x), root mean square, for random flows g by any velocity, on `test`."""
    batch = windows(store, "test")
    acted, seen, undo = act_on_series("flow", batch.past, np.random.default_rng(0), batch.past_observed)
    plain = model.forecast(batch.past, batch.past_observed, batch.channels, HORIZON)
    back = undo(model.forecast(acted, seen, batch.channels, HORIZON))
    return float((back - plain).norm() / plain.norm())


def every_velocity(model: FERNN) -> FERNN:
    """The same weights with a hidden state for every velocity of a ring."""
    wide = FERNN(model.context, model.horizon, velocities=SENSORS // 2, **FERNN.SIZES[SIZE])
    wide.load_state_dict(model.state_dict())
    return wide.eval()


def measured(model: FERNN, store: Store) -> Errors:
    """Errors on every split, and under flows."""
    return {name: error(model, windows(store, name)) for name in SPLITS} | {"flow": flow_error(model, store)}


def chosen_rate(velocities: int, store: Store, count: int, rates: list[float]) -> float:
    """The rate with the lowest error on `val` of seed 0; errors on all splits of every rate are printed."""
    found: dict[float, float] = {}
    for rate in rates:
        model = train(velocities, store, count, rate, 0)
        found[rate] = error(model, windows(store, "val"))
        others = {name: f"{value:.3g}" for name, value in measured(model, store).items()}
        print(f"velocities up to {velocities}, rate {rate}: val {found[rate]:.3g}", others, flush=True)
    return min(found, key=lambda rate: found[rate])


def ratio(twin: np.ndarray, model: np.ndarray) -> str:
    """Geometric mean over seeds of the twin's error over the model's, with its 95 % interval (Student's t)."""
    logs = np.log(twin / model)
    half = stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs) if len(logs) > 1 else np.nan
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def table(found: dict[str, list[Errors]]) -> None:
    """A row per split: means over seeds, and by how much the twin is worse."""
    print(f"\n| | {' | '.join(found)} | twin / FERNN |\n|--|{' --: |' * (len(found) + 1)}")
    for name in (*SPLITS, "flow"):
        columns = {which: np.array([errors[name] for errors in runs]) for which, runs in found.items()}
        means = " | ".join(f"{values.mean():.2g}" for values in columns.values())
        print(f"| {name} | {means} | {ratio(columns['twin'], columns['FERNN'])} |", flush=True)


def main() -> None:
    """Print errors of every seed, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03])
    parser.add_argument("--patterns", type=int, default=1, help="superposed in every series")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Errors]] = {name: [] for name in VELOCITIES}
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "data.h5", patterns=given.patterns)
        store = Store(Path(folder) / "data.h5")
        rates = {n: chosen_rate(v, store, given.steps, given.rates) for n, v in VELOCITIES.items()}
        for seed in range(1, given.seeds + 1):
            for name, velocities in VELOCITIES.items():
                model = train(velocities, store, given.steps, rates[name], seed)
                found[name].append(measured(model, store))
                print(name, seed, rates[name], {k: f"{v:.3g}" for k, v in found[name][-1].items()}, flush=True)
                if velocities and seed == 1:
                    print(f"flow error with every velocity: {flow_error(every_velocity(model), store):.1e}")
        table(found)


if __name__ == "__main__":
    main()
