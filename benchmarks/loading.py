"""Batches per second from the packed store against PyG's in-memory dataset and loader, same samples and batch size.

Both sides are timed in turn in one process and on one thread; the ratio is the median over pairs. Ours finds the
neighbours within 5 Å as well; PyG only collates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.ragged import Ragged

BATCH, REPEATS, SIZES = 64, 7, (1024, 4096, 16384)


def seconds(work: Callable[[], None]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print one row per number of samples."""
    torch.set_num_threads(1)
    store = open_dataset("xtb-molecules")
    print("samples per second; ratio: PyG's collation without edges against ours with them")
    print(f"{'samples':>8} {'ours, with edges':>17} {'PyG, no edges':>14} {'ratio':>6}")
    for size in SIZES:
        ragged = store.take(store.split("train").indices(size))
        order = np.random.default_rng(0).permutation(size)
        batches = [order[k : k + BATCH] for k in range(0, size, BATCH)]
        objects = [
            Data(numbers=torch.from_numpy(n.astype(np.int64)), pos=torch.from_numpy(p), forces=torch.from_numpy(f))
            for n, p, f in zip(
                *(np.split(ragged.items[k], ragged.offsets[1:-1]) for k in ("numbers", "positions", "forces")),
                strict=True,
            )
        ]
        shuffled = [objects[k] for k in order]

        def ours(ragged: Ragged = ragged, batches: list[np.ndarray] = batches) -> None:
            for batch in batches:
                graph_batch(ragged.take(batch), 5.0)

        def theirs(shuffled: list[Data] = shuffled) -> None:
            for _ in DataLoader(shuffled, batch_size=BATCH):
                pass

        rows = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
        own, peer = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(b / a for a, b in rows)
        print(f"{size:8d} {size / own:17,.0f} {size / peer:14,.0f} {ratio:6.1f}")


if __name__ == "__main__":
    main()
