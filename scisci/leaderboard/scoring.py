"""Every number of a submission, recomputed from its predictions and the labels: the same files give the same digits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from scisci.contracts.errors import UserError
from scisci.contracts.results import RESULTS_SCHEMA
from scisci.contracts.run import MetricValue
from scisci.data.store import Store
from scisci.leaderboard.config import HEADLINES
from scisci.leaderboard.reading import open_listed, read_submission
from scisci.leaderboard.safe_hdf5 import open_untrusted
from scisci.leaderboard.sealing import sealed_windows
from scisci.leaderboard.submission import Run
from scisci.tasks.metrics import Accumulator
from scisci.tasks.scoring import SCORINGS, Counts, View, errors_of, kept_windows
from scisci.tasks.series_metrics import seasonal_naive

__all__ = ["HEADLINES", "SCORING_VERSION", "digest", "score", "trivial", "trivials"]

SCORING_VERSION = 1
STUDY = "leaderboard"
COPIED = (
    *("dataset", "treatment", "size", "params", "params_body", "data", "samples_seen", "flops", "seed", "lr"),
    *("status", "reason", "seconds", "peak_memory", "device", "shared"),
)
# Of these the trivial error follows from the definition: the mean label leaves all of the variance, and a fair coin's
# cross-entropy is ln 2.
DEFINED = {"velocities_fvu": 1.0, "omega_m_fvu": 1.0, "sigma_8_fvu": 1.0, "infilling_nll": math.log(2)}
StoreOf = Callable[[str], Store]


@dataclass(frozen=True)
class Labels:
    """Labels to score by: the stores of data sets, or one private store of a sealed test set."""

    store_of: StoreOf
    sealed: Store | None = None

    @classmethod
    def of(cls, path: Path | None, store_of: StoreOf) -> Labels:
        """The private store at `path`, if there is one; `UserError` if it is not of a sealed test set."""
        sealed = None if path is None else Store(path)
        if sealed is not None and "sealed_inputs" not in sealed.h5(0).attrs:
            raise UserError(f"{path} is not of a sealed test set; give the labels that 'scisci leaderboard seal' wrote")
        return cls(cache(store_of), sealed)

    def of_run(self, run: Run) -> Store:
        """The store with the labels of a run; `UserError` if the run is of other data."""
        store = self.sealed or self.store_of(run.dataset)
        if run.fingerprint != self.fingerprint(store):
            raise UserError(f"run {run.run!r} is of other data than {store.path} (fingerprints differ); predict again")
        return store

    def fingerprint(self, store: Store) -> str:
        """Of the inputs that predictions are for."""
        return str(store.h5(0).attrs["sealed_inputs"]) if self.sealed is not None else store.fingerprint

    def counts(self, store: Store, view: View) -> Counts | None:
        """Of windows of sealed series, which forecast what the inputs do not show; all others count."""
        if self.sealed is None or store.domain != "series" or view.horizon is None:
            return None
        rows = store.sample_column("channels") + store.sample_column("known")

        def counts(samples: np.ndarray, batch: Any) -> np.ndarray:
            times = store.lengths(samples) // rows[samples]
            return sealed_windows(store.h5(0), times, batch.start.numpy(), batch.future.shape[-1])

        return counts


def score(folder: Path, labels: Path | None = None, store_of: StoreOf = open_listed) -> pa.Table:
    """The results table of a submission: every metric of every run and split, from its predictions alone.

    `labels` is the private store of a sealed test set, for a submission of predictions for its inputs. What cannot be
    recomputed (parameters, FLOPs, time) is as the submission says, and a run that did not end well is one row. Raises
    `UserError` where predictions are not of the samples that the submission lists.
    """
    submission, by = read_submission(folder), Labels.of(labels, store_of)
    table: list[dict[str, Any]] = []
    windows: dict[str, View] = {}
    for run in submission.runs:
        store = by.of_run(run)
        row = {name: getattr(run, name) for name in COPIED}
        row |= {"run": f"{folder.name}/{run.run}", "study": STUDY, "domain": store.domain, "architecture": folder.name}
        if run.status != "ok":
            table.append(row)
        for split, samples in run.splits.items():
            view, metrics = _measured(folder, run, split, samples, by)
            if view.horizon != run.horizon:
                raise UserError(
                    f"run {run.run!r} forecasts {view.horizon} steps on {split!r}; give this as its horizon"
                )
            if windows.setdefault(run.dataset, view) != view and store.domain == "series":
                raise UserError(
                    f"run {run.run!r} has another context or horizon than others on {run.dataset}, and so is scored on"
                    " other windows; submit it by itself"
                )
            row |= {"split": split, "severity": store.split(split).severity}
            table += [row | {"metric": name, **_digits(value)} for name, value in metrics.items()]
    return pa.Table.from_pylist(table, RESULTS_SCHEMA)


def _measured(folder: Path, run: Run, split: str, samples: int, by: Labels) -> tuple[View, dict[str, MetricValue]]:
    """How the model saw a split, and its errors there."""
    store = by.of_run(run)
    with _opened(folder, run, split) as file:
        path = Path(run.run, f"{split}.h5")
        view = View.of(file, path)
        if str(file.attrs.get("split")) != split:
            raise UserError(f"{path} is for the split {file.attrs.get('split')!r}; predict {split!r}")
        metrics = errors_of(store, file, path, by.fingerprint(store), by.counts(store, view)).compute()
        ids = file["ids"][...]
        if not np.array_equal(ids[np.sort(np.unique(ids, return_index=True)[1])], store.split(split).indices(samples)):
            raise UserError(
                f"{path} is not of the first {samples} samples of {split!r}; predict these, in stored order"
            )
        if view.heaviest is not None and "velocities" in file:
            raise UserError(f"{path} is of the heaviest points alone; predict the velocities of all points")
    if wrong := [name for name, value in metrics.items() if not math.isfinite(value.value)]:
        raise UserError(f"{path} has predictions that are not finite, and so {wrong[0]} is not; predict again")
    return view, metrics


def _digits(value: MetricValue) -> dict[str, Any]:
    """A value to 12 digits: processors differ in the order in which they add, and so in the last ones."""
    parts = value.model_dump()
    return parts | {name: float(f"{part:.12g}") for name, part in parts.items() if isinstance(part, float)}


def _opened(folder: Path, run: Run, split: str) -> Any:
    return open_untrusted(folder / "predictions" / run.run / f"{split}.h5", folder)


def digest(folder: Path) -> str:
    """sha256 over `submission.yaml` and all predictions, with their names; `UserError` for what is no plain file."""
    sha = hashlib.sha256()
    for path in [folder / "submission.yaml", *sorted(folder.glob("predictions/*/*"))]:
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is not a plain file; a submission holds nothing else")
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        sha.update(f"{path.relative_to(folder).as_posix()}:{content}\n".encode())
    return sha.hexdigest()


def trivials(
    folder: Path, labels: Path | None = None, store_of: StoreOf = open_listed
) -> dict[tuple[str, str, int], dict[str, float]]:
    """`trivial` of all that a submission predicts: (data set, split, its first n samples) → metric → error."""
    by, found = Labels.of(labels, store_of), dict[tuple[str, str, int], dict[str, float]]()
    for run in read_submission(folder).runs:
        for split, samples in run.splits.items():
            if (key := (run.dataset, split, samples)) not in found:
                with _opened(folder, run, split) as file:
                    view = View.of(file, Path(run.run, f"{split}.h5"))
                store = by.of_run(run)
                metrics = _trivial(store, split, samples, view, by.counts(store, view))
                found[key] = {name: value.value for name, value in metrics.items()}
    return found


def trivial(store: Store, split: str, samples: int, view: View | None = None) -> dict[str, float]:
    """Headline metric → error of a predictor that knows next to nothing, on the first `samples` of a split.

    No forces; no displacement; the mean velocity of each cloud and the mean parameters of the split; odds of one half;
    of series, seasonal naive forecasts of the windows of `view`. Errors over these do not move when a model arrives.
    """
    return {name: value.value for name, value in _trivial(store, split, samples, view or View()).items()}


def _trivial(
    store: Store, split: str, samples: int, view: View, counts: Counts | None = None
) -> dict[str, MetricValue]:
    """The same on those windows of series that `counts`, with how many they are."""
    headlines = HEADLINES[store.domain]
    if all(name in DEFINED for name in headlines):
        return {name: MetricValue(value=DEFINED[name], n=samples) for name in headlines}
    (scoring,) = (one for one in SCORINGS if one.domain == store.domain)
    errors = Accumulator(scoring.errors)
    for rows, batch in view.batches(store, store.split(split).indices(samples)):
        outputs = _nothing(batch)
        if counts is not None:
            outputs, batch = kept_windows(outputs, batch, counts(rows, batch))
        if batch.num_graphs:
            errors.update(outputs, batch)
    metrics = errors.compute()
    return {name: metrics[name] for name in headlines}


def _nothing(batch: Any) -> dict[str, torch.Tensor]:
    """What a trivial predictor says of a batch."""
    if "future" in batch:
        return {"point": seasonal_naive(batch)}
    if "target_positions" in batch:
        return {"displacement": torch.zeros_like(batch.pos)}
    return {"energy": torch.zeros_like(batch.energy), "forces": torch.zeros_like(batch.forces)}
