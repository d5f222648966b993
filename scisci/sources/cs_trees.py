"""CosmoBench's released merger trees: a list of PyTorch Geometric's `Data` in a `.pt` file, which is a pickle.

It is read by torch's weights-only unpickler, which makes tensors, arrays and the four classes listed here, and refuses
everything else without running it. Huang et al., arXiv:2507.03707: `x` is log10 of mass, concentration and vmax, and
the scale factor; `edge_index` goes from child to parent. In the trees for in-filling `label` and `vn_mask` tell virtual
nodes, which come last, and `x_mean_excl_time` and `x_std_excl_time` undo the standardisation of the first three.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data.data import Data, DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from scisci.contracts.errors import UserError
from scisci.data.samples import TreeSample
from scisci.data.trees import tree_edges
from scisci.sources.conformers import chosen
from scisci.sources.frames import DAMAGE, BadFrame, Counted, Frame, checked, undamaged
from scisci.sources.merger_trees import LABELS, parents

_make_array = np.empty(0).__reduce__()[0]
SAFE: list[Any] = [
    *(Data, DataEdgeAttr, DataTensorAttr, GlobalStorage),
    *(np.ndarray, np.dtype, type(np.dtype(np.int64))),
    # numpy renamed the module of this function in version 2.
    *((_make_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]


def read_cs_trees(path: Path | str, keys: Mapping[str, str] | None = None) -> Counted:
    """Read a file of trees, with the simulation as group and the uid of the root as metadata.

    Tensors stay on disk until they are used. `keys` can map `main_branch` to `none`. A file with anything but tensors,
    arrays and `Data` is a `UserError`.
    """
    path, main_branch = Path(path), "main_branch" in chosen(LABELS, keys or {})
    trees = _load(path)
    frames = (_frame(data, f"tree {k} of {path}", main_branch) for k, data in enumerate(trees))
    return Counted(undamaged(frames, path, "tree"), len(trees))


def _load(path: Path) -> list[Data]:
    try:
        with torch.serialization.safe_globals(SAFE):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds other objects than PyTorch Geometric's Data, and loading those could run any code; it was"
            " not loaded; get the file again"
        ) from error
    except (RuntimeError, *DAMAGE) as error:
        raise UserError(f"{path} is not a whole .pt file ({error}); get it again") from error
    if not isinstance(found, list) or not all(isinstance(data, Data) for data in found):
        raise UserError(f"{path} does not hold a list of Data, one per tree; give one of CosmoBench's tree files")
    return found


def _frame(data: Data, where: str, main_branch: bool) -> Frame | BadFrame:
    entries: dict[str, Any] = data.to_dict()
    features, edges = _array(entries, "x", where).astype(np.float64), _array(entries, "edge_index", where).T
    parameters, simulation = _array(entries, "y", where), int(_array(entries, "lh_id", where))
    names = _array(entries, "node_halo_id", where).ravel()
    if features.ndim != 2 or features.shape[1] != 4 or parameters.size != 2 or not len(names):
        raise UserError(f"{where} has x of shape {features.shape} and y of {parameters.shape}; not CosmoBench's trees")
    label = None
    if "label" in entries:
        label = _array(entries, "label", where)
        if np.shape(label) != (len(features),):
            return BadFrame(where, f"label has shape {label.shape} for {len(features)} nodes")
        features[:, :3] *= _array(entries, "x_std_excl_time", where)
        features[:, :3] += _array(entries, "x_mean_excl_time", where)
    parent = parents(edges, len(features)) if label is None else _infilled(edges, features[:, 3], label >= 0)
    if isinstance(parent, str):
        return BadFrame(where, parent)
    main = None
    if main_branch:
        main = np.zeros(len(features), dtype=bool)
        main[: len(names)] = np.isin(names, _array(entries, "mask_main", where))
    omega_m, sigma_8 = parameters.ravel().tolist()
    sample = TreeSample(features, parent, main, label, omega_m, sigma_8)
    return checked(Frame(where, sample, f"LH_{simulation}", {"root": int(names[0])}))


def _infilled(edges: np.ndarray, scale: np.ndarray, virtual: np.ndarray) -> np.ndarray | str:
    """[N] parents of a tree with virtual nodes, or what is wrong with it: see `tree_edges` for what it must be."""
    halos = int((~virtual).sum())
    if virtual[:halos].any():
        return "virtual nodes do not come after all halos"
    into = virtual[edges[:, 1]]
    parent = parents(edges[~into], halos)
    if isinstance(parent, str):
        return parent
    parent = np.concatenate([parent, np.full(len(virtual) - halos, -1)])
    # A merger is later than its progenitors, so the last to be written is the one that stays.
    order = np.argsort(scale[edges[into, 0]], kind="stable")
    child, node = edges[into][order].T
    parent[node] = child
    expected = tree_edges(parent, virtual)
    if expected.shape != edges.T.shape or not np.array_equal(_sorted(expected), _sorted(edges.T)):
        return "the edges of its virtual nodes are not from a merger and its progenitors"
    return parent


def _sorted(edges: np.ndarray) -> np.ndarray:
    return edges[:, np.lexsort(edges)]


def _array(entries: Mapping[str, Any], name: str, where: str) -> np.ndarray:
    if name not in entries:
        raise UserError(f"{where} has no {name}; it has {', '.join(map(str, entries))}; get the file again")
    values = np.asarray(entries[name])
    if values.dtype.kind not in "biuf":
        raise UserError(f"{where} has {values.dtype} under {name}, where numbers are needed; get the file again")
    return values
