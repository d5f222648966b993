"""What a loader worker sends: a batch in one piece, since every tensor sent alone costs as much as collating it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Batch

from scisci.data.batch import assemble

# Less than this goes through a pipe faster than shared memory is set up.
PIPED_BYTES = 2**19
ALIGNMENT = 8

Table = dict[str, tuple[str, tuple[int, ...], int]]


class Parcel:
    """A batch that leaves one process in a single piece of memory and arrives in another as the batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __reduce__(self) -> tuple[Callable, tuple[Any, ...]]:
        arrays = {name: tensor.numpy() for name, tensor in self.batch.to_dict().items()}
        table: Table = {}
        size = 0
        for name, array in arrays.items():
            table[name] = array.dtype.str, array.shape, size
            size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        content = torch.empty(size, dtype=torch.uint8)
        for name, view in _views(table, content.numpy()).items():
            view[...] = arrays[name]
        return _arrived, (table, content.numpy().tobytes() if size <= PIPED_BYTES else content)


def _views(table: Table, content: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.ndarray(shape, dtype, content, offset) for name, (dtype, shape, offset) in table.items()}


def _arrived(table: Table, content: bytes | torch.Tensor) -> Batch:
    memory = content.numpy() if isinstance(content, torch.Tensor) else np.frombuffer(bytearray(content), np.uint8)
    return assemble({name: torch.from_numpy(view) for name, view in _views(table, memory).items()})
