"""Groups that may be symmetries of points in space: their elements, how they are drawn, and on what they can act.

An element moves points by x -> Q x + t, system by system, and may reorder them. A group is put together from three
parts: how Q is drawn, how t is drawn, and whether points are reordered. Compact groups are drawn uniformly (Haar
measure); translations of all space have no uniform distribution and are drawn from a cube of side 20 in the domain's
unit of length.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from scisci.contracts.errors import UserError, unknown_name

TRANSLATION_RANGE = 10.0
LATTICE_TOLERANCE = 1e-5
Matrices = Callable[[int, np.random.Generator], Tensor]


@dataclass(frozen=True)
class Element:
    """One element per system: a point x of system b goes to `matrices[b] @ x + shifts[b]`.

    `matrices` [B, 3, 3] are orthogonal, `shifts` [B, 3] in the domain's unit of length, both float64. Row k of what
    is reordered is row `order[k]` of what was; points stay with their system. `boxed`: periodic systems keep their
    cell, which the matrices must map onto itself, and points are put back into it.
    """

    matrices: Tensor
    shifts: Tensor
    order: Tensor | None = None
    boxed: bool = False

    def inverse(self) -> Element:
        """The element that takes everything back."""
        back = self.matrices.transpose(1, 2)
        order = None if self.order is None else torch.argsort(self.order)
        return Element(back, -torch.einsum("bij,bj->bi", back, self.shifts), order, self.boxed)

    def __matmul__(self, first: Element) -> Element:
        """This element after `first`."""
        shifts = torch.einsum("bij,bj->bi", self.matrices, first.shifts) + self.shifts
        order = self.order if first.order is None else first.order
        if self.order is not None and first.order is not None:
            order = first.order[self.order]
        return Element(self.matrices @ first.matrices, shifts, order, self.boxed or first.boxed)


def random_rotations(count: int, rng: np.random.Generator) -> Tensor:
    """[count, 3, 3] float64 rotation matrices, uniform on SO(3)."""
    return torch.from_numpy(Rotation.random(count, rng=rng).as_matrix())


def random_improper(count: int, rng: np.random.Generator) -> Tensor:
    """[count, 3, 3] float64 matrices of determinant -1, uniform on O(3) without SO(3)."""
    return -random_rotations(count, rng)


def random_orthogonal(count: int, rng: np.random.Generator) -> Tensor:
    """[count, 3, 3] float64 matrices, uniform on O(3)."""
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], count))
    return signs[:, None, None] * random_rotations(count, rng)


def rotations_about(axis: int) -> Matrices:
    """How to draw rotations about x (0), y (1) or z (2) by a uniform angle."""

    def draw(count: int, rng: np.random.Generator) -> Tensor:
        vectors = rng.uniform(0, 2 * np.pi, (count, 1)) * np.eye(3)[axis]
        return torch.from_numpy(Rotation.from_rotvec(vectors).as_matrix())

    return draw


def cubic_matrices() -> Tensor:
    """[48, 3, 3] float64: O_h, the signed permutation matrices; the identity first, and the 24 rotations first."""
    signed = itertools.product(itertools.permutations(range(3)), itertools.product((1.0, -1.0), repeat=3))
    matrices = torch.stack([torch.diag(torch.tensor(signs).double())[list(axes)] for axes, signs in signed])
    return matrices[torch.argsort(torch.linalg.det(matrices), descending=True, stable=True)]


@dataclass(frozen=True)
class Group:
    """A group by its parts; `elements` [K, 3, 3] are all matrices of a finite one."""

    symbol: str
    about: str
    matrices: Matrices | None = None
    shifts: Literal["none", "space", "box"] = "none"
    permutes: bool = False
    elements: Tensor | None = None

    @property
    def boxed(self) -> bool:
        """Whether periodic systems keep their cell."""
        return self.elements is not None or self.shifts == "box"

    def draw(self, batch: Any, rng: np.random.Generator) -> Element:
        """An element per system of a batch, each drawn by itself."""
        matrices = self._matrices(batch.num_graphs, rng)
        return self._element(batch, matrices, self._shifts(batch, rng), self._order(batch, rng))

    def every(self, batch: Any) -> Iterator[Element]:
        """All elements of a finite group, each for all systems of a batch at once."""
        assert self.elements is not None
        for matrix in self.elements:
            yield self._element(batch, matrix.repeat(batch.num_graphs, 1, 1), torch.zeros(batch.num_graphs, 3), None)

    def _element(self, batch: Any, matrices: Tensor, shifts: Tensor, order: Tensor | None) -> Element:
        device = batch.batch.device
        order = None if order is None else order.to(device)
        return Element(matrices.to(device), shifts.double().to(device), order, self.boxed)

    def _matrices(self, count: int, rng: np.random.Generator) -> Tensor:
        if self.elements is not None:
            return self.elements[torch.from_numpy(rng.integers(len(self.elements), size=count))]
        return torch.eye(3).double().repeat(count, 1, 1) if self.matrices is None else self.matrices(count, rng)

    def _shifts(self, batch: Any, rng: np.random.Generator) -> Tensor:
        if self.shifts == "none":
            return torch.zeros(batch.num_graphs, 3)
        drawn = torch.from_numpy(rng.uniform(-1, 1, (batch.num_graphs, 3)))
        if self.shifts == "space":
            return TRANSLATION_RANGE * drawn
        return torch.einsum("bk,bkj->bj", drawn / 2, periodic_vectors(batch).cpu())

    def _order(self, batch: Any, rng: np.random.Generator) -> Tensor | None:
        if not self.permutes:
            return None
        return torch.from_numpy(np.lexsort((rng.random(len(batch.batch)), batch.batch.cpu().numpy())))

    def obstacle(self, batch: Any) -> str | None:
        """Why the group cannot act on a batch, in words; `None` where it can."""
        if "pos" not in batch:
            acts_on_space = self.matrices is not None or self.elements is not None or self.shifts != "none"
            return "they have no positions; 'permutation' reorders their nodes" if acts_on_space else None
        if "cell" not in batch:
            return None if self.shifts != "box" else "they are not periodic; 'translation' moves isolated systems"
        if not self.boxed:
            return None
        vectors = periodic_vectors(batch).cpu()
        if self.shifts == "box":
            isolated = (vectors == 0).all(dim=(1, 2))
            return f"system {int(isolated.int().argmax())} of a batch is not periodic" if isolated.any() else None
        assert self.elements is not None
        turned = vectors[:, None] @ self.elements.transpose(1, 2)
        # Each turned lattice vector must be a whole-numbered combination of the old ones.
        whole = (turned @ torch.linalg.pinv(vectors)[:, None]).round()
        off = (turned - whole @ vectors[:, None]).abs().amax(dim=(1, 2, 3))
        if (broken := off > LATTICE_TOLERANCE * vectors.abs().amax(dim=(1, 2))).any():
            return (
                f"it does not map the periodic lattice of system {int(broken.int().argmax())} of a batch onto itself;"
                " that takes a cubic box with sides along x, y and z, while 'orthogonal' turns any box with its points"
            )
        return None


def periodic_vectors(batch: Any) -> Tensor:
    """[B, 3, 3] float64 lattice vectors; rows along which a system is not periodic are zero."""
    return batch.cell.double() * batch.pbc[:, :, None]


_CUBIC = cubic_matrices()
GROUPS: dict[str, Group] = {
    "rotation": Group("SO(3)", "rotations about the origin; a cell turns too", random_rotations),
    "reflection": Group("O(3) \\ SO(3)", "reflections and rotoinversions alone", random_improper),
    "translation": Group("T(3)", "translations of all space; periodic points are not wrapped", shifts="space"),
    "permutation": Group("S_n", "reordering the points of a system", permutes=True),
    "inversion": Group("C_i", "x -> -x alone; a periodic box stays as it is", elements=-_CUBIC[:1]),
    "orthogonal": Group("O(3)", "rotations and reflections; a cell turns too", random_orthogonal),
    "rigid": Group("SE(3)", "rotations and translations", random_rotations, "space"),
    "euclidean": Group("E(3)", "rotations, reflections and translations", random_orthogonal, "space"),
    **{f"axial-{x}": Group("SO(2)", f"rotations about {x}", rotations_about(k)) for k, x in enumerate("xyz")},
    "octahedral": Group("O", "the 24 rotations of a cube; a periodic cubic box stays as it is", elements=_CUBIC[:24]),
    "cubic": Group("O_h", "the 48 symmetries of a cube; a periodic cubic box stays as it is", elements=_CUBIC),
    "torus": Group("T(3) / lattice", "translations in a periodic box; points are put back into it", shifts="box"),
}


def group_named(name: str) -> Group:
    """The group `name`; an unknown one is a `UserError` with the closest names."""
    if name not in GROUPS:
        raise unknown_name("symmetry group", name, GROUPS)
    return GROUPS[name]


def require(name: str, batch: Any) -> Group:
    """The group `name`, which can act on `batch`; a `UserError` says why it cannot."""
    group = group_named(name)
    if obstacle := group.obstacle(batch):
        raise UserError(f"the group {name!r} cannot act on these data: {obstacle}")
    return group
