"""Sealed test sets: the shifts of a data set drawn anew from a secret seed, inputs to publish and labels to keep.

A seal guards against models that were fitted to the public test set, by training or by selection. It does not keep
labels from somebody who runs the simulator on the published inputs; what comes of that is predictions that equal the
labels, which `check` flags.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import h5py
import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.files import creating, digest
from scisci.data.library import read_card
from scisci.data.store import fingerprint
from scisci.generate import generator

# What a model is to predict, by domain. Of series it is the last steps.
LABELS = {
    "atoms": ("energy", "forces", "stress"),
    "particles": ("target_positions",),
    "cloud": ("velocities", "omega_m", "sigma_8"),
    "series": (),
}
SEED_BYTES, SEED_VARIETY = 32, 8
SHARED_ATTRIBUTES = ("format", "schema_version", "domain", "samples")


def read_seed(path: Path, dataset: str) -> int:
    """The simulator's seed: sha256 over "scisci sealed set:<dataset>:" and the file's bytes without outer white space.

    As a number of 256 bits. `UserError` for a file shorter than 128 bits written in hexadecimal, or of few different
    characters.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise UserError(f"cannot read the seed from {path} ({error.strerror}); give a file that holds it") from error
    if len(secret) < SEED_BYTES or len(set(secret)) < SEED_VARIETY:
        raise UserError(f"the seed in {path} could be guessed; make one with 'openssl rand -hex 32 > {path}'")
    return int(digest(f"scisci sealed set:{dataset}:".encode(), secret), 16)


def seal(
    dataset: str,
    seed_file: Path,
    out: Path,
    samples: int | None = None,
    splits: Sequence[str] | None = None,
    horizon: int | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Make a sealed test set in the folder `out`: `inputs.h5` without labels, and the same samples in `labels.h5`.

    Of every test split (`test` and `ood_*`, or `splits` of them) it has as many samples as the data set, or `samples`.
    Of series, the last `horizon` steps are the labels, and NaN in the inputs. `labels.h5` is for its owner alone; its
    attributes are `sealed_inputs`, the fingerprint of `inputs.h5`, and `dataset`. The seed is written nowhere.
    `UserError` for a data set that is not simulated, a seed that could be guessed, or an `out` that exists; then
    nothing is written.
    """
    simulate = generator(dataset)
    if "only" not in signature(simulate).parameters:
        raise UserError(f"{dataset} is of measured records, which no seed renews; choose a simulated data set")
    card = read_card(dataset)
    if (horizon is None) == (card.domain == "series") or (horizon is not None and horizon < 1):
        raise UserError(f"{dataset} holds {card.domain}; give a horizon of at least 1 for series, and for them alone")
    tests = {name: split.samples for name, split in card.splits.items() if name == "test" or name.startswith("ood_")}
    if strange := set(splits or ()) - set(tests):
        raise unknown_name(f"test split of {dataset}", min(strange), tests)
    if samples is not None and samples < 1:
        raise UserError(f"{samples} samples of a split leave nothing to score; give at least 1")
    counts = {name: samples or count for name, count in tests.items() if not splits or name in splits}
    seed = read_seed(seed_file, dataset)
    with _new_folder(out) as folder:
        simulate(folder / "labels.h5", seed=seed, log=log, only=counts)
        with h5py.File(folder / "labels.h5", "r+") as labels, h5py.File(folder / "inputs.h5", "w") as inputs:
            _copy_inputs(labels, inputs, horizon)
            inputs.attrs["fingerprint"] = labels.attrs["sealed_inputs"] = fingerprint([inputs])
            labels.attrs["dataset"] = dataset
        (folder / "labels.h5").chmod(0o600)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder for its owner alone that is at `path` once all is well, and nowhere otherwise."""
    if path.exists():
        raise UserError(f"{path} exists already; remove it first or choose another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with creating(path):
        temporary.mkdir(mode=0o700, parents=True)
    try:
        yield temporary
        with creating(path):
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_inputs(labels: h5py.File, inputs: h5py.File, horizon: int | None) -> None:
    """Copy what a model may see. Labels are never written and then deleted: their bytes would stay in the file."""
    domain = labels.attrs["domain"]
    inputs.attrs.update({name: labels.attrs[name] for name in SHARED_ATTRIBUTES})
    for name in ("offsets", "groups", "splits"):
        labels.copy(name, inputs)
    for per in ("items", "samples"):
        group = inputs.create_group(per)
        for name, node in labels[per].items():
            if domain == "series" and name == "values":
                assert horizon is not None
                labels.attrs["horizon"] = inputs.attrs["horizon"] = horizon
                _rewrite(group, node, _without_future(labels, horizon))
            elif domain == "cloud" and name == "masses":
                # Masses are multiples of the particles' mass, which tells Omega_m; their order does not.
                _rewrite(group, node, 1 + np.unique(node[...], return_inverse=True)[1])
            elif name not in LABELS[domain]:
                labels.copy(node, group)
    needed = {"freq"} | {split.attrs.get("severity_column", "freq") for split in labels["splits"].values()}
    metadata = inputs.create_group("metadata")
    for name in labels["metadata"].keys() & needed:
        labels.copy(f"metadata/{name}", metadata)


def _rewrite(group: h5py.Group, node: h5py.Dataset, values: np.ndarray) -> None:
    """Give `group` a data set laid out as `node`, with other values."""
    name = node.name.rpartition("/")[2]
    layout = {"dtype": node.dtype, "chunks": node.chunks, "maxshape": node.maxshape, "fletcher32": node.fletcher32}
    group.create_dataset(name, data=values, **layout).attrs.update(node.attrs)


def _without_future(labels: h5py.File, horizon: int) -> np.ndarray:
    """The values of all series, NaN in the last `horizon` steps of their targets; what else is known of them stays."""
    values, offsets = labels["items/values"][...], labels["offsets"][...]
    for k, (channels, known) in enumerate(zip(labels["samples/channels"], labels["samples/known"], strict=True)):
        rows = values[offsets[k] : offsets[k + 1]].reshape(channels + known, -1)
        if rows.shape[1] <= horizon:
            raise UserError(
                f"sample {k} has {rows.shape[1]} steps, which leaves none before a horizon of {horizon}; lower it or"
                " choose other splits"
            )
        rows[:channels, -horizon:] = np.nan
    return values


def sealed_windows(labels: h5py.File, times: np.ndarray, starts: np.ndarray, horizon: int) -> np.ndarray:
    """[n] which windows forecast what was sealed, of series of `times` [n] steps, beginning at `starts` [n].

    All, where the labels are not of a sealed set. `UserError` where the `horizon` of the forecasts is another one.
    """
    sealed = labels.attrs.get("horizon")
    if sealed is None:
        return np.ones(len(times), dtype=bool)
    if horizon != sealed:
        raise UserError(f"the forecasts are of {horizon} steps, but {sealed} are sealed; train with that horizon")
    return starts == times - sealed
