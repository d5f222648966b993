"""What training does about a symmetry that the backbone lacks: one class per treatment, alike from outside.

A treatment gives the training loss of a batch. What it learns or adapts is its own: it is kept in checkpoints, so that
a run goes on as it would have, and it is no part of the model. Frames alone are part of the model, which is exactly
symmetric with them. Terms that treatments add are in units of the running mean of the training loss, so that one
weight suits every domain and every stage of training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.contracts.errors import UserError, unknown_name
from scisci.models.blocks.graph import Features, mean_over_systems
from scisci.models.potential import Potential
from scisci.symmetry.actions import Outputs, Undo, act, apply
from scisci.symmetry.augmentation import KINDS
from scisci.symmetry.constrained import InvarianceConstraint
from scisci.symmetry.frames import KINDS as FRAMES
from scisci.symmetry.frames import Frames
from scisci.symmetry.groups import require
from scisci.symmetry.penalty import SoftEquivariance

if TYPE_CHECKING:
    from scisci.tasks.base import Task

Model = Callable[[Any], Outputs]
MEMORY = 0.95
# Options that are words, and which.
WORDS = {"group": tuple(name for name, group in KINDS.items() if group is not None), "kind": FRAMES}


class Treatment(nn.Module):
    """No treatment: the loss of the samples as they are.

    Others take options with defaults; `task` has its model by the time they are made.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()

    def forward(self, task: Task, model: Model, batch: Any, rng: np.random.Generator) -> Tensor:
        """The training loss of a batch, by `model`: the task's, or what stands in for it in training."""
        return task.loss(model(batch), batch)


class Augmented(Treatment):
    """The loss of systems that are each turned at random."""

    def __init__(self, task: Task, group: str = "rotation") -> None:
        super().__init__(task)
        self.group = cast(str, KINDS[group])

    def forward(self, task: Task, model: Model, batch: Any, rng: np.random.Generator) -> Tensor:
        """One pass."""
        return super().forward(task, model, act(self.group, batch, rng)[0], rng)


class Framed(Treatment):
    """Nothing but the loss: the model is averaged over frames, in training as ever after."""

    def __init__(self, task: Task, group: str = "rotation", kind: str = "full") -> None:
        super().__init__(task)


class RunningMean(nn.Module):
    """The mean of the losses it was called with while training, the latest counting most."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(torch.nan, dtype=torch.float64))

    def forward(self, loss: Tensor) -> Tensor:
        """[] → [], without gradient; the first loss is the first mean."""
        if self.training:
            latest = loss.detach().to(self.mean)
            self.mean = torch.where(self.mean.isnan(), latest, torch.lerp(latest, self.mean, MEMORY))
        return self.mean.to(loss)


class Penalised(Treatment):
    """The loss plus a penalty on equivariance errors of the outputs, with a learnt strength per group.

    `weight` and `floor` are those of `SoftEquivariance`, the weight in units of the running mean of the loss. Errors
    are relative to |f|² + s² with s the typical size of a label: relative to |f|² alone, those of a model that was not
    trained, with outputs near zero, have gradients without bound, and all that is learnt is to stay there.
    """

    def __init__(self, task: Task, group: str = "rotation", weight: float = 0.1, floor: float = 1e-2) -> None:
        super().__init__(task)
        self.scale, self.sizes = RunningMean(), task.sizes()
        self.soft = SoftEquivariance(group.split("+"), task.compared.values(), weight, floor, action=self._act)

    def forward(self, task: Task, model: Model, batch: Any, rng: np.random.Generator) -> Tensor:
        """A pass, and one more per group."""
        outputs = model(batch)
        loss = task.loss(outputs, batch)
        return loss + self.scale(loss) * self.soft(model, batch, rng, self._anchored(outputs))

    def _act(self, group: str, batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
        acted, undo = act(group, batch, rng)
        return acted, lambda outputs: self._anchored(undo(outputs))

    def _anchored(self, outputs: Outputs) -> Outputs:
        """Outputs beside constants of their typical size, which add to |f|² and to no error."""
        return {n: torch.stack([outputs[n], torch.full_like(outputs[n], size)]) for n, size in self.sizes.items()}


class Constrained(Treatment):
    """The loss, such that the loss of turned systems is at most (1 + tolerance) times its running mean.

    After each step the multiplier of a group grows by rate x (loss of turned systems / that bound - 1), or falls, to
    zero at the lowest; it is the weight of their loss.
    """

    def __init__(self, task: Task, group: str = "rotation", tolerance: float = 0.1, rate: float = 0.05) -> None:
        super().__init__(task)
        self.tolerance, self.scale = tolerance, RunningMean()
        self.constraint = InvarianceConstraint(dict.fromkeys(group.split("+"), 1.0), rate)

    def forward(self, task: Task, model: Model, batch: Any, rng: np.random.Generator) -> Tensor:
        """A pass, and one more per group."""
        loss = task.loss(model(batch), batch)
        bound = (1 + self.tolerance) * self.scale(loss)
        return loss + bound * self.constraint(lambda b: task.loss(model(b), b) / bound, batch, rng)


class Transported(nn.Module):
    """How a latent changes when its system is turned: two layers on the latent and the matrix, added to the latent."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels + 9, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(
        self, matrices: Float[Tensor, "systems 3 3"], latent: Float[Tensor, "systems channels"]
    ) -> Float[Tensor, "systems channels"]:
        """[B, 3, 3], [B, C] → [B, C]"""
        return latent + self.layers(torch.cat([latent, matrices.flatten(1)], dim=1))


class Latent(Treatment):
    """The loss of systems turned at random, plus how badly their latents tell those of systems turned once more.

    A latent is the mean over a system's points of what the heads read. A small network, conditioned on the matrix of
    the second turn, maps it to that of the turned system; the error of that enters the loss with `weight`. Elhag et
    al., "Learning inter-atomic potentials without explicit equivariance" (TransIP, 2025, arXiv:2510.00027).
    """

    def __init__(self, task: Task, group: str = "rotation", weight: float = 1.0) -> None:
        super().__init__(task)
        self.group, self.weight, self.scale = cast(str, KINDS[group]), weight, RunningMean()
        self.network = Transported(int(cast(Any, task.model.backbone).scalar_channels))

    def forward(self, task: Task, model: Model, batch: Any, rng: np.random.Generator) -> Tensor:
        """A pass, and one of the backbone alone."""
        batch, _ = act(self.group, batch, rng)
        with _features(cast(nn.Module, task.model.backbone)) as seen:
            loss = task.loss(model(batch), batch)
        element = require(self.group, batch).draw(batch, rng)
        turned, _ = apply(element, batch)
        before = mean_over_systems(seen[0].scalars, batch.batch, batch.ptr)
        after = mean_over_systems(latent(task.model, turned), batch.batch, batch.ptr)
        return loss + self.weight * self.scale(loss) * latent_error(self.network, element.matrices, before, after)


def latent(model: nn.Module, batch: Any) -> Float[Tensor, "points channels"]:
    """What a model's heads read of each point of a batch."""
    if isinstance(model, Potential):
        return model.energies(model.geometry(batch))[2].scalars
    return cast(Any, model).backbone(cast(Any, model).graph(batch)).scalars


def latent_error(
    network: Callable[[Tensor, Tensor], Tensor], matrices: Tensor, before: Tensor, after: Tensor
) -> Tensor:
    """sum |network(Q, z(x)) - z(Q x)|² / sum |z(Q x)|²; the scale gives no gradient, as in `equivariance_penalty`."""
    missed = network(matrices.to(before), before) - after
    return missed.square().sum() / after.detach().square().sum().clamp(min=1e-30)


@contextmanager
def _features(backbone: nn.Module) -> Iterator[list[Features]]:
    """What a backbone returns within the block."""
    seen: list[Features] = []
    handle = backbone.register_forward_hook(lambda _module, _inputs, features: seen.append(features))
    try:
        yield seen
    finally:
        handle.remove()


TREATMENTS: dict[str, type[Treatment]] = {
    "none": Treatment,
    "augmentation": Augmented,
    "frames": Framed,
    "penalty": Penalised,
    "constraint": Constrained,
    "latent": Latent,
}


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise `UserError` for options that a treatment lacks, and for values that they cannot have."""
    known = dict(list(inspect.signature(TREATMENTS[name].__init__).parameters.items())[2:])
    for key, value in options.items():
        if key not in known:
            raise unknown_name(f"option of the symmetry treatment {name!r}", key, known)
        if key in WORDS and value not in WORDS[key]:
            raise unknown_name(f"{key} of the symmetry treatment {name!r}", str(value), WORDS[key])
        if key not in WORDS and not (type(value) in (int, float) and 0 < value < float("inf")):
            raise UserError(f"{key} of the symmetry treatment {name!r} is {value!r}, but must be a positive number")


def frames_of(name: str, options: dict[str, Any]) -> Frames | None:
    """Over which frames the model is averaged under a treatment, if it is."""
    if name != "frames":
        return None
    return Frames(cast(Any, KINDS[options.get("group", "rotation")]), options.get("kind", "full"))


def check_backbone(name: str, architecture: str, backbone: nn.Module) -> None:
    """Raise `UserError` where a treatment would make a model symmetric that is so exactly."""
    if name not in ("none", "augmentation") and cast(Any, backbone).symmetry["rotation"] == "exact":
        raise UserError(
            f"{architecture} is exactly equivariant by itself, and the symmetry treatment {name!r} would add only its"
            " cost; leave it out or choose an unconstrained architecture"
        )
