"""Loading side by side with peers: collation, disk to batch with neighbour lists, loader workers, neighbour lists.

All on one thread, the same samples and batch size on every side, shuffled. Sides take turns in one process; figures are
medians over rounds, and a ratio is the median of the rounds' own ratios, of CPU time and of wall time.

    collation   our loader without edges against PyG's `InMemoryDataset` and `DataLoader`
    disk        open a store and load every sample once, with edges, against an ASE database read by PyG's loader
                with matscipy's or ASE's neighbour list; our samples are not held in memory
    workers     the same with 0, 1 and 2 loader processes, which live on between epochs
    neighbours  one crystal of more and more atoms against matscipy
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.neighborlist import neighbor_list
from matscipy.neighbours import neighbour_list
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from scisci.data import store
from scisci.data.library import open_dataset
from scisci.data.module import StoreDataModule
from scisci.data.neighbors import neighbors
from scisci.data.ragged import Ragged
from scisci.data.samples import AtomsSample
from scisci.data.writer import StoreWriter

CUTOFF, BATCH, ROUNDS, SEED = 5.0, 64, 7, 0
Seconds = tuple[float, float]


def seconds(work: Callable[[], Any]) -> Seconds:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of every side in every round; sides take turns, after one round that does not count.

    `RuntimeError` if the sides do not return the same.
    """
    if len({work() for work in sides.values()}) > 1:
        raise RuntimeError(f"{', '.join(sides)} do not find the same")
    found: dict[str, list[Seconds]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            found[name].append(seconds(work))
    return found


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def ratios(peer: list[Seconds], ours: list[Seconds]) -> str:
    """How many times faster ours is, by CPU and by wall time."""
    by_clock = [median(p[clock] / o[clock] for p, o in zip(peer, ours, strict=True)) for clock in (0, 1)]
    return " ".join(f"{ratio:8.1f}" for ratio in by_clock)


def rate(samples: int, runs: list[Seconds]) -> str:
    """Samples per CPU second."""
    return f"{samples / median(cpu for cpu, _ in runs):10,.0f}"


def epoch(loader: Iterable[Any]) -> int:
    """Load everything once; counts batches."""
    return sum(1 for _ in loader)


def ours(path: Path | str, cutoff: float, batch: int = BATCH, samples: int | None = None, workers: int = 0) -> Any:
    """The loader that training uses."""
    data = StoreDataModule(str(path), batch_size=batch, train_samples=samples, num_workers=workers)
    data.cutoff = cutoff
    return data.train_dataloader()


class InMemory(InMemoryDataset):
    """The samples as PyG holds them."""

    def __init__(self, objects: list[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(objects)


def pyg_data(ragged: Ragged) -> list[Data]:
    """A `Data` per sample, with the tensors of our batches."""
    items = {name: np.split(values, ragged.offsets[1:-1]) for name, values in ragged.items.items()}
    return [
        Data(
            numbers=torch.from_numpy(items["numbers"][k].astype(np.int64)),
            pos=torch.from_numpy(items["positions"][k]),
            forces=torch.from_numpy(items["forces"][k]),
            energy=torch.tensor([ragged.samples["energy"][k]]),
            group=torch.tensor([int(ragged.samples["group"][k])]),
        )
        for k in range(len(ragged))
    ]


def collation() -> None:
    """Ours without edges, and with them for comparison, against PyG without edges."""
    print("\ncollation of samples in memory; samples per CPU second; ratio to PyG by CPU and wall time")
    print(
        f"{'samples':>8} {'batch':>6} {'PyG':>10} {'no edges':>10} {'ratio':>8} {'wall':>8} {'edges':>10} {'ratio':>8}"
    )
    store = open_dataset("xtb-molecules")
    for samples, batch in ((1024, BATCH), (4096, BATCH), (16384, BATCH), (4096, 16), (4096, 256)):
        theirs = InMemory(pyg_data(store.take(store.split("train").indices(samples))))
        loaders = {
            "PyG": DataLoader(theirs, batch_size=batch, shuffle=True),
            "none": ours(store.path, 0.0, batch, samples),
            "edges": ours(store.path, CUTOFF, batch, samples),
        }
        runs = compare({name: lambda loader=loader: epoch(loader) for name, loader in loaders.items()}, ROUNDS)
        none, edges = ratios(runs["PyG"], runs["none"]), ratios(runs["PyG"], runs["edges"])
        peer, own, other = (rate(samples, runs[name]) for name in loaders)
        print(f"{samples:8d} {batch:6d} {peer} {own} {none} {other} {edges[:8]}", flush=True)


class AseDatabase(torch.utils.data.Dataset):
    """Rows of an ASE database as `Data` with the edges of a neighbour list."""

    def __init__(self, path: Path, search: Callable[..., Any]) -> None:
        self.rows, self.search = connect(path), search

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Data:
        atoms = self.rows.get(id=index + 1).toatoms()
        cell = np.array(atoms.cell)
        receiver, sender, images = self.search("ijS", atoms, CUTOFF)
        return Data(
            numbers=torch.from_numpy(atoms.numbers.astype(np.int64)),
            pos=torch.from_numpy(atoms.positions.astype(np.float32)),
            forces=torch.from_numpy(atoms.get_forces().astype(np.float32)),
            energy=torch.tensor([atoms.get_potential_energy()], dtype=torch.float64),
            edge_index=torch.from_numpy(np.stack([sender, receiver]).astype(np.int64)),
            edge_shift=torch.from_numpy((images @ cell).astype(np.float32)),
            cell=torch.from_numpy(cell.astype(np.float32))[None],
            pbc=torch.from_numpy(atoms.pbc)[None],
        )


def by_matscipy(quantities: str, atoms: Atoms, cutoff: float) -> Any:
    """matscipy's neighbour list, which needs a box around what has no cell."""
    if atoms.pbc.any():
        return neighbour_list(quantities, atoms, cutoff)
    low, box = atoms.positions.min(axis=0), np.diag(np.ptp(atoms.positions, axis=0) + 1.0)
    return neighbour_list(
        quantities, cutoff=cutoff, positions=atoms.positions, cell=box, cell_origin=low, pbc=atoms.pbc
    )


def molecules(count: int) -> Iterable[Atoms]:
    """Shipped molecules with their labels."""
    store = open_dataset("xtb-molecules")
    for data in pyg_data(store.take(store.split("train").indices(count))):
        atoms = Atoms(data.numbers.numpy(), data.pos.numpy())
        atoms.calc = SinglePointCalculator(atoms, energy=float(data.energy), forces=data.forces.numpy())
        yield atoms


def crystals(count: int) -> Iterable[Atoms]:
    """Silicon in its cubic cell of 8 atoms, strained and displaced at random, with labels made up."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(scale=0.03, size=(3, 3))), scale_atoms=True)
        atoms.positions = (atoms.positions + rng.normal(scale=0.1, size=(8, 3))).astype(np.float32)
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(8, 3)))
        yield atoms


def write(structures: list[Atoms], folder: Path) -> tuple[Path, Path]:
    """The structures as a store and as an ASE database."""
    store, database = folder / f"{len(structures)}.h5", folder / f"{len(structures)}.db"
    with StoreWriter(store, "atoms") as writer, connect(database) as rows:
        for atoms in structures:
            cell = {"cell": np.array(atoms.cell), "pbc": atoms.pbc} if atoms.pbc.any() else {}
            labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
            writer.append(AtomsSample(atoms.numbers, atoms.positions, **cell, **labels), "all")
            rows.write(atoms)
        writer.split("train", np.arange(len(structures)), "none")
    return store, database


SEARCHES: dict[str, Callable[..., Any]] = {"matscipy": by_matscipy, "ASE": neighbor_list}


def count_edges(loader: Iterable[Any]) -> int:
    """Load everything once; counts edges."""
    return sum(batch.edge_index.shape[1] for batch in loader)


def read(database: Path, search: Callable[..., Any]) -> int:
    """Load an ASE database once, over one connection; counts edges."""
    dataset = AseDatabase(database, search)
    with dataset.rows:
        return count_edges(DataLoader(dataset, batch_size=BATCH, shuffle=True))


def disk(name: str, source: Callable[[int], Iterable[Atoms]], sizes: tuple[int, ...]) -> None:
    """Opening what is on disk and loading all of it once, neighbour lists included."""
    print(f"\ndisk to batch with edges, {name}; samples per CPU second; ratio by CPU and wall time")
    print(f"{'samples':>8} {'ours':>10} {'matscipy':>10} {'ratio':>8} {'wall':>8} {'ASE':>10} {'ratio':>8} {'wall':>8}")
    for samples in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store, database = write(list(source(samples)), Path(folder))
            sides: dict[str, Callable[[], Any]] = {"ours": lambda store=store: count_edges(ours(store, CUTOFF))}
            for peer, search in SEARCHES.items():
                sides[peer] = lambda database=database, search=search: read(database, search)
            runs = compare(sides, max(3, ROUNDS * sizes[0] // samples))
        peers = " ".join(f"{rate(samples, runs[peer])} {ratios(runs[peer], runs['ours'])}" for peer in SEARCHES)
        print(f"{samples:8d} {rate(samples, runs['ours'])} {peers}", flush=True)


def workers(name: str, source: Callable[[int], Iterable[Atoms]], samples: int, batch: int) -> None:
    """Epochs from disk with 0, 1 and 2 loader processes that are there already; wall time only."""
    with tempfile.TemporaryDirectory() as folder:
        store, _ = write(list(source(samples)), Path(folder))
        loaders = {count: ours(store, CUTOFF, batch, workers=count) for count in (0, 1, 2)}
        runs = compare({str(c): lambda loader=loader: epoch(loader) for c, loader in loaders.items()}, 2 * ROUNDS)
    rates = "  ".join(f"{samples / median(wall for _, wall in runs[str(c)]):10,.0f}" for c in loaders)
    gain = median(one / two for (_, one), (_, two) in zip(runs["1"], runs["2"], strict=True))
    print(f"{name:>10} {samples:8d} {batch:6d} {rates} {gain:8.2f}", flush=True)


def growth() -> None:
    """CPU time of one neighbour list in the number of atoms."""
    print("\nneighbours of one copper crystal; CPU µs per atom, and the power of the number of atoms it grows with")
    print(f"{'atoms':>8} {'edges':>9} {'ours':>8} {'power':>6} {'matscipy':>9} {'ratio':>6}")
    before: tuple[int, float] | None = None
    for repeats in (4, 8, 16, 24):
        atoms = bulk("Cu", cubic=True) * ((repeats,) * 3)
        atoms.rattle(0.1, seed=SEED)
        count, cell = len(atoms), np.array(atoms.cell)[None]
        offsets, pbc = np.array([0, count]), np.ones((1, 3), dtype=bool)
        sides = {
            "ours": lambda: neighbors(atoms.positions, offsets, CUTOFF, cell, pbc)[0].shape[1],  # noqa: B023
            "matscipy": lambda: len(by_matscipy("ijS", atoms, CUTOFF)[0]),  # noqa: B023
        }
        runs = compare(sides, ROUNDS)
        own, peer = (median(cpu for cpu, _ in runs[name]) for name in runs)
        power = math.log(own / before[1]) / math.log(count / before[0]) if before else math.nan
        before = count, own
        print(
            f"{count:8d} {sides['ours']():9d} {1e6 * own / count:8.2f} {power:6.2f}"
            f" {1e6 * peer / count:9.2f} {peer / own:6.1f}",
            flush=True,
        )


def main() -> None:
    """Print all tables."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*InMemoryDataset.*")
    print(f"batch size {BATCH}, cutoff {CUTOFF} Å, {ROUNDS} rounds; load average {os.getloadavg()[0]:.1f}")
    collation()
    # Data sets of this size would otherwise be read once and held in memory.
    store.KEEP_IN_MEMORY_BYTES = 0
    disk("molecules", molecules, (512, 2048, 8192))
    disk("crystals", crystals, (128, 512, 2048))
    print("\nloader processes, disk to batch with edges; samples per wall second; two against one")
    print(f"{'':>10} {'samples':>8} {'batch':>6} {'0':>10}  {'1':>10}  {'2':>10} {'2 to 1':>8}")
    workers("molecules", molecules, 16384, BATCH)
    workers("molecules", molecules, 16384, 512)
    workers("crystals", crystals, 2048, BATCH)
    growth()
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
