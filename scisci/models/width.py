"""Maximal-update parametrisation: one learning rate for models of every width.

Yang et al., "Tensor Programs V: tuning large neural networks via zero-shot hyperparameter transfer" (2022,
arXiv:2203.03466), table 3, for Adam: every layer's outputs change as much per step in a wide model as in a narrow one.
A model is compared, parameter by parameter, with the same model at its architecture's reference width, where both
parametrisations agree. There, some layers and logits are multiplied by constants; here, all is in initial values and
rates: Adam's steps do not depend on the scale of gradients, so that a constant before a parameter is the same as that
constant times its initial value and rate. Thus a trained model is like any other, whichever way it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.embedding import VectorEmbedding
from scisci.models.cloud import VectorHead

# Modules whose weight has inputs in rows and outputs in columns; all others have it the other way round.
TRANSPOSED = (nn.Embedding, VectorEmbedding)


def widths(architecture: str) -> tuple[str, ...]:
    """The options of an architecture that are widths; `UserError` if it declares none."""
    declared: tuple[str, ...] = getattr(registry.load(architecture), "WIDTHS", ())
    if not declared:
        able = [name for name in registry.architectures() if hasattr(registry.get(name), "WIDTHS")]
        raise UserError(
            f"{architecture} has no maximal-update parametrisation; leave it out or choose one of: {', '.join(able)}"
        )
    return declared


def at_reference(architecture: str, options: dict[str, Any]) -> dict[str, Any]:
    """These options with widths that are the constructor's defaults."""
    return options | {name: registry.default(architecture, name) for name in widths(architecture)}


@torch.no_grad()
def maximal_update(model: nn.Module, reference: nn.Module) -> dict[str, float]:
    """Rescale the initial values of `model`; returns, by the name of each parameter, what its rate is multiplied with.

    `reference` is the same model at reference width. With r the ratio of fan-in to that of the reference: weights that
    sum over a width have rate / r, those to a fixed number of outputs also start at 1 / sqrt(r) of their standard
    values. Biases start as they do in the reference. Decoupled weight decay is to be divided by the same factor as the
    rate, so that what decays per step stays.
    """
    twins: dict[str, Any] = dict(reference.named_modules())
    rates: dict[str, float] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            start, rates[_join(path, name)] = _factors(module, twins[path], name)
            parameter.mul_(start)
    for path, module in model.named_modules():
        for name, factor in _products(module, twins[path]):
            module.get_parameter(name).mul_(factor)
            rates[_join(path, name)] *= factor
        if isinstance(module, VectorHead) and module.mix is not None:
            # Beside the weights of as many channels, those of the points' own vectors, which are a fixed number.
            own = module.get_parameter("weights.2.weight")[module.mix.out_features :]
            own.mul_((module.mix.out_features / twins[path].mix.out_features) ** -0.5)
    return rates


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _factors(module: Any, twin: Any, name: str) -> tuple[float, float]:
    """What a parameter's initial value and its rate are multiplied with."""
    shapes = module.get_parameter(name).shape, twin.get_parameter(name).shape
    grown = [new / old for new, old in zip(*shapes, strict=True)]
    if len(grown) < 2:
        # Linear's biases start at random, within 1 / sqrt(fan-in).
        return math.sqrt(module.in_features / twin.in_features) if isinstance(module, nn.Linear) else 1.0, 1.0
    ratio = grown.pop(0 if isinstance(module, TRANSPOSED) else -1)
    return 1.0 if any(other != 1 for other in grown) else ratio**-0.5, 1 / ratio


def _products(module: Any, twin: Any) -> Iterator[tuple[str, float]]:
    """Parameters on which sums of products over a width depend, and what makes these means of products instead.

    An attention module names the parameter that its logits are proportional to as `logits`, and its heads' `width`, by
    whose root it divides them.
    """
    if hasattr(module, "logits"):
        yield module.logits, (module.width / twin.width) ** -0.5
    if isinstance(module, VectorHead) and module.mix is not None:
        yield "mix.weight", twin.mix.out_features / module.mix.out_features
