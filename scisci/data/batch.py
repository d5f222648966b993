"""Graph batches, built straight from ragged slices.

A batch is a `torch_geometric.data.Batch` with these tensors (N atoms or points, E edges, B systems):

    pos         [N, 3]     float32  in the domain's unit of length
    batch       [N]        int64    the system each point belongs to
    ptr         [B + 1]    int64    where each system's points begin
    edge_index  [2, E]     int64    sender, receiver; sorted by receiver
    edge_shift  [E, 3]     float32  edge vector = pos[sender] + edge_shift - pos[receiver]
    edge_ptr    [B + 1]    int64    where each system's edges begin; no edge_... where the cutoff is 0
    group       [B]        int64    molecule, simulation or series
    dataset     [B]        int64    of data sets that were combined, the one each system is of
    cell        [B, 3, 3]  float32  and pbc [B, 3] bool, for periodic systems; a cloud's box is its diagonal cell

and those that the store has of its domain's own (units: `scisci.data.samples`):

    atoms       numbers [N] int64; energy [B] float64, forces [N, 3], stress [B, 3, 3]
    cloud       velocities [N, 3], masses [N]; omega_m [B], sigma_8 [B]
    tree        node_features [N, 4], main_branch [N] bool, label [N] int64; omega_m [B], sigma_8 [B]
    particles   velocities [N, 3], charges [N]; target_positions [N, 3]

A tree has no pos and no edge_shift, and its edges, from child to parent, do not depend on the cutoff.
"""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from torch_geometric.data import Batch, Data

from scisci.contracts.errors import UserError
from scisci.data.neighbors import neighbors
from scisci.data.ragged import Ragged
from scisci.data.trees import ragged_edges

FLOAT64 = {"energy"}
PER_POINT = (
    *("numbers", "pos", "forces", "velocities", "masses", "charges", "target_positions"),
    *("node_features", "main_branch", "label"),
)
PER_SYSTEM = ("energy", "stress", "cell", "pbc", "omega_m", "sigma_8", "group", "dataset")
EMPTY = Batch(_base_cls=Data)
# The atomic numbers that a model knows: in all data sets, or in each of those it was trained on.
Elements = frozenset[int] | tuple[frozenset[int], ...]


def _tensor(name: str, array: np.ndarray, dtype: type = np.float32) -> torch.Tensor:
    if array.dtype.kind in "iu":
        array = array.astype(np.int64)
    elif array.dtype.kind == "f":
        array = array.astype(np.float64 if name in FLOAT64 else dtype)
    return torch.from_numpy(array)


def _check_elements(ragged: Ragged, elements: Elements) -> None:
    numbers = ragged.items.get("numbers")
    if numbers is None:
        raise UserError("the data holds no atoms, which the model was trained on; choose another data set")
    if isinstance(elements, tuple):
        of = np.repeat(ragged.samples["dataset"], ragged.lengths)
        for dataset, known in enumerate(elements):
            _check_known(numbers[of == dataset], known)
    else:
        _check_known(numbers, elements)


def _check_known(numbers: np.ndarray, elements: frozenset[int]) -> None:
    if strange := set(np.flatnonzero(np.bincount(numbers)).tolist()) - elements:
        raise UserError(
            f"the data holds atomic numbers {sorted(strange)}, but the model was trained on {sorted(elements)} only;"
            " choose a split or a data set without them"
        )


def graph_batch(ragged: Ragged, cutoff: float, elements: Elements | None = None, dtype: type = np.float32) -> Batch:
    """Collate samples of any domain of points or trees into one graph batch with neighbours within `cutoff`.

    `cutoff` is in the domain's unit of length; `math.inf` joins all pairs of an isolated system, 0 makes a batch
    without edges. `elements`: the atomic numbers a model knows, or knows in each data set; another one is a `UserError`
    that names it. `dtype` is that of what the table above has in float32.
    """
    if elements is not None:
        _check_elements(ragged, elements)
    columns = {**ragged.items, **ragged.samples}
    if "positions" in columns:
        columns["pos"] = columns.pop("positions")
    if "box" in columns:
        columns["cell"] = columns["box"][:, :, None] * np.eye(3)
        columns["pbc"] = np.ones((len(ragged), 3), dtype=bool)
    ptr = ragged.offsets.astype(np.int64)
    tensors = {name: _tensor(name, columns[name], dtype) for name in (*PER_POINT, *PER_SYSTEM) if name in columns}
    tensors["batch"] = torch.from_numpy(np.repeat(np.arange(len(ragged)), ragged.lengths))
    tensors["ptr"] = torch.from_numpy(ptr)
    if "parent" in columns:
        _add_edges(tensors, ragged_edges(ragged))
    elif cutoff:
        edge_index, edge_shift = neighbors(columns["pos"], ptr, cutoff, columns.get("cell"), columns.get("pbc"))
        _add_edges(tensors, edge_index)
        tensors["edge_shift"] = _tensor("edge_shift", edge_shift, dtype)
    return assemble(tensors)


def _add_edges(tensors: dict[str, torch.Tensor], edge_index: np.ndarray) -> None:
    tensors["edge_index"] = torch.from_numpy(edge_index)
    tensors["edge_ptr"] = torch.from_numpy(np.searchsorted(edge_index[1], tensors["ptr"].numpy()))


def first_systems(batch: Batch, count: int) -> Batch:
    """A batch of the first `count` systems of `batch`."""
    count = min(count, batch.num_graphs)
    if count == batch.num_graphs:
        return batch
    if "past" in batch:
        return assemble({name: value[: count + (name == "ptr")] for name, value in batch.to_dict().items()})
    return Batch.from_data_list([batch[i] for i in range(count)])


def assemble(tensors: dict[str, torch.Tensor]) -> Batch:
    """A batch of these tensors, named as in the table above."""
    batch, ptr = copy(EMPTY), tensors["ptr"]
    systems = range(len(ptr))
    rows = dict.fromkeys(PER_POINT, ptr) | dict.fromkeys(("edge_index", "edge_shift"), tensors.get("edge_ptr"))
    # Setting attributes one by one takes longer than all the rest of collation.
    batch._store._mapping.update(tensors)
    # What PyG needs to hand out single systems again (`batch[i]`, `batch.to_data_list()`).
    batch._store.__dict__.update(
        _num_graphs=len(systems) - 1,
        _slice_dict={name: rows.get(name, systems) for name in tensors if name not in ("batch", "ptr", "edge_ptr")},
        _inc_dict=dict.fromkeys(tensors) | {"edge_index": ptr},
    )
    return batch
