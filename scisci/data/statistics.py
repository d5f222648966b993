"""What a model must know of its training data before it is built."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch_geometric.data import Batch

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.store import Store

STATISTICS_SAMPLES = 4096
STATISTICS_CLOUDS = 256
References = tuple[float, ...] | tuple[tuple[float, ...], ...]
# Columns of a tree's node_features.
NODE_FEATURES = ("mass", "concentration", "vmax", "scale_factor")


@dataclass(frozen=True)
class Statistics:
    """What a potential must know of its training subset before it is built.

    `energy_references` has one energy (eV) per element, as stored with the data set, whatever the subset;
    `energy_scale` is the rms of a force component (eV/Å) in the training subset, `average_neighbors` the mean number
    of edges per atom there. `datasets` are the names of data sets that were combined: then `energy_references` has a
    row for each, NaN for an element that one lacks.
    """

    elements: tuple[int, ...]
    energy_references: References
    energy_scale: float
    average_neighbors: float
    datasets: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and checkpoints; an energy that is not known is `None`."""
        return {name: _plain(value) for name, value in asdict(self).items() if name != "datasets" or self.datasets}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Statistics:
        """Undo `as_dict`, also after a round trip through JSON."""
        return cls(**{name: _restored(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return None if isinstance(value, float) and math.isnan(value) else value


def _restored(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_restored, value))
    return math.nan if value is None else value


def measure_statistics(store: Store, indices: np.ndarray, cutoff: float) -> Statistics:
    """Statistics of the samples at `indices` (the first 4,096 of them), with neighbours within `cutoff` Å."""
    batch = graph_batch(store.take(indices[:STATISTICS_SAMPLES]), cutoff)
    references = store.references.get("energy")
    if references is None:
        raise UserError(f"{store.path} has no per-element reference energies; import it again to add them")
    if not batch.edge_index.shape[1]:
        raise UserError(f"no two training atoms are within the cutoff of {cutoff} Å; give a larger one")
    scale = float(batch.forces.double().square().mean().sqrt())
    if scale == 0:
        raise UserError(f"all training forces in {store.path} are zero; import it again with the right label keys")
    elements = elements_of(references)
    return Statistics(
        elements=elements,
        energy_references=_restored(references[..., list(elements)].tolist()),
        energy_scale=scale,
        average_neighbors=batch.edge_index.shape[1] / len(batch.numbers),
        datasets=store.datasets,
    )


def elements_of(references: np.ndarray) -> tuple[int, ...]:
    """Atomic numbers that have a reference energy in [119], or in any data set of [sets, 119]."""
    return tuple(np.flatnonzero(np.isfinite(references).reshape(-1, references.shape[-1]).any(axis=0)).tolist())


@dataclass(frozen=True)
class PointStatistics:
    """What a model of points must know of its training subset before it is built.

    `scales` has the rms of a component of each field that enters the model, and of what it is to predict, about its
    mean in `offsets` if it has one; `average_neighbors` is the mean number of edges per point.
    """

    average_neighbors: float
    scales: dict[str, float]
    offsets: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PointStatistics:
        """Undo `as_dict`."""
        return cls(**values)


def particle_statistics(store: Store, indices: np.ndarray, cutoff: float) -> PointStatistics:
    """Statistics of the particles at `indices` (the first 4,096 systems), with neighbours within `cutoff`.

    A field that is zero throughout has the scale 1; particles that do not move at all are a `UserError`.
    """
    batch = graph_batch(store.take(indices[:STATISTICS_SAMPLES]), cutoff)
    if not batch.edge_index.shape[1]:
        raise UserError(f"no two training particles are within the cutoff of {cutoff}; give a larger one")
    fields = {
        "charges": batch.charges,
        "velocities": batch.velocities,
        "displacement": batch.target_positions - batch.pos,
    }
    scales = {name: float(values.double().square().mean().sqrt()) for name, values in fields.items()}
    if scales["displacement"] == 0:
        raise UserError(f"no training particle in {store.path} moves; make the data set again")
    return PointStatistics(
        average_neighbors=batch.edge_index.shape[1] / len(batch.pos),
        scales={name: scale or 1.0 for name, scale in scales.items()},
    )


def cloud_statistics(
    store: Store,
    indices: np.ndarray,
    cutoff: float,
    targets: tuple[str, ...],
    seen: Callable[[Batch], Batch] = lambda batch: batch,
) -> PointStatistics:
    """Statistics of the clouds at `indices` (the first 256), with neighbours within `cutoff` Mpc/h.

    Of a vector per point the scale is the rms of a component; of a parameter of clouds there is the mean as well.
    `seen` takes a batch to what of it the model is given.
    """
    _require_labels(store, targets)
    batch = seen(graph_batch(store.take(indices[:STATISTICS_CLOUDS]), cutoff))
    if not batch.edge_index.shape[1]:
        raise UserError(f"no two training points are within the cutoff of {cutoff} Mpc/h; give a larger one")
    return PointStatistics(batch.edge_index.shape[1] / len(batch.pos), *_target_units(store, batch, targets))


def tree_statistics(store: Store, indices: np.ndarray, targets: tuple[str, ...]) -> PointStatistics:
    """Statistics of the trees at `indices` (the first 256): of the features of their halos, and of parameters.

    A feature that is the same throughout has the scale 1. `targets` are parameters, or "label" alone.
    """
    _require_labels(store, targets)
    batch = graph_batch(store.take(indices[:STATISTICS_CLOUDS]), cutoff=0)
    halos = batch.node_features.double()
    if "label" in batch:
        halos = halos[batch.label < 0]
    if "label" in targets:
        if len(batch.label.unique()) < 3:
            raise UserError(f"the training trees of {store.path} do not have virtual nodes of both labels; give more")
        targets = ()
    scales, offsets = _target_units(store, batch, targets)
    for name, values in zip(NODE_FEATURES, halos.T, strict=True):
        offsets[name] = float(values.mean())
        scales[name] = float(values.std(correction=0)) if values.min() < values.max() else 1.0
    return PointStatistics(batch.edge_index.shape[1] / len(batch.batch), scales, offsets)


def _require_labels(store: Store, targets: tuple[str, ...]) -> None:
    if absent := set(targets) - set(store.fields):
        raise UserError(f"{store.path} has no {' and no '.join(sorted(absent))}; it has {', '.join(store.fields)}")


def _target_units(store: Store, batch: Batch, targets: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
    """The scale of each target, and the mean of those that are a number per sample."""
    scales, offsets = {}, {}
    for name in targets:
        values = batch[name].double()
        if values.dim() == 1:
            offsets[name] = float(values.mean())
        scales[name] = float((values - offsets.get(name, 0.0)).square().mean().sqrt())
        if not scales[name] > 0:
            raise UserError(f"{name} is the same throughout the training {store.domain}s of {store.path}; give more")
    return scales, offsets
