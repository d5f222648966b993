"""The LightningModule for merger trees: parameters of their universe, or mergers that a coarser tree left out."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from scisci.data.module import StoreDataModule
from scisci.data.statistics import NODE_FEATURES, PointStatistics, tree_statistics
from scisci.data.store import Store
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.cloud import Target
from scisci.models.tree import INPUTS, Tree
from scisci.tasks.base import Task
from scisci.tasks.metrics import PARAMETERS, infilling_errors, parameter_errors


class TreeTask(Task):
    """Train a model on merger trees.

    With the target "parameters" it predicts Omega_m and sigma_8 from a tree, read off the mean over its nodes and its
    root; the loss is the mean squared error in units of the parameters' variance in the training subset. With the
    target "infilling" it tells at each virtual node, beside a merger, whether another merger was left out there (Huang
    et al., arXiv:2507.03707); the loss is the cross-entropy over the virtual nodes of a batch. AdamW; the learning rate
    rises over the warm-up and falls to zero at the last step.

    Args:
        architecture: gin, deepsets or another that is for trees.
        size: one of the architecture's sizes, named by their approximate number of parameters.
        overrides: options of the architecture that differ from the size's preset.
        target: what is predicted.
        symmetry_treatment: only "none": trees have no positions that could be turned.
        learning_rate: highest learning rate of AdamW.
        parametrization: only "standard".
        schedule: how the rate changes after the warm-up; "cosine" and "linear" end at zero.
        warmup: share of the steps over which the rate rises.
        weight_decay: decoupled weight decay.
        symmetry_samples: samples per split on which symmetry errors are measured; 0 for none.
    """

    name = "trees"
    domain = "tree"
    statistics_type = PointStatistics
    groups = ("permutation",)

    model: Tree

    def __init__(
        self,
        architecture: str = "gin",
        size: str = "30k",
        overrides: dict[str, Any] | None = None,
        target: Literal["parameters", "infilling"] = "parameters",
        symmetry_treatment: Literal["none"] = "none",
        learning_rate: float = 0.003,
        parametrization: Literal["standard"] = "standard",
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.1,
        weight_decay: float = 0.0,
        symmetry_samples: int = 4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        infilling = target == "infilling"
        self.targets = ("infilling",) if infilling else PARAMETERS
        self.errors = infilling_errors if infilling else parameter_errors  # type: ignore[method-assign]
        self.headline = "infilling_accuracy" if infilling else "omega_m_r2"
        self.compared = {name: name for name in self.targets}
        self.predicted = dict.fromkeys(self.targets, "point" if infilling else "system")
        self.begin()

    @classmethod
    def inputs(cls, store: Store) -> Inputs:
        """Features of halos."""
        return INPUTS

    def measure(self, data: StoreDataModule) -> PointStatistics:
        """Typical features and parameters of the training subset."""
        data.require(self.domain)
        labels = ("label",) if "infilling" in self.targets else self.targets
        return tree_statistics(data.store, data.train_indices(), labels)

    def build(self, statistics: PointStatistics) -> None:
        """Make the model for data with these statistics; initialised from torch's current random state."""
        self.statistics = statistics
        scales, offsets = statistics.scales, statistics.offsets
        targets = tuple(
            Target(name, "scalar" if name == "infilling" else "system", scales.get(name, 1.0), offsets.get(name, 0.0))
            for name in self.targets
        )
        backbone = registry.build(
            self.hparams["architecture"], INPUTS, statistics.average_neighbors, vector_output=False, **self.options
        )
        self.model = Tree(
            backbone,
            tuple(offsets[name] for name in NODE_FEATURES),
            tuple(scales[name] for name in NODE_FEATURES),
            targets,
        )

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """The training loss of one batch."""
        if "infilling" in self.targets:
            virtual = batch.label >= 0
            odds, labels = outputs["infilling"][virtual], batch.label[virtual].to(outputs["infilling"].dtype)
            # A batch of trees without mergers teaches nothing, but is no error.
            loss = binary_cross_entropy_with_logits(odds, labels, reduction="sum") / max(1, len(labels))
            return self.batch_weights.points * loss
        scales = self.statistics.scales
        parts = [((outputs[name] - batch[name]) / scales[name]).square().mean() for name in self.targets]
        return self.batch_weights.systems * torch.stack(parts).mean()

    def constant(self, outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """The training subset's mean parameters, or even odds."""
        return {name: torch.full_like(outputs[name], self.statistics.offsets.get(name, 0.0)) for name in self.targets}
