"""Training at compiled speed: the whole evaluation, force gradient included, as one traced and compiled graph.

`torch.compile` cannot differentiate twice through a model that calls autograd itself. Tracing the energy and its
gradient into one graph of plain operations first leaves a graph that needs one derivative only. The way is that of
NequIP's compiled training (Tan et al., "High-performance training and inference for deep equivariant interatomic
potentials", 2025, arXiv:2504.16068).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from scisci.models.potential import Evaluation, Geometry, Potential


class CompiledPotential:
    """A potential's `forward` on a compiled graph that shares the potential's parameters; compiled at first use."""

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
        return self.model.outputs(Evaluation(*self._graph(*geometry)), batch)


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
