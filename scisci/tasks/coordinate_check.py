"""The coordinate check: does what a layer gives change as much per step in a wide model as in a narrow one?

Yang et al., "Tensor Programs V" (2022, arXiv:2203.03466), appendix D.1. If it does, one learning rate suits all widths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scisci.contracts.errors import UserError
from scisci.contracts.run import Parametrization
from scisci.data.module import StoreDataModule
from scisci.models import registry, width
from scisci.tasks.base import Task
from scisci.tasks.domains import task_for

SYSTEMS = 8
"""How many systems the one batch has that all models are trained on."""
STATISTICS = 256
"""Training samples whose statistics the models are built for."""


def widened(architecture: str, channels: int) -> dict[str, int]:
    """All widths of an architecture in the proportions of the reference, the first of them as given."""
    defaults = {name: registry.default(architecture, name) for name in width.widths(architecture)}
    first = next(iter(defaults.values()))
    return {name: max(1, round(default * channels / first)) for name, default in defaults.items()}


def exponents(
    architecture: str,
    dataset: str,
    parametrization: Parametrization,
    widths: Sequence[int] = (16, 32, 64, 128),
    steps: int = 4,
    seeds: int = 3,
    overrides: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By which power of the width the change of each layer's output after 1 to `steps` steps of AdamW grows.

    Returns exponents [steps], means over seeds, and their standard errors, by layer, in the order of the forward pass.
    The change is the root mean square of the difference to the output before the first step. All models are trained on
    one batch of a data set, at the constant learning rate of the task or that in `options` of it. `overrides` are
    options of the architecture in place of its defaults and of `widths`, which stand for the first of its widths; the
    others grow in proportion. `UserError` where there is nothing to compare.
    """
    if len(set(widths)) < 2 or min(widths) < 1:
        raise UserError("a coordinate check compares two widths or more; give several --widths, all of 1 or more")
    if steps < 1 or seeds < 2:
        raise UserError(
            "a coordinate check takes a step or more with each of two seeds or more; raise --steps or --seeds"
        )
    data = StoreDataModule(dataset)
    data.train_samples = min(STATISTICS, len(data.store.split("train")))
    task, size = task_for(data.store.domain), next(iter(registry.load(architecture).SIZES))
    defaults = {name: registry.default(architecture, name) for name in registry.options(architecture, size)}
    found: dict[str, np.ndarray] = {}
    for at, channels in enumerate(widths):
        chosen = defaults | widened(architecture, channels) | (overrides or {})
        for seed in range(seeds):
            torch.manual_seed(seed)
            made = task(architecture, size, chosen, parametrization=parametrization, **options)
            made.prepare(data)
            for layer, change in changes(made, _batch(made, data), steps).items():
                found.setdefault(layer, np.zeros((seeds, len(widths), steps)))[seed, at] = change
    # What no step changes has no exponent.
    return {layer: _slopes(np.log(change), np.log(widths)) for layer, change in found.items() if change.all()}


def _batch(task: Task, data: StoreDataModule) -> Any:
    return task.collate(data.store, data.train_indices()[:SYSTEMS])


def _slopes(changes: np.ndarray, log_widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slopes of log changes [seeds, widths, steps]: mean over seeds [steps] and its standard error."""
    centred = log_widths - log_widths.mean()
    slopes = np.einsum("w,swt->st", centred, changes) / np.square(centred).sum()
    return slopes.mean(axis=0), slopes.std(axis=0, ddof=1) / np.sqrt(len(slopes))


def changes(task: Task, batch: Any, steps: int) -> dict[str, list[float]]:
    """Root mean square change of every layer's output after 1 to `steps` steps on a batch."""
    optimizer = task.optimizer()
    before: dict[str, Tensor] = {}
    found: dict[str, list[float]] = {}
    task.train()
    for step in range(steps + 1):
        with _seen(task.model) as seen:
            outputs = task.model(batch)
        seen |= {f"output {name}": outputs[name].detach() for name in task.compared.values()}
        if step == 0:
            before = seen
        else:
            for name, values in seen.items():
                found.setdefault(name, []).append(float((values - before[name]).square().mean().sqrt()))
        if step < steps:
            optimizer.zero_grad()
            task.loss(outputs, batch).backward()
            optimizer.step()
    return found


def layers(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model that hold parameters: those of its backbone, with every block of a list, and its heads."""
    for name, child in model.named_children():
        inner = f"{path}.{name}".removeprefix(".")
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)) or name == "backbone" or hasattr(child, "backbone"):
            yield from layers(child, inner)
        elif any(True for _ in child.parameters()):
            yield inner, child


@contextmanager
def _seen(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What each layer returns within the block, tuples part by part."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, returned: Any) -> None:
        if isinstance(returned, Tensor):
            seen[name] = returned.detach()
        elif isinstance(returned, Iterable):
            for number, part in enumerate(returned):
                keep(f"{name} ({number + 1})", part)

    def hook(name: str) -> Any:
        return lambda _module, _inputs, returned: keep(name, returned)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers(model)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
