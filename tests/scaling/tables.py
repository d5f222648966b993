"""Synthetic tables with known truth."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZES = {"alpha_net": (4_000, 12_000, 40_000, 120_000), "beta_net": (6_000, 47_000, 320_000)}


def power_table(
    alpha: float = 0.3,
    offset: float = 0.0,
    noise: float = 0.02,
    sizes: int = 8,
    seeds: int = 2,
    decades: float = 2.5,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Columns `params`, `loss`, `run`: L = offset + 30 N^-alpha with log-normal noise."""
    rng = np.random.default_rng(seed)
    n = np.repeat(np.geomspace(3e3, 3e3 * 10**decades, sizes), seeds)
    loss = (offset + 30 * n**-alpha) * np.exp(noise * rng.normal(size=n.size))
    return {"params": n, "loss": loss, "run": np.array([f"r{i}" for i in range(n.size)])}


def results_table(path: Path, shift: float = 0.1, noise: float = 0.01) -> Path:
    """A results table of two architectures whose OOD exponent is smaller by `shift`; one run diverged."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, object]] = []
    for architecture, sizes in SIZES.items():
        for (i, params), data, seed in product(enumerate(sizes), (64, 256, 1024), (0, 1)):
            base = {
                "run": f"{architecture}-{i}-{data}-{seed}",
                "study": "demo",
                "domain": "atomistic",
                "dataset": "molecules",
                "architecture": architecture,
                "treatment": "none",
                "size": f"s{i}",
                "params": params,
                "params_body": params,
                "data": data,
                "samples_seen": 10_000,
                "flops": 6.0 * params * 10_000 * data**0.5,
                "seed": seed,
                "lr": 1e-3,
                "seconds": 1.0,
                "peak_memory": 1.0,
                "device": "cpu",
                "reason": None,
                "severity": None,
            }
            empty = {"split": None, "metric": None, "value": None, "se": None, "n": None}
            if (architecture, params, data, seed) == ("beta_net", 6_000, 64, 0):
                rows.append(base | empty | {"status": "diverged", "reason": "the loss is NaN"})
                continue
            common = noise * rng.normal()
            for split, steeper in (("val", 0.0), ("test", 0.0), ("ood_hot", -shift), ("ood_large", -shift)):
                value = 900 * params ** -(0.3 + steeper) * data**-0.15 * np.exp(common + noise * rng.normal())
                for metric, factor in (("force_mae", 1.0), ("energy_mae", 0.1)):
                    rows.append(
                        base
                        | {
                            "split": split,
                            "metric": metric,
                            "value": value * factor,
                            "se": value * 0.01,
                            "n": 99,
                        }
                        | {"status": "ok"}
                    )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
