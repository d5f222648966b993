"""Errors of a model, accumulated over batches into estimates with standard errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from scisci.contracts.run import MetricValue

MILLI = 1000.0
MOST_RELATIVE = 100.0
PARAMETERS = ("omega_m", "sigma_8")


class Shares(NamedTuple):
    """Squared errors [B] and labels [B] of a number per sample, for shares of the labels' variance over a split."""

    missed: Tensor
    labels: Tensor


class Relative(NamedTuple):
    """Sums of errors [B] of a model and of a reference, for the mean of their ratio over groups."""

    missed: Tensor
    reference: Tensor


# Outputs and batch → per-sample (numerator, weight) of each metric, or what its shares of the variance come from.
SampleErrors = Callable[[dict[str, Tensor], Any], Mapping[str, tuple[Tensor, Tensor] | Shares | Relative]]


def ratio_estimate(numerators: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> MetricValue:
    """The weighted mean sum(numerators) / sum(weights) over n samples, with standard errors.

    `numerators` and `weights` [n] are per-sample sums (of errors, and of what they are averaged over); of [n, K] it is
    the mean of the K ratios, apart from those without any weight. The standard errors are the linearised ones of a
    ratio (Cochran, "Sampling techniques", eq. 6.13), over samples and, with whole groups as the sampling units, over
    groups.
    """
    n = len(numerators)
    numerators, weights = numerators.reshape(n, -1), weights.reshape(n, -1)
    total = weights.sum(axis=0)
    numerators, weights, total = numerators[:, total != 0], weights[:, total != 0], total[total != 0]
    ratios = numerators.sum(axis=0) / total
    residuals = ((numerators - ratios * weights) / total).mean(axis=1)

    def error(parts: np.ndarray) -> float | None:
        return float(np.sqrt(len(parts) / (len(parts) - 1) * np.square(parts).sum())) if len(parts) > 1 else None

    by_group = np.bincount(np.unique(groups, return_inverse=True)[1], weights=residuals)
    return MetricValue(value=float(ratios.mean()), se=error(residuals), se_groups=error(by_group), n=n)


def geometric_mean(missed: np.ndarray, reference: np.ndarray, groups: np.ndarray) -> MetricValue | None:
    """The geometric mean over groups of the ratio of a group's errors to those of a reference, which are sums [n].

    Ratios are held to 1/100 to 100, as in fev-bench (Shchur et al., 2025), so that a group that either can do without
    any error does not decide. A group without any error of both says nothing, and if none is left there is no mean.
    The standard errors are linearised ones of the mean of logarithms, as in `ratio_estimate`.
    """
    _, of = np.unique(groups, return_inverse=True)
    totals = [np.bincount(of, weights=sums) for sums in (missed, reference)]
    told = (totals[0] > 0) | (totals[1] > 0)
    if not told.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = totals[0] / totals[1]
        parts = missed / totals[0][of] - reference / totals[1][of]
    inside = told & (ratios > 1 / MOST_RELATIVE) & (ratios < MOST_RELATIVE)
    logs = np.log(np.clip(ratios[told], 1 / MOST_RELATIVE, MOST_RELATIVE))
    value, count, n = float(np.exp(logs.mean())), len(logs), len(missed)
    parts = np.where(inside[of], parts, 0) / count
    return MetricValue(
        value=value,
        se=value * float(np.sqrt(n / (n - 1) * np.square(parts).sum())) if n > 1 else None,
        se_groups=value * float(logs.std(ddof=1) / np.sqrt(count)) if count > 1 else None,
        n=n,
    )


def _per_system(values: Tensor, batch: Any) -> Tensor:
    return values.new_zeros(batch.num_graphs).index_add(0, batch.batch, values)


def potential_errors(outputs: dict[str, Tensor], batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Per-sample (numerator, weight) of `energy_mae` meV/atom, `force_mae` meV/Å, `force_cosine`.

    Where the data have stress and the model gives it, also `stress_mae` meV/Å³ of systems periodic in all directions.
    """
    atoms = (batch.ptr[1:] - batch.ptr[:-1]).double()
    energy = (outputs["energy"] - batch.energy).abs() / atoms * MILLI
    predicted, true = outputs["forces"].double(), batch.forces.double()
    force = _per_system((predicted - true).abs().sum(dim=1), batch) * MILLI
    cosine = _per_system(torch.nn.functional.cosine_similarity(predicted, true, dim=1, eps=1e-12), batch)
    errors = {
        "energy_mae": (energy, torch.ones_like(energy)),
        "force_mae": (force, 3 * atoms),
        "force_cosine": (cosine, atoms),
    }
    if "stress" in batch and "stress" in outputs:
        missed = (outputs["stress"].double() - batch.stress.double()).abs().sum(dim=(1, 2)) * MILLI
        has_stress = torch.isfinite(missed)
        errors["stress_mae"] = (torch.where(has_stress, missed, 0.0), 9 * has_stress.double())
    return errors


def particle_errors(outputs: dict[str, Tensor], batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Per-sample (numerator, weight) of `position_mse`."""
    particles = (batch.ptr[1:] - batch.ptr[:-1]).double()
    missed = outputs["displacement"].double() - (batch.target_positions.double() - batch.pos.double())
    return {"position_mse": (_per_system(missed.square().sum(dim=1), batch), 3 * particles)}


def velocity_errors(outputs: dict[str, Tensor], batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Per-sample (numerator, weight) of `velocities_mse` (km/s)², `_fvu`, `_r2` and `_r2_mean`.

    A cloud's variance is about its own mean velocity. R² is that of all clouds together: 1 - sum of squared errors /
    sum of squared deviations, which equals 1 - mean(MSE) / mean(variance) where clouds have equally many points. The
    mean of every cloud's own R², which is published as well, weights quiet and small clouds more.
    """
    points = (batch.ptr[1:] - batch.ptr[:-1]).double()
    true = batch.velocities.double()
    missed = _per_system((outputs["velocities"].double() - true).square().sum(dim=1), batch)
    mean = true.new_zeros(batch.num_graphs, 3).index_add(0, batch.batch, true) / points[:, None]
    spread = _per_system((true - mean[batch.batch]).square().sum(dim=1), batch)
    return {
        "velocities_mse": (missed, 3 * points),
        "velocities_fvu": (missed, spread),
        "velocities_r2": (spread - missed, spread),
        "velocities_r2_mean": (1 - missed / spread, torch.ones_like(spread)),
    }


def parameter_errors(outputs: dict[str, Tensor], batch: Any) -> dict[str, tuple[Tensor, Tensor] | Shares]:
    """Per-sample errors of cosmological parameters: `_mse`, and `_fvu` and `_r2` about the split's own mean."""
    errors: dict[str, tuple[Tensor, Tensor] | Shares] = {}
    for name in PARAMETERS:
        true = batch[name].double()
        missed = (outputs[name].double() - true).square()
        errors[f"{name}_mse"] = (missed, torch.ones_like(missed))
        errors[f"{name}_fvu"] = errors[f"{name}_r2"] = Shares(missed, true)
    return errors


def infilling_errors(outputs: dict[str, Tensor], batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Per-sample (numerator, weight) of `infilling_nll`, `_accuracy`, `_balanced_accuracy` and `_f1`.

    All are over the virtual nodes of all trees together, of which each counts the same.
    """
    virtual = batch.label >= 0
    odds, label = outputs["infilling"].double(), batch.label == 1
    loss = binary_cross_entropy_with_logits(odds, label.double(), reduction="none")
    positive = odds > 0

    def count(which: Tensor) -> Tensor:
        return _per_system((virtual & which).double(), batch)

    hits, rejections = count(positive & label), count(~positive & ~label)
    of_label = torch.stack([count(~label), count(label)], dim=1)
    nodes = of_label.sum(dim=1)
    return {
        "infilling_nll": (_per_system(torch.where(virtual, loss, 0.0), batch), nodes),
        "infilling_accuracy": (hits + rejections, nodes),
        "infilling_balanced_accuracy": (torch.stack([rejections, hits], dim=1), of_label),
        "infilling_f1": (2 * hits, count(positive) + of_label[:, 1]),
    }


class _Measured(NamedTuple):
    """What is kept of a batch: the parts of each metric, the group of each sample, and the loss, if it is known."""

    parts: dict[str, tuple[Tensor, Tensor] | Shares | Relative]
    groups: Tensor
    loss: Tensor | None


class Accumulator:
    """Collects per-sample errors of one split, batch by batch; batches that processes share come together in order."""

    def __init__(self, errors: SampleErrors) -> None:
        self._errors = errors
        self._batches: dict[int, _Measured] = {}

    def update(
        self, outputs: dict[str, Tensor], batch: Any, number: int | None = None, loss: Tensor | None = None
    ) -> None:
        """Add a batch: the next one, or the one of this number, which counts once however often it is added."""
        found = {}
        for name, parts in self._errors(outputs, batch).items():
            both = parts[0].detach().cpu(), parts[1].cpu()
            found[name] = type(parts)(*both) if isinstance(parts, Shares | Relative) else both
        number = len(self._batches) if number is None else number
        self._batches[number] = _Measured(found, batch.group.cpu(), None if loss is None else loss.detach().cpu())

    def gather(self) -> None:
        """Take in the batches of all other processes, which do the same."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        all_found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(all_found, self._batches)
        merged = {number: batch for found in all_found for number, batch in found.items()}
        self._batches = dict(sorted(merged.items()))

    def parts(self) -> Iterator[tuple[str, type, np.ndarray, np.ndarray]]:
        """Each metric, the kind of its parts (`tuple`, `Shares` or `Relative`), and both for all samples so far."""
        columns = defaultdict(list)
        for batch in self._batches.values():
            for name, parts in batch.parts.items():
                columns[name].append(parts)
        for name, of_batches in columns.items():
            first, second = (torch.cat(column).numpy() for column in zip(*of_batches, strict=True))
            yield name, type(of_batches[0]), first, second

    @property
    def groups(self) -> np.ndarray:
        """[n] the group of every sample so far."""
        return torch.cat([batch.groups for batch in self._batches.values()]).numpy()

    def loss(self) -> float:
        """The mean of the batches' losses, each weighted by its number of samples."""
        losses = torch.stack([batch.loss for batch in self._batches.values() if batch.loss is not None]).double()
        samples = torch.tensor([len(batch.groups) for batch in self._batches.values()])
        return float((losses * samples).sum() / samples.sum())

    def compute(self) -> dict[str, MetricValue]:
        """The estimate of each metric over all samples so far."""
        groups, estimates = self.groups, {}
        for name, kind, numerators, weights in self.parts():
            if kind is Relative:
                if (found := geometric_mean(numerators, weights, groups)) is not None:
                    estimates[name] = found
                continue
            if kind is Shares:
                weights = np.square(weights - weights.mean())
                numerators = weights - numerators if name.endswith("_r2") else numerators
            # Where there is nothing to take a mean over, the split has no such metric.
            if not weights.any():
                continue
            estimates[name] = ratio_estimate(numerators, weights, groups)
        return estimates
