"""Rotation augmentation: every training system turned at random, so that a model sees each from all sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scisci.contracts.errors import unknown_name
from scisci.symmetry.actions import act

# What may be asked for → the group that elements are drawn from.
KINDS: dict[str, str | None] = {"none": None, "rotation": "rotation", "rotation+reflection": "orthogonal"}


def generator() -> np.random.Generator:
    """A generator seeded by torch's random state, which it moves on: a run's one seed decides what is drawn."""
    return np.random.default_rng(int(torch.randint(2**31, (1,)).item()))


@dataclass(frozen=True)
class Augmentation:
    """Turn every system of a batch by its own rotation, uniform on SO(3) or O(3); labels turn with it.

    Uniform is with respect to Haar measure: rotations are those of uniform unit quaternions (Shoemake, "Uniform random
    rotations", 1992). `kind` is one of `KINDS`; another is a `UserError`.
    """

    kind: str = "rotation"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("augmentation", self.kind, KINDS)

    def __call__(self, batch: Any, rng: np.random.Generator | None = None) -> Any:
        """The augmented batch; the one given stays as it is. Without `rng`, torch's random state decides."""
        group = KINDS[self.kind]
        return batch if group is None else act(group, batch, generator() if rng is None else rng)[0]
