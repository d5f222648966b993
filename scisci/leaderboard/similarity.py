"""Whether two models are one: the same errors, sample by sample, to within a little noise or a change of scale."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.leaderboard.contents import labelled, lengths_of, scoring_of
from scisci.leaderboard.findings import Finding
from scisci.leaderboard.hdf5_faults import PER_SAMPLE
from scisci.leaderboard.reading import load, open_listed
from scisci.leaderboard.safe_hdf5 import open_untrusted
from scisci.leaderboard.submission import Run
from scisci.tasks.scoring import View

SAMPLES = 64
ALIKE = 0.999
# Fewer values than that correlate by chance.
FEWEST = 30
Place = tuple[str, str]


@dataclass(frozen=True)
class Sketch:
    """What is a model's own in its predictions for the first samples of a split: a unit vector, by quantity."""

    run: str
    residuals: dict[str, np.ndarray]

    def alike(self, other: Sketch) -> float:
        """The smallest correlation over the quantities that both predict; 0 where there is none to tell by."""
        shared = [
            float(values @ other.residuals[name])
            for name, values in self.residuals.items()
            if name in other.residuals and len(values) == len(other.residuals[name])
        ]
        return min(shared, default=0.0)


def similar(
    folder: Path, others: Iterable[Path], store_of: Callable[[str], Store] = open_listed
) -> tuple[Finding, ...]:
    """Runs of a submission whose predictions are nearly those of another one, or of another of its own runs.

    Predictions are alike where what they add to a constant and a multiple of the labels correlates at more than 0.999:
    rescaling leaves that as it is, and so does little noise, while models that merely know little do not share it. Time
    is linear in the others' runs, of each of which one file is read. An unreadable file is left to `check`. Runs of a
    baseline are not held against each other: with few weights or none they soon agree, whatever the training samples.
    """
    stores, folder = cache(store_of), Path(os.path.abspath(folder))
    mine = _sketches(folder, stores)
    described = load(folder).submission
    baseline = described is not None and described.family == "baseline"
    found = []
    for (_, split), sketches in sorted(mine.items()):
        for k, one in enumerate(sketches):
            for other in sketches[:k] if not baseline else ():
                if (correlation := one.alike(other)) > ALIKE:
                    found.append(_finding(one.run, split, other.run, correlation))
    for path in others:
        theirs = _sketches(Path(os.path.abspath(path)), stores, wanted=set(mine))
        pairs = [
            (one.alike(other), one.run, place[1], f"{path.name}/{other.run}")
            for place, sketches in sorted(theirs.items())
            for one in mine[place]
            for other in sketches
        ]
        if alike := sorted((pair for pair in pairs if pair[0] > ALIKE), reverse=True):
            correlation, run, split, other_run = alike[0]
            more = f" ({len(alike) - 1} more pairs of runs of {path.name})" if len(alike) > 1 else ""
            found.append(_finding(run, split, other_run + more, correlation))
    return tuple(found)


def _finding(run: str, split: str, other: str, correlation: float) -> Finding:
    return Finding(f"{run}/{split}", f"errors correlate at {correlation:.5f} with those of {other}; is it one model?")


def _sketches(
    folder: Path, stores: Callable[[str], Store], wanted: set[Place] | None = None
) -> dict[Place, list[Sketch]]:
    """Sketches by data set's fingerprint and split: of every split, or of each run's first one that is `wanted`."""
    found = defaultdict(list)
    for run in load(folder).runs:
        places = [(run.fingerprint, split) for split in sorted(run.splits, key=lambda name: (name != "test", name))]
        if wanted is not None:
            places = [place for place in places if place in wanted][:1]
        for place in places:
            try:
                found[place].append(_sketch(folder, run, place[1], stores(run.dataset)))
            except UserError:
                continue
    return found


def _sketch(folder: Path, run: Run, split: str, store: Store) -> Sketch:
    path = folder / "predictions" / run.run / f"{split}.h5"
    with open_untrusted(path, folder) as file:
        indices = store.split(split).indices(min(SAMPLES, run.splits[split]))
        rows, batch = next(View.of(file, path).batches(store, indices))
        points = int(lengths_of(batch).sum())
        residuals = {}
        for name, labels, counts, _ in labelled(scoring_of(store, set(file)), batch):
            if name in file and len(values := file[name][: len(rows) if name in PER_SAMPLE else points]) == len(counts):
                own = _own(values[counts].astype(np.float64), labels[counts])
                if own is not None:
                    residuals[name] = own
    return Sketch(run.run, residuals)


def _own(values: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """The part of values that is orthogonal to a constant and to the labels, of unit length; None if none is left."""
    values, labels = values.ravel(), labels.ravel()
    if len(values) < FEWEST or not np.isfinite(values).all():
        return None
    known = np.stack([np.ones_like(labels), labels], axis=1)
    own = values - known @ np.linalg.lstsq(known, values, rcond=None)[0]
    length = float(np.linalg.norm(own))
    return own / length if length > 1e-6 * float(np.linalg.norm(values)) else None
