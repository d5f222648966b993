"""Soft equivariance: a penalty per group, with strengths that are learnt in training.

Kim, Lee, Yang and Lee, "Regularizing towards soft equivariance under mixed symmetries" (2023, arXiv:2306.00356). Data
may have several symmetries, each to another degree. One penalty per group says how far the model is from it, and its
strength is set inversely to what is left of it in training. There, penalties are distances of weights to equivariant
subspaces, known for linear layers, and strengths are set once, after some epochs. Here penalties are measured on the
outputs, as any backbone has them, and strengths follow all along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scisci.symmetry.actions import Outputs, Undo, act

Action = Callable[[str, Any, np.random.Generator], tuple[Any, Undo]]


def equivariance_penalty(
    model: Callable[[Any], Outputs],
    batch: Any,
    group: str,
    rng: np.random.Generator,
    outputs: Iterable[str],
    plain: Outputs | None = None,
    action: Action = act,
) -> Tensor:
    """Mean over `outputs` of sum |f(g x) - g f(x)|² / sum |f(x)|², over a batch and a random g per system.

    The square of the error that `scisci.symmetry.measure` reports. Its scale |f(x)|² gives no gradient: a penalty must
    not be lowered by making outputs large. `plain`: the outputs f(x), where they are known.
    """
    plain = model(batch) if plain is None else plain
    acted, undo = action(group, batch, rng)
    back, outputs = undo(model(acted)), tuple(outputs)
    errors = [
        (back[name] - plain[name]).square().sum() / plain[name].detach().square().sum().clamp(min=1e-30)
        for name in outputs
    ]
    return torch.stack(errors).mean()


class SoftEquivariance(nn.Module):
    """Loss term that draws a model towards every group as far as the data let it.

    The term is the minimum over strengths s_g > 0 of

        sum over groups of  s_g (P_g + floor) - weight log s_g,

    P_g being the penalty: minus the log-likelihood of equivariance errors whose variance is unknown (Kendall, Gal and
    Cipolla, 2018, arXiv:1705.07115), with `floor` its prior. It is taken by turns: s_g = weight / (mean of P_g + floor)
    exactly, and a gradient step for the model. A model at rest therefore minimises task + weight sum log(P_g + floor).

    Args:
        groups: names of groups, as `action` knows them.
        outputs: which outputs of the model are compared.
        weight: of this term against the task's loss.
        floor: the squared relative error below which a group counts as exact; strengths are at most weight / floor.
        memory: share of the running mean of P_g that a step keeps.
        action: draws elements and acts with them.
    """

    mean: Tensor
    steps: Tensor

    def __init__(
        self,
        groups: Iterable[str],
        outputs: Iterable[str],
        weight: float = 0.01,
        floor: float = 1e-4,
        memory: float = 0.98,
        action: Action = act,
    ) -> None:
        super().__init__()
        self.groups, self.outputs, self.action = tuple(groups), tuple(outputs), action
        self.weight, self.floor, self.memory = weight, floor, memory
        self.register_buffer("mean", torch.zeros(len(self.groups), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def strengths(self) -> dict[str, float]:
        """The present strength of each group; weight / floor before the first step."""
        return dict(zip(self.groups, self._strengths().tolist(), strict=True))

    def _strengths(self) -> Tensor:
        # The running mean began at zero; dividing by the weights it has gathered makes it a mean from the first step.
        gathered = (1 - self.memory ** self.steps.double()).clamp(min=1e-12)
        return self.weight / (self.mean / gathered + self.floor)

    def forward(
        self, model: Callable[[Any], Outputs], batch: Any, rng: np.random.Generator, plain: Outputs | None = None
    ) -> Tensor:
        """The loss term of a batch; in training mode the strengths are brought up to date first."""
        plain = model(batch) if plain is None else plain
        penalties = torch.stack(
            [equivariance_penalty(model, batch, g, rng, self.outputs, plain, self.action) for g in self.groups]
        )
        if self.training:
            self.mean.lerp_(penalties.detach().to(self.mean), 1 - self.memory)
            self.steps += 1
        return (self._strengths().to(penalties) * penalties).sum()
