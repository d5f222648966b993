"""Invariance-constrained augmentation: as much weight on transformed data as a bound on their loss asks for.

Hounie, Chamon and Ribeiro, "Automatic data augmentation via invariance-constrained learning" (2023, arXiv:2209.15031).
Augmentation with a symmetry that the data do not have spoils a model; without one they do have, wastes data. Instead of
an amount of augmentation, a bound on the loss of transformed samples is given:

    minimise E[loss(x)]  such that  E[loss(g x)] <= tolerance for every group.

Its Lagrangian adds multiplier x E[loss(g x)] to the training loss; multipliers rise while their constraint is violated
and fall to zero when it holds of itself. There g has the density proportional to loss(g x), sampled by independent
Metropolis-Hastings steps from uniform proposals; here the same density is reached by importance weights of `draws`
uniform elements, of which none is thrown away. With one draw, the default, g is uniform.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scisci.symmetry.actions import act
from scisci.symmetry.penalty import Action


def transformed_loss(
    loss: Callable[[Any], Tensor],
    batch: Any,
    group: str,
    rng: np.random.Generator,
    draws: int = 1,
    action: Action = act,
) -> Tensor:
    """Mean over samples of the loss at g x, for g with density proportional to it (uniform if `draws` is 1).

    `loss` gives the loss of each sample [B], or of the whole batch, labels included as they turn with it.
    """
    losses = torch.stack([loss(action(group, batch, rng)[0]).reshape(-1) for _ in range(draws)])
    weights = losses.detach() / losses.detach().sum(0).clamp(min=1e-30) if draws > 1 else torch.ones_like(losses)
    return (weights * losses).sum(0).mean()


class InvarianceConstraint(nn.Module):
    """Loss term whose multipliers hold the loss of transformed samples below a tolerance, by primal-dual steps.

    After each training batch, multiplier <- max(0, multiplier + rate (loss of transformed samples - tolerance)).

    Args:
        tolerances: group → bound on the loss of samples transformed by it, in units of the loss.
        rate: step of the multipliers; small against the model's, so that the model follows them.
        draws: elements drawn per sample and group.
        action: draws elements and acts with them.
    """

    tolerances: Tensor
    multipliers: Tensor

    def __init__(
        self, tolerances: Mapping[str, float], rate: float = 1e-2, draws: int = 1, action: Action = act
    ) -> None:
        super().__init__()
        self.groups, self.rate, self.draws, self.action = tuple(tolerances), rate, draws, action
        self.register_buffer("tolerances", torch.tensor(list(tolerances.values()), dtype=torch.float64))
        self.register_buffer("multipliers", torch.zeros(len(tolerances), dtype=torch.float64))

    @property
    def strengths(self) -> dict[str, float]:
        """The present multiplier of each group."""
        return dict(zip(self.groups, self.multipliers.tolist(), strict=True))

    def forward(self, loss: Callable[[Any], Tensor], batch: Any, rng: np.random.Generator) -> Tensor:
        """The loss term of a batch, for `loss` as in `transformed_loss`; in training mode multipliers move."""
        losses = torch.stack(
            [transformed_loss(loss, batch, group, rng, self.draws, self.action) for group in self.groups]
        )
        term = (self.multipliers.to(losses) * losses).sum()
        if self.training:
            violated = losses.detach().to(self.multipliers) - self.tolerances
            self.multipliers = (self.multipliers + self.rate * violated).clamp(min=0)
        return term
