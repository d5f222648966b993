"""Training at compiled speed: the whole evaluation, force gradient included, as one traced and compiled graph.

`torch.compile` cannot differentiate twice through a model that calls autograd itself. Tracing the energy and its
gradient into one graph of plain operations first leaves a graph that needs one derivative only. The way is that of
NequIP's compiled training (Tan et al., "High-performance training and inference for deep equivariant interatomic
potentials", 2025, arXiv:2504.16068).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from scisci.contracts.errors import UserError
from scisci.models.potential import Evaluation, Geometry, Potential

# In single precision gradients of the two differ by 1e-5; what a compiler gets wrong, by 1e-3 and more.
MOST_DIFFERENT = 5e-4


class CompiledPotential:
    """A potential's `forward` on a compiled graph that shares the potential's parameters; compiled at first use.

    Compilers have given wrong gradients for some widths of some models, so that they are compared then, once. Raises
    `UserError` where they are not those of the model.
    """

    def __init__(self, model: Potential) -> None:
        self.model = model
        self._graph: Callable[..., Any] | None = None

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Graph batch → what the potential returns for it."""
        geometry = self.model.geometry(batch)
        for tensor in geometry:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        if self._graph is None:
            self._graph = torch.compile(trace(self.model, geometry))
            self._check(geometry)
        return self.model.outputs(Evaluation(*self._graph(*geometry)), batch)

    def _check(self, geometry: Geometry) -> None:
        assert self._graph is not None
        found = self._gradient(self._graph(*geometry))
        expected = self._gradient(self.model.evaluate(geometry))
        difference = float((found - expected).norm() / expected.norm())
        if not difference < MOST_DIFFERENT:
            raise UserError(
                "compiled for this machine, the model has other weight gradients than as it is written (by"
                f" {difference:.1g} of their norm); leave compiled out, or take another version of torch"
            )

    def _gradient(self, evaluation: Iterable[Tensor | None]) -> Tensor:
        """Of the sum of squares of all that is evaluated, each relative to its size, by all weights, in one vector."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        squares = [values.square().sum() for values in evaluation if values is not None]
        total = sum(square / square.detach().clamp(min=torch.finfo(square.dtype).tiny) for square in squares)
        gradients = torch.autograd.grad(cast(Tensor, total), weights, allow_unused=True)
        return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def trace(model: Potential, example: Geometry) -> torch.fx.GraphModule:
    """The evaluation as a graph of plain operations, for any numbers of atoms, edges and systems.

    A model that stops gradients on purpose (`detach`) does not survive this; the conformance check sees it.
    """

    def evaluate(*geometry: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(model.evaluate(Geometry(*geometry)))

    traced = make_fx(evaluate, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    # Autograd's formulas take the results that they saved as constants. Weights act on forces through these too.
    for node in traced.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
        node.replace_all_uses_with(node.args[0])
        traced.graph.erase_node(node)
    traced.recompile()
    return traced
