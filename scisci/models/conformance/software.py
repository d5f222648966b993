"""What training and sharing ask of a model: weights that travel, a graph that can be compiled, a ladder of sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor

from scisci.models import registry
from scisci.models.compiled import trace
from scisci.models.conformance.subject import Outcome, Subject, relative
from scisci.models.conformance.systems import molecules
from scisci.models.flops import forward_flops
from scisci.models.potential import Geometry, Potential, parameter_counts

NAMED_WITHIN = 1.33
DECADES = 2.5


def round_trip(subject: Subject) -> list[Outcome]:
    """Weights written as safetensors and read into a fresh model give the same outputs to the last bit."""
    model, batch = subject.example(np.random.default_rng(6))
    other, _ = subject.example(np.random.default_rng(6))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, str(Path(folder) / "model.safetensors"))
        load_model(other, str(Path(folder) / "model.safetensors"))
    before, after = model(batch), other(batch)
    changes = [float((before[name] - after[name]).detach().abs().max()) for name in before]
    return [Outcome("change of outputs", max(changes), 0)]


def tracing(subject: Subject) -> list[Outcome]:
    """The evaluation becomes one graph of plain operations, right for other sizes than it was traced at.

    That is what `torch.compile` needs to train on forces. Recorded: a model that cannot be traced trains uncompiled.
    """
    model, batch = subject.potential(), molecules(np.random.default_rng(7))
    first = model.geometry(type(batch).from_data_list([batch[k] for k in range(4)]))
    other = model.geometry(batch)
    try:
        graph = trace(model.train(), first)
        found = graph(*other)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return [Outcome("traced against eager", float("inf"), None, f"cannot be traced: {error}".splitlines()[0])]
    expected = model.evaluate(Geometry(*other))
    return [
        Outcome("outputs, traced against eager", relative(_flat(found), _flat(expected)), 1e-9),
        Outcome(
            "gradients of weights, traced against eager",
            relative(*(_weight_gradients(model, outputs) for outputs in (found, expected))),
            1e-9,
        ),
    ]


def _flat(outputs: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in outputs if value is not None])


def _weight_gradients(model: Potential, outputs: Iterable[Tensor | None]) -> Tensor:
    """Of a sum of squares, so that weights are reached through every output, forces included."""
    loss = torch.stack([value.square().sum() for value in outputs if value is not None]).sum()
    weights = list(model.parameters())
    return _flat(torch.autograd.grad(loss, weights, materialize_grads=True))


def sizes(subject: Subject) -> list[Outcome]:
    """Sizes are named by their parameters, grow in parameters and in work, and span two and a half decades.

    Models of time series are named by the parameters of their body; of a single size there is nothing to compare.
    """
    if len(subject.architecture.SIZES) == 1:  # type: ignore[attr-defined]
        return [Outcome("sizes", 1, None, "nothing to compare")]
    counts, flops = {}, []
    counted = int("series" in registry.domains(subject.architecture))
    for size, preset in subject.architecture.SIZES.items():  # type: ignore[attr-defined]
        model, batch = Subject(subject.architecture, preset).example(np.random.default_rng(8))
        counts[size] = parameter_counts(model)[counted]
        flops.append(forward_flops(model, batch))
    named = [float(size.replace("k", "e3").replace("M", "e6")) for size in counts]
    off = max(max(count / name, name / count) for count, name in zip(counts.values(), named, strict=True))
    spanned = np.log10(max(counts.values()) / min(counts.values()))
    return [
        Outcome("parameters against the size's name (ratio)", off, NAMED_WITHIN),
        Outcome(f"decades short of {DECADES:g}", max(0.0, DECADES - spanned), 0, f"spans {spanned:.2f}"),
        Outcome("sizes whose parameters do not grow", _not_above(list(counts.values())), 0),
        Outcome("sizes whose FLOPs do not grow", _not_above(flops), 0),
    ]


def _not_above(values: list[int]) -> int:
    return sum(b <= a for a, b in pairwise(values))
