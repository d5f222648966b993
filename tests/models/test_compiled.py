"""The compiled step is the eager step: same outputs, same gradients of the weights, at any batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scisci.contracts.errors import UserError
from scisci.models.blocks.graph import Inputs
from scisci.models.compiled import CompiledPotential
from scisci.models.conformance.systems import molecules
from scisci.models.mpnn import MPNN
from scisci.models.potential import Potential
from scisci.tasks.atomistic import AtomisticTask


@pytest.mark.slow
def test_compiled_outputs_and_weight_gradients_are_those_of_the_model() -> None:
    torch.manual_seed(0)
    model = Potential(MPNN(Inputs((1, 6, 7, 8)), 7.0, channels=8, layers=1), (0.0,) * 4, 1.0).double().train()
    compiled = CompiledPotential(model)
    batch = molecules(np.random.default_rng(0))
    for count in (6, 2, 5):
        part = type(batch).from_data_list([batch[k] for k in range(count)])
        results = []
        for forward in (model, compiled):
            model.zero_grad()
            outputs = forward(part)
            (outputs["energy"].sum() + outputs["forces"].square().sum()).backward()
            gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            results.append((outputs["energy"].detach(), outputs["forces"].detach(), gradients))
        for eager, other in zip(*results, strict=True):
            assert (eager - other).norm() < 1e-9 * eager.norm()


def test_wrong_gradients_of_a_compiler_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(graph: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(*geometry: torch.Tensor) -> list[torch.Tensor | None]:
            interaction, forces, *rest = graph(*geometry)
            return [interaction, 0.9 * forces + 0.1 * forces.detach(), *rest]

        return compiled

    model = Potential(MPNN(Inputs((1, 6, 7, 8)), 7.0, channels=8, layers=1), (0.0,) * 4, 1.0).train()
    batch = molecules(np.random.default_rng(0))
    monkeypatch.setattr(torch, "compile", lambda graph: graph)
    CompiledPotential(model)(batch)
    monkeypatch.setattr(torch, "compile", forgetful)
    with pytest.raises(UserError, match="other weight gradients than as it is written"):
        CompiledPotential(model)(batch)


def test_compiled_training_in_half_precision_is_refused() -> None:
    task = AtomisticTask(compiled=True, architecture="mpnn", size="3k")

    class Trainer:
        precision = "bf16-mixed"

    task._compiled, task._trainer = object(), Trainer()  # type: ignore[assignment]
    with pytest.raises(UserError, match="full precision"):
        task.on_fit_start()
