"""Small systems in double precision that bring out what can be wrong with a model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged, offsets_of
from scisci.data.series import series_batch

ELEMENTS = (1, 6, 7, 8)
CUTOFF = 5.0
CONTEXT, HORIZON = 96, 24
System = tuple[Any, Any]  # atomic numbers and positions in Å


def batch_of(*systems: System, cell: Any = None, cutoff: float = CUTOFF) -> Any:
    """A graph batch in float64 of (numbers, positions) pairs; `cell` [3, 3] makes all of them periodic."""
    samples: dict[str, np.ndarray] = {"group": np.zeros(len(systems), int)}
    if cell is not None:
        samples |= {"cell": np.tile(cell, (len(systems), 1, 1)), "pbc": np.ones((len(systems), 3), bool)}
    ragged = Ragged(
        np.concatenate([[0], np.cumsum([len(numbers) for numbers, _ in systems])]),
        {
            "numbers": np.concatenate([numbers for numbers, _ in systems]).astype("u1"),
            "positions": np.concatenate([np.asarray(positions, float) for _, positions in systems]),
        },
        samples,
    )
    batch = graph_batch(ragged, cutoff)
    # The loader stores float32; here all digits count.
    batch.pos = torch.from_numpy(ragged.items["positions"])
    batch.edge_shift = batch.edge_shift.double()
    if cell is not None:
        batch.cell = torch.from_numpy(samples["cell"])
        of_edge = batch.cell[batch.batch[batch.edge_index[1]]]
        images = torch.linalg.solve(of_edge.transpose(1, 2), batch.edge_shift[:, :, None]).round()
        batch.edge_shift = (of_edge.transpose(1, 2) @ images)[:, :, 0]
    return batch


def boxes(rng: np.random.Generator) -> Any:
    """A batch of three clouds of 1 to 30 points in periodic cubes of side 12."""
    systems = [(np.ones(n), rng.uniform(0, 12, (n, 3))) for n in (1, 12, 30)]
    return batch_of(*systems, cell=12 * np.eye(3))


def merger_trees(rng: np.random.Generator) -> Any:
    """A batch of a halo alone, a chain, and two trees of 12 and 30 halos."""
    parents = [np.arange(n) - 1 if n < 10 else np.append(-1, rng.integers(0, np.arange(1, n))) for n in (1, 5, 12, 30)]
    return tree_batch(rng, *parents)


def tree_batch(rng: np.random.Generator, *parents: np.ndarray) -> Any:
    """A graph batch in float64 of trees, given by the parent of each node; features are random."""
    sizes = [len(parent) for parent in parents]
    features = np.array([12.0, 1.0, 2.0, 0.5]) + 0.2 * rng.normal(size=(sum(sizes), 4))
    items = {"node_features": features, "parent": np.concatenate(parents).astype("i4")}
    return graph_batch(
        Ragged(offsets_of(np.array(sizes)), items, {"group": np.arange(len(sizes))}), cutoff=0, dtype=np.float64
    )


def time_series(rng: np.random.Generator) -> Any:
    """A batch in float64 of four windows of one to three channels, one shorter than the context, with gaps."""
    channels, times = np.array([1, 3, 2, 3]), np.array([200, 150, 70, 120])
    values = [
        rng.normal(size=(c, 1)) + np.sin(np.arange(t) / rng.uniform(1, 9, (c, 1))) + 0.1 * rng.normal(size=(c, t))
        for c, t in zip(channels, times, strict=True)
    ]
    flat = np.concatenate([value.ravel() for value in values])
    flat[rng.random(len(flat)) < 0.05] = np.nan
    samples = {"channels": channels, "known": 0 * channels, "group": np.arange(4)}
    ragged = Ragged(offsets_of(channels * times), {"values": flat}, samples)
    return series_batch(ragged, ["h"] * 4, CONTEXT, HORIZON, dtype=np.float64)


def molecules(rng: np.random.Generator) -> Any:
    """A batch of rattled organic molecules of 5 to 15 atoms."""
    from ase.build import molecule

    found = [molecule(name) for name in ("CH4", "H2CO", "CH3CH2OH", "C6H6", "CH3CONH2", "isobutane")]
    return batch_of(*((m.numbers, m.positions + rng.normal(scale=0.05, size=(len(m), 3))) for m in found))


def crystal(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers [3], positions [3, 3] and a skewed cell [3, 3] smaller than the cutoff, so atoms see their own images."""
    cell = np.diag([4.0, 4.5, 5.0]) + rng.normal(scale=0.3, size=(3, 3))
    return np.array([6, 8, 1]), rng.uniform(0.0, 1.0, (3, 3)) @ cell, cell


def moved(batch: Any, pos: torch.Tensor, edge_shift: torch.Tensor | None = None) -> Any:
    """The same batch with other positions, and the same edges."""
    batch = copy.copy(batch)
    batch.pos = pos
    if edge_shift is not None:
        batch.edge_shift = edge_shift
    return batch
