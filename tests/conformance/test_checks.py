"""The checks see what is broken: each model below has one fault, and one check or more must name it."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from scisci.models.blocks.graph import Features, Graph
from scisci.models.conformance import CHECKS, Subject, checks_for
from scisci.models.mpnn import MPNN


class Distances(MPNN):
    """Sound: an invariant network, since it sees (|r|, 0, 0) for every edge vector r."""

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {"3k": {"channels": 10, "layers": 2}, "1M": MPNN.SIZES["1M"]}

    def forward(self, graph: Graph) -> Features:
        along = torch.stack([graph.lengths, torch.zeros_like(graph.lengths), torch.zeros_like(graph.lengths)], dim=1)
        products = (
            None if graph.node_vectors is None else graph.node_vectors.square().sum(1, keepdim=True).expand(-1, 3, -1)
        )
        return super().forward(graph._replace(vectors=along, node_vectors=products))


class FalseClaim(MPNN):
    """Claims a symmetry that raw components do not have."""

    symmetry = Distances.symmetry


class Vague(Distances):
    symmetry: ClassVar[dict[str, str]] = {"rotation": "mostly"}


class CosineCutoff(Distances):
    """The cosine cutoff of SchNet: its curvature jumps at the cutoff."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.envelope = Cosine(self.cutoff)
        self.edge_features.basis.envelope = Flat()  # type: ignore[assignment]


class Cosine(nn.Module):
    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, lengths: Tensor) -> Tensor:
        return 0.5 * (torch.cos(torch.pi * lengths / self.cutoff) + 1)


class Flat(nn.Module):
    def forward(self, lengths: Tensor) -> Tensor:
        return torch.ones_like(lengths)


class NoEnvelope(Distances):
    """Messages end abruptly."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.envelope, self.edge_features.basis.envelope = Flat(), Flat()  # type: ignore[assignment]


class WholeBatch(Distances):
    """Normalises over all atoms of the batch."""

    def forward(self, graph: Graph) -> Features:
        scalars = super().forward(graph).scalars
        return Features(scalars - scalars.mean(0), None)


class Detached(Distances):
    """Cuts part of the gradient."""

    def forward(self, graph: Graph) -> Features:
        cut = super().forward(graph._replace(lengths=graph.lengths.detach())).scalars
        return Features(super().forward(graph).scalars + cut, None)


class Singular(Distances):
    """Divides by what is zero for symmetric environments."""

    def forward(self, graph: Graph) -> Features:
        scalars = super().forward(graph).scalars
        centre = torch.zeros(len(scalars), 3, dtype=scalars.dtype).index_add(0, graph.receivers, graph.vectors)
        return Features(scalars * centre.square().sum(1, keepdim=True).sqrt(), None)


class Unsaved(Distances):
    """Keeps random numbers that its weights file does not hold."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.shift = torch.rand(1, generator=torch.Generator().manual_seed(torch.seed() % 2**31))

    def forward(self, graph: Graph) -> Features:
        return Features(super().forward(graph).scalars * (1 + self.shift), None)


class OddSizes(Distances):
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 10, "layers": 2},
        "10k": {"channels": 9, "layers": 2},
    }


def failing(architecture: type[nn.Module]) -> set[str]:
    subject = Subject(architecture, {"channels": 10, "layers": 2})
    return {
        name
        for name, check in checks_for(architecture).items()
        if not all(outcome.passed for outcome in check(subject))
    }


def test_a_sound_model_passes_every_check() -> None:
    assert failing(Distances) == set()


@pytest.mark.parametrize(
    ("architecture", "checks"),
    [
        (FalseClaim, {"symmetry", "clouds"}),
        (CosineCutoff, {"cutoff"}),
        (NoEnvelope, {"cutoff"}),
        (WholeBatch, {"batching", "separation"}),
        (Detached, {"gradient", "stress"}),
        (Singular, {"degenerate"}),
        (Unsaved, {"round_trip"}),
        (OddSizes, {"sizes"}),
    ],
)
def test_a_fault_is_seen(architecture: type[nn.Module], checks: set[str]) -> None:
    assert checks <= failing(architecture)


def test_a_claim_that_is_none_of_the_words_is_named() -> None:
    subject = Subject(Vague, {"channels": 10, "layers": 2})
    (outcome,) = CHECKS["claims"](subject)
    assert not outcome.passed
    assert "rotation" in outcome.note
    assert "reflection" in outcome.note
