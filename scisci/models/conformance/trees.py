"""What a model of merger trees must satisfy: the order of halos means nothing, nor do other trees of the batch."""

from __future__ import annotations

import numpy as np
import torch

from scisci.models.cloud import Target
from scisci.models.conformance.subject import PARAMETER, Outcome, Subject
from scisci.models.conformance.symmetry import EXACT
from scisci.models.conformance.systems import merger_trees
from scisci.symmetry.measure import symmetry_errors

TARGETS = (PARAMETER, Target("infilling", "scalar"))


def nodes(subject: Subject) -> list[Outcome]:
    """Outputs follow nodes that are reordered; a tree alone gives what it gives in a batch; gradients are finite."""
    model, batch = subject.tree(*TARGETS), merger_trees(np.random.default_rng(9))
    names = {target.name: target.name for target in TARGETS}
    with torch.no_grad():
        errors = symmetry_errors(model, [batch], groups=("permutation",), quantities=names)
        together, alone = model(batch), [model(type(batch).from_data_list([batch[k]])) for k in range(len(batch))]
    apart = max(float((torch.cat([one[name] for one in alone]) - together[name]).abs().max()) for name in names)
    sum(values.square().sum() for values in model(batch).values()).backward()
    broken = sum(int((~torch.isfinite(p.grad)).sum()) for p in model.parameters() if p.grad is not None)
    claim = subject.symmetry["permutation"]
    bound = EXACT if claim == "exact" else None
    return [
        *(Outcome(f"permutation error, {name}", errors[f"symmetry_permutation_{name}"].value, bound) for name in names),
        Outcome("alone against batched", apart, EXACT),
        Outcome("gradients that are not finite", broken, 0),
    ]
