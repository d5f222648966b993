"""What is checked, and what a check found."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.cloud import Cloud, Target, inputs_of
from scisci.models.conformance.systems import (
    CONTEXT,
    ELEMENTS,
    HORIZON,
    boxes,
    merger_trees,
    molecules,
    time_series,
)
from scisci.models.potential import Potential
from scisci.models.tree import INPUTS, Tree

AVERAGE_NEIGHBORS = 7.0
PARAMETER = Target("omega_m", "system", 0.1, 0.3)
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Subject:
    """A backbone class with options, and how forces come about."""

    architecture: type[nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    forces: Literal["gradient", "direct"] = "gradient"

    def backbone(self, inputs: Inputs, **options: Any) -> nn.Module:
        """Built in float32 with fixed initial weights, then turned to float64, as when a trained model is measured."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                made = self.architecture(
                    inputs=inputs, average_neighbors=AVERAGE_NEIGHBORS, **{**self.options, **options}
                )
        finally:
            torch.set_default_dtype(before)
        return made.double()

    def potential(self, **options: Any) -> Potential:
        """A potential in float64, in evaluation mode, with references and a scale that are not 0 and 1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            if self.forces == "gradient" and "vector_output" in inspect.signature(self.architecture).parameters:
                options = {"vector_output": False, **options}
            backbone = self.backbone(Inputs(ELEMENTS), **options)
            return Potential(backbone, (-1.0, -2.0, -3.0, -4.0), 0.7, self.forces).double().eval()

    def cloud(self) -> Cloud:
        """A model of the parameters of clouds, in float64, in evaluation mode."""
        return self._made(lambda: Cloud(self.backbone(inputs_of(())), (), (PARAMETER,)))

    def tree(self, *targets: Target) -> Tree:
        """A model of merger trees, in float64, in evaluation mode."""
        return self._made(
            lambda: Tree(self.backbone(INPUTS), (12.0, 1.0, 2.0, 0.5), (0.5, 0.2, 0.1, 0.2), targets or (PARAMETER,))
        )

    def forecaster(self) -> nn.Module:
        """A model of time series, in float64, in evaluation mode."""
        return self._made(lambda: self.architecture(context=CONTEXT, horizon=HORIZON, **self.options))

    def example(self, rng: np.random.Generator) -> tuple[nn.Module, Any]:
        """A model for the first of the domains that the architecture is for, and a batch for it."""
        domains = registry.domains(self.architecture)
        if "atoms" in domains:
            return self.potential(), molecules(rng)
        if "series" in domains:
            return self.forecaster(), time_series(rng)
        return (self.cloud(), boxes(rng)) if "cloud" in domains else (self.tree(), merger_trees(rng))

    @staticmethod
    def _made(make: Callable[[], M]) -> M:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            return make().double().eval()

    @property
    def symmetry(self) -> dict[str, str]:
        """What the model claims with these options, by symmetry group."""
        series = "series" in registry.domains(self.architecture)
        return dict((self.forecaster() if series else self.backbone(Inputs(ELEMENTS))).symmetry)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Outcome:
    """A figure that a check measured, the bound it must stay below (None: recorded only), and what it means."""

    what: str
    value: float
    bound: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure is a number below its bound."""
        return self.bound is None or self.value <= self.bound


Check = Callable[[Subject], list[Outcome]]


def relative(found: Tensor, expected: Tensor) -> float:
    """Size of the difference over the size of what is expected."""
    return float((found - expected).norm() / expected.norm())
