"""Clouds of equally many points: the heaviest of each, so that how many there are says nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scisci.contracts.errors import UserError
from scisci.data.batch import PER_POINT, assemble
from scisci.data.store import Store


def heaviest(batch: Any, count: int) -> Any:
    """The batch with at most the `count` heaviest points of every cloud, in stored order, and edges between them."""
    if "masses" not in batch:
        raise UserError("the data set has no masses, by which the heaviest points are chosen; leave heaviest out")
    order = torch.argsort(batch.masses, descending=True, stable=True)
    order = order[torch.argsort(batch.batch[order], stable=True)]
    rank = torch.arange(len(order), device=order.device) - batch.ptr[batch.batch]
    kept = torch.zeros_like(batch.batch, dtype=torch.bool)
    kept[order[rank < count]] = True
    tensors = {name: value[kept] if name in PER_POINT else value for name, value in batch.to_dict().items()}
    tensors["batch"] = batch.batch[kept]
    tensors["ptr"] = torch.cat([batch.ptr[:1], (batch.ptr[1:] - batch.ptr[:-1]).clamp(max=count).cumsum(0)])
    if "edge_index" in batch:
        joined = kept[batch.edge_index].all(dim=0)
        tensors["edge_index"] = (kept.cumsum(0) - 1)[batch.edge_index[:, joined]]
        tensors["edge_shift"] = batch.edge_shift[joined]
        tensors["edge_ptr"] = torch.searchsorted(tensors["edge_index"][1].contiguous(), tensors["ptr"])
    return assemble(tensors)


def check_heaviest(store: Store, indices: np.ndarray, count: int) -> None:
    """`UserError` unless each of the clouds at `indices` has at least `count` points."""
    clouds = store.take(indices)
    if count < 1 or count > clouds.lengths.min():
        raise UserError(
            f"heaviest is {count}, but the training clouds have from {clouds.lengths.min()} to {clouds.lengths.max()}"
            f" points; give a number from 1 to {clouds.lengths.min()}, so that all have equally many"
        )
