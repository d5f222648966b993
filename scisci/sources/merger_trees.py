"""Merger trees as CosmoBench built them: an HDF5 file with a group per simulation, and in it one per tree.

Huang et al., arXiv:2507.03707. `LH_<i>/y` is Omega_m and sigma_8; `LH_<i>/LH_<i>_<uid of the root>` has `node_name`
[N] uids, `node_feats` [N, 14], `edge_index` [N - 1, 2] from a halo to its descendant, and `main_branch`, its uids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.samples import TreeSample
from scisci.sources.conformers import chosen
from scisci.sources.frames import BadFrame, Frame, checked, undamaged
from scisci.sources.hdf5 import opened

LABELS = {"main_branch": "main_branch"}
# Of Mvir, concentration, vmax, spin, scale factor, position, velocity and angular momentum those that are read: the
# ones that the released trees have.
COLUMNS, WIDTH = [0, 1, 2, 4], 14
# Name, place in `COLUMNS` and unit of what no halo has beyond these bounds, if the unit is right.
BOUNDS = (("mass", 0, 1e6, np.inf, "Msun/h"), ("vmax", 2, 0.0, 1e4, "km/s"), ("scale factor", 3, 1e-3, 1.001, "1"))
GROUP = re.compile(r"LH_(\d+)")
TREE = re.compile(r"LH_\d+_(\d+)")


def parents(edges: np.ndarray, nodes: int) -> np.ndarray | str:
    """[nodes] the parent of each node, -1 at the root, or what is wrong with its `edges` [E, 2] child, parent."""
    if edges.shape != (nodes - 1, 2):
        return f"edge_index has shape {edges.shape} for {nodes} nodes, where a tree has one edge fewer than nodes"
    if edges.size and not 0 <= edges.min() <= edges.max() < nodes:
        return f"edge_index names node {edges.max() if edges.max() >= nodes else edges.min()} of {nodes}"
    if len(edges) and (count := np.bincount(edges[:, 0])).max() > 1:
        return f"edge_index gives node {count.argmax()} {count.max()} parents"
    parent = np.full(nodes, -1, dtype=np.int64)
    parent[edges[:, 0]] = edges[:, 1]
    return parent


def read_trees(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream the trees of a file, simulations and roots in the order of their numbers; the group is the simulation.

    Mass, concentration and maximum circular velocity become decimal logarithms; the uid of the root is metadata.
    `keys` can map `main_branch` to `none`.
    """
    path = Path(path)
    return undamaged(_trees(path, "main_branch" in chosen(LABELS, keys or {})), path, "tree")


def _trees(path: Path, main_branch: bool) -> Iterator[Frame | BadFrame]:
    with opened(path) as file:
        simulations = _numbered(file, GROUP)
        if not simulations:
            raise UserError(f"{path} has no groups LH_0, LH_1, ...; it has {', '.join(file) or 'nothing'}")
        for simulation in simulations.values():
            group = file[simulation]
            parameters = _array(group, "y", f"{simulation} of {path}", "f")
            if parameters.shape not in ((2,), (1, 2)):
                raise UserError(
                    f"{simulation} of {path} has y of shape {parameters.shape}, not Omega_m and sigma_8; get it again"
                )
            for uid, name in _numbered(group, TREE).items():
                yield _tree(group[name], f"{simulation}/{name} of {path}", simulation, uid, parameters, main_branch)


def _numbered(group: h5py.Group, pattern: re.Pattern[str]) -> dict[int, str]:
    """Number → name of the members of that pattern, in the order of the numbers."""
    return dict(sorted((int(m[1]), name) for name in group if (m := pattern.fullmatch(name))))


def _tree(
    group: h5py.Group, where: str, simulation: str, uid: int, parameters: np.ndarray, main_branch: bool
) -> Frame | BadFrame:
    features = _array(group, "node_feats", where, "f")
    if features.ndim != 2 or features.shape[1] != WIDTH:
        raise UserError(f"{where} has node_feats of shape {features.shape}, not {WIDTH} columns; get the file again")
    features = features[:, COLUMNS].astype(np.float64)
    for column, name in enumerate(("mass", "concentration", "vmax")):
        if not (features[:, column] > 0).all():
            return BadFrame(where, f"{name} (column {column} of node_feats) is not above zero throughout")
    for name, place, low, high, unit in BOUNDS:
        values = features[:, place]
        if len(wrong := np.flatnonzero(~((values >= low) & (values <= high)))):
            return BadFrame(
                where,
                f"{name} (column {COLUMNS[place]} of node_feats) is {values[wrong[0]]:g} at node {wrong[0]}, where"
                f" halos have from {low:g} to {high:g} {unit}: another unit?",
            )
    features[:, :3] = np.log10(features[:, :3])
    parent = parents(_array(group, "edge_index", where, "iu").reshape(-1, 2), len(features))
    if isinstance(parent, str):
        return BadFrame(where, parent)
    main = None
    if main_branch:
        main = np.isin(_array(group, "node_name", where, "iu"), _array(group, "main_branch", where, "iu"))
    omega_m, sigma_8 = parameters.ravel().tolist()
    sample = TreeSample(features, parent, main, omega_m=omega_m, sigma_8=sigma_8)
    return checked(Frame(where, sample, simulation, {"root": uid}))


def _array(group: h5py.Group, name: str, where: str, kinds: str) -> np.ndarray:
    if name not in group:
        raise UserError(f"{where} has no {name}; it has {', '.join(group) or 'nothing'}; get the file again")
    values = group[name][...]
    if values.dtype.kind not in kinds:
        raise UserError(f"{where} has {values.dtype} under {name}, where numbers are needed; get the file again")
    return values
