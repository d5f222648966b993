"""Claims of symmetry, measured: on energies and forces of molecules, and on outputs of point clouds."""

from __future__ import annotations

import numpy as np
import torch

from scisci.models import registry
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.conformance.subject import PARAMETER, Outcome, Subject, relative
from scisci.models.conformance.systems import batch_of, boxes, molecules
from scisci.symmetry.actions import ACTIONS, random_rotations
from scisci.symmetry.measure import symmetry_errors
from scisci.symmetry.series import SERIES

EXACT = 1e-10
CLAIMS = ("exact", "approximate", "learned", "none")


def claims(subject: Subject) -> list[Outcome]:
    """Every symmetry group has a claim, and each claim is one of the four words."""
    groups = SERIES if "series" in registry.domains(subject.architecture) else ACTIONS
    wrong = set(subject.symmetry) ^ set(groups) | {g for g, c in subject.symmetry.items() if c not in CLAIMS}
    return [Outcome("groups without a valid claim", len(wrong), 0, ", ".join(sorted(wrong)))]


def symmetry(subject: Subject) -> list[Outcome]:
    """Relative equivariance errors per group: bounded where the claim is exact, recorded otherwise."""
    errors = symmetry_errors(subject.potential(), [molecules(np.random.default_rng(0))])
    found = []
    for group, claim in subject.symmetry.items():
        worst = max(errors[f"symmetry_{group}_{quantity}"].value for quantity in ("energy", "forces"))
        found.append(Outcome(f"{group} error", worst, EXACT if claim == "exact" else None, f"claimed: {claim}"))
    return found


def clouds(subject: Subject) -> list[Outcome]:
    """Points with scalars and vectors of their own, in place of elements: outputs turn with the cloud."""
    rng = np.random.default_rng(1)
    inputs = Inputs(scalars=2, vectors=2)
    backbone = subject.backbone(inputs).eval()
    batch = batch_of(*((np.ones(n), rng.uniform(-2, 2, (n, 3))) for n in (1, 5, 9)))
    scalars = torch.from_numpy(rng.normal(size=(15, 2)))
    vectors = torch.from_numpy(rng.normal(size=(15, 3, 2)))
    senders, receivers = batch.edge_index
    edges = batch.pos[senders] - batch.pos[receivers]

    def graph(by: torch.Tensor) -> Graph:
        turned = edges @ by.T
        kind = torch.zeros(15, dtype=torch.int64)
        lengths = torch.linalg.vector_norm(turned, dim=1)
        own = torch.einsum("ij,njv->niv", by, vectors)
        place = batch.pos @ by.T if getattr(backbone, "reads_positions", False) else None
        return Graph(kind, senders, receivers, turned, lengths, scalars, own, batch.batch, batch.ptr, place)

    backbone.requires_grad_(False)
    plain = backbone(graph(torch.eye(3, dtype=torch.float64)))
    outputs = [plain.scalars] if plain.vectors is None else [plain.scalars, plain.vectors]
    found = [Outcome("outputs that are not finite", sum(int((~torch.isfinite(o)).sum()) for o in outputs), 0)]
    rotation = random_rotations(1, rng)[0]
    errors = in_boxes(subject)
    for group, by in (("rotation", rotation), ("reflection", -rotation)):
        acted = backbone(graph(by))
        errors[group] = relative(acted.scalars, plain.scalars)
        if plain.vectors is not None:
            error = relative(acted.vectors, torch.einsum("ij,njc->nic", by, plain.vectors))
            errors[group] = max(errors[group], error)
    for group, error in errors.items():
        claim = subject.symmetry[group]
        found.append(Outcome(f"{group} error", error, EXACT if claim == "exact" else None, f"claimed: {claim}"))
    return found


def in_boxes(subject: Subject) -> dict[str, float]:
    """Errors of a parameter of periodic clouds that are moved or whose points are reordered."""
    groups, name = ("translation", "permutation"), PARAMETER.name
    with torch.no_grad():
        found = symmetry_errors(
            subject.cloud(), [boxes(np.random.default_rng(2))], groups=groups, quantities={name: name}
        )
    return {group: found[f"symmetry_{group}_{name}"].value for group in groups}
