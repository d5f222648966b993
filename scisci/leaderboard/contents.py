"""What a predictions file says, held against the samples it must be of and, where there are any, their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.samples import LARGEST
from scisci.data.series import MOST_WINDOWS
from scisci.data.store import Store
from scisci.leaderboard.hdf5_faults import PER_POINT, PER_SAMPLE, quoted
from scisci.leaderboard.submission import Run
from scisci.tasks.predictions import SCHEMA_VERSION
from scisci.tasks.scoring import SCORINGS, Scoring, View
from scisci.tasks.series_metrics import real_channels, scored

ROWS_AT_ONCE = 2**16
# May be NaN: stress of what is not periodic, forecasts of channels without a past.
GAPS = ("stress", "mean", "quantiles")
# A copy in float32 is that close to its labels; two units in the last place.
ROUNDING = 2.4e-7


@dataclass
class Agreement:
    """Sums over all values of a quantity, from which its scale against the labels follows."""

    predicted: float = 0.0
    """of squares, as are `labels` and `both`"""
    labels: float = 0.0
    both: float = 0.0
    equal: int = 0
    """values that equal their labels to rounding, of `count` whose label is not zero"""
    count: int = 0

    def add(self, predicted: np.ndarray, labels: np.ndarray, origin: np.ndarray | float = 0.0) -> None:
        """Add values; squares are of what lies beyond `origin`, such as a position at the earlier time."""
        told = labels != origin
        self.equal += int((np.abs(predicted - labels) <= ROUNDING * np.abs(labels))[told].sum())
        self.count += int(told.sum())
        predicted, labels = (predicted - origin).ravel(), (labels - origin).ravel()
        self.predicted += float(predicted @ predicted)
        self.labels += float(labels @ labels)
        self.both += float(predicted @ labels)

    def missed(self, factor: float) -> float:
        """Sum of squared errors of the predictions times `factor`."""
        return max(0.0, factor**2 * self.predicted - 2 * factor * self.both + self.labels)


def scoring_of(store: Store, names: set[str]) -> Scoring:
    """The scoring that arrays with these names come closest to; `UserError` for a domain without any."""
    known = [one for one in SCORINGS if one.domain == store.domain]
    if not known:
        raise UserError(f"is of the domain {store.domain!r}, which is not scored; submit other data")
    return max(known, key=lambda one: len(set(one.quantities) & names))


def labelled(scoring: Scoring, batch: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray | float]]:
    """Of what is predicted and has labels in a batch: name, labels, which of them count, and their origin."""
    for name in (*scoring.quantities, "stress"):
        field = {"positions": "target_positions", "mean": "future", "infilling": "label"}.get(name, name)
        if name in ("start", "quantiles") or field not in batch:
            continue
        labels, origin = batch[field].double().numpy(), 0.0 if name != "positions" else batch.pos.double().numpy()
        counts = np.isfinite(labels)
        if name == "mean":
            real = real_channels(batch).numpy()
            labels, counts = (part[real].ravel() for part in (labels, scored(batch).numpy()))
        elif name == "infilling":
            counts = labels >= 0
        yield name, labels, counts, origin


def lengths_of(batch: Any) -> np.ndarray:
    """[B] points of each sample of a batch, or values of each window."""
    lengths = batch.channels * batch.future.shape[-1] if "future" in batch else batch.ptr.diff()
    return np.asarray(lengths.numpy())


@dataclass(frozen=True)
class Contents:
    """All that is wrong with a file, a clause each; how its values agree with the labels; how its model saw samples."""

    faults: tuple[str, ...]
    agreements: Mapping[str, Agreement]
    view: View | None


def examine(file: h5py.File, run: Run, split: str, store: Store, path: Path) -> Contents:
    """Hold an opened predictions file against a run's split; `path` is its name in messages.

    The split must be of the store. Reads a few samples at a time.
    """
    agreements: dict[str, Agreement] = defaultdict(Agreement)
    names, view = set(file) - {"ids", "offsets"}, None
    faults = [*_header_faults(file, run, split), *_value_faults(file, names)]
    try:
        scoring = scoring_of(store, names)
        faults += _quantity_faults(store, scoring, names)
        view = View.of(file, path)
        if view.heaviest is not None and "velocities" in names:
            faults.append("is of the heaviest points alone; predict the velocities of all points")
        indices = store.split(split).indices(run.splits[split])
        rows = [*_id_faults(file, indices, store.domain == "series", split), *_row_faults(file, names)]
        with np.errstate(over="ignore", invalid="ignore"):
            faults += rows or _compare(file, names, scoring, view.batches(store, indices), agreements)
    except UserError as error:
        faults.append(str(error))
    return Contents(tuple(faults), agreements, view)


def _header_faults(file: h5py.File, run: Run, split: str) -> Iterator[str]:
    given = {name: file.attrs.get(name) for name in ("format", "schema_version", "fingerprint", "split")}
    if given["format"] != "scisci-predictions":
        yield f"has the format {quoted(given['format'])}; write it with 'scisci predict' or 'scisci evaluate'"
    if (version := given["schema_version"]) is None or version < 1:
        yield "has no schema_version; write it with 'scisci predict' or 'scisci evaluate'"
    elif version > SCHEMA_VERSION:
        yield f"is of schema_version {version}, of a newer scisci; update with 'pip install -U scisci'"
    if given["fingerprint"] != run.fingerprint:
        yield f"is for data with the fingerprint {quoted(given['fingerprint'])}, not its run's; predict again"
    if given["split"] != split:
        yield f"says it is for the split {quoted(given['split'])}; put the predictions for {split!r} there"


def _value_faults(file: h5py.File, names: set[str]) -> Iterator[str]:
    """Arrays with values that are not finite, or too large to be squared and summed."""
    for name in sorted(names):
        for start in range(0, len(file[name]), ROWS_AT_ONCE):
            values = file[name][start : start + ROWS_AT_ONCE]
            wrong = ~(np.abs(values) <= LARGEST["f4"])
            if name in GAPS:
                wrong &= ~np.isnan(values)
            if wrong.any():
                row, value = start + int(np.argwhere(wrong)[0][0]), values[wrong][0]
                yield f"has {value} in row {row} of {name!r}; every value must be finite and below 1e38"
                break


def _quantity_faults(store: Store, scoring: Scoring, names: set[str]) -> Iterator[str]:
    for name in scoring.quantities:
        if name not in names:
            yield f"has no {name!r}, which predictions on {store.domain} data need; predict again"
    optional = {"stress"} if store.domain == "atoms" else set()
    for name in sorted(names - {*scoring.quantities} - optional):
        yield f"has {name!r}, which nothing is scored by beside {scoring.quantities[0]!r}; leave it out"


def _id_faults(file: h5py.File, indices: np.ndarray, windows: bool, split: str) -> Iterator[str]:
    """Where the samples of a file are not exactly those at `indices`, in that order; series have rows per window."""
    count = len(file["ids"])
    if count > 2 * len(indices) * (MOST_WINDOWS if windows else 1):
        yield f"has {count:,} rows for {len(indices):,} samples of {split!r}; predict each once"
        return
    ids = file["ids"][...]
    if windows:
        ids = ids[np.diff(ids, prepend=-1) != 0]
    known, times = np.unique(ids, return_counts=True)
    told = {
        "has {} more than once; predict each once": known[times > 1],
        f"lacks {{}} of the first {len(indices):,} of {split!r}; predict all of them": np.setdiff1d(indices, known),
        f"has {{}} that are not among the first {len(indices):,} of {split!r}; leave these out": np.setdiff1d(
            known, indices
        ),
    }
    for words, wrong in told.items():
        if len(wrong):
            yield words.format(f"{len(wrong):,} samples (such as {wrong[0]})")
    if not any(len(wrong) for wrong in told.values()) and not np.array_equal(ids, indices):
        yield f"has the samples of {split!r} in another order; predict them in stored order"


def _row_faults(file: h5py.File, names: set[str]) -> Iterator[str]:
    """Arrays of other lengths than `ids` and `offsets` say."""
    count = len(file["ids"])
    if len(file["offsets"]) != count + 1:
        yield f"has {len(file['offsets']):,} offsets for {count:,} rows; there is one more than rows"
        return
    points = int(file["offsets"][-1])
    wanted = dict.fromkeys(PER_SAMPLE, count) | dict.fromkeys(PER_POINT, points)
    for name in sorted(names):
        if len(file[name]) != wanted[name]:
            yield f"has {len(file[name]):,} rows of {name!r}, not {wanted[name]:,}; predict again"


def _compare(
    file: h5py.File,
    names: set[str],
    scoring: Scoring,
    batches: Iterator[tuple[np.ndarray, Any]],
    agreements: dict[str, Agreement],
) -> Iterator[str]:
    """Go through the samples, adding to `agreements`; stops at the first that is not as it should be."""
    start = 0
    for rows, batch in batches:
        part = slice(start, start + len(rows))
        lengths, offsets = lengths_of(batch), file["offsets"][start : part.stop + 1]
        if not np.array_equal(file["ids"][part], rows):
            yield f"has not one row for every window of its series, from row {start} on; predict again"
            return
        if (start == 0 and offsets[0] != 0) or not np.array_equal(np.diff(offsets), lengths):
            yield f"has offsets that are not those of its samples' points, from row {start} on; predict again"
            return
        if "start" in names and not np.array_equal(file["start"][part], batch.start.numpy()):
            yield f"has forecasts that begin at other steps than the windows, from row {start} on; predict again"
            return
        for name, labels, counts, origin in labelled(scoring, batch):
            if name not in names:
                continue
            place = part if name in PER_SAMPLE else slice(offsets[0], offsets[-1])
            values = file[name][place].astype(np.float64)
            for other in (name, *{"quantiles"} & names) if name == "mean" else (name,):
                if np.isnan(file[other][place][counts]).any():
                    yield f"has NaN in {other!r} where there is a label, from row {start} on; predict it"
                    return
            if name != "infilling":
                where = origin if isinstance(origin, float) else origin[counts]
                agreements[name].add(values[counts], labels[counts], where)
        start = part.stop
    if start != len(file["ids"]):
        yield f"has {len(file['ids']):,} rows for {start:,} samples or windows; predict again"
