"""What frame averaging does where frames are not determined: jumps and forces at symmetric molecules.

A transformer with its initial weights, in float64. Jump: standard deviation of the averaged energy when atoms move by
1e-6 Å at random, over that of the same network without frames when the molecule is turned at random. Force: rms over
molecules distorted by normal displacements, over that of the network without frames. Gap: smallest distance of two
eigenvalues of the second moments over their sum.

Run: OMP_NUM_THREADS=1 python -m benchmarks frames
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.conformance.systems import ELEMENTS, batch_of
from scisci.models.framed import FramedPotential
from scisci.models.potential import Potential
from scisci.symmetry.actions import act
from scisci.symmetry.frames import Frames, relative_gaps, second_moments

MOLECULES = ("CH3CH2OH", "H2O", "CO2", "C2H2", "C2H6", "C6H6", "NH3", "CH4")
KINDS, COUNT, SHAKES = ("full", "weighted"), 200, (0.1, 0.01, 0.001)


def potentials() -> dict[str, Potential]:
    """The same network without frames ("bare") and with each kind."""
    torch.manual_seed(0)
    backbone = registry.build("transformer", Inputs(ELEMENTS), 7.0, **registry.options("transformer", "10k"))
    bare = Potential(backbone, (0.0,) * len(ELEMENTS), 1.0)
    found = {"bare": bare}
    for kind in KINDS:
        found[kind] = FramedPotential(backbone, (0.0,) * len(ELEMENTS), 1.0, frames=Frames(kind=kind))  # type: ignore[arg-type]
        found[kind].load_state_dict(bare.state_dict())
    return {name: model.double().eval().requires_grad_(False) for name, model in found.items()}


def copies(of: Atoms, size: float, rng: np.random.Generator) -> Any:
    """A batch of one molecule with atoms displaced by normal deviates of `size` Å."""
    return batch_of(*((of.numbers, of.positions + size * rng.normal(size=(len(of), 3))) for _ in range(COUNT)))


def gaps(batch: Any, cutoff: float = 5.0) -> np.ndarray:
    """[B] relative gaps of a batch."""
    senders, receivers = batch.edge_index
    vectors = (batch.pos[senders] + batch.edge_shift - batch.pos[receivers]).double()
    return relative_gaps(second_moments(vectors, batch.batch[receivers], batch.num_graphs, cutoff)).numpy()


def main() -> None:
    """Print a table of molecules, and how often gaps are small in a data set."""
    torch.set_num_threads(1)
    models, rng = potentials(), np.random.default_rng(0)
    heads = [f"{kind}: {what}" for kind in KINDS for what in ("jump", *(f"force at {size:g} Å" for size in SHAKES))]
    print(f"| molecule | gap | {' | '.join(heads)} |\n|---{'| --: ' * (len(heads) + 1)}|")
    for name in MOLECULES:
        of = molecule(name)
        turned, _ = act("rotation", copies(of, 0.0, rng), rng)
        bare = models["bare"](turned)
        shaken = {size: copies(of, size, rng) for size in (1e-6, *SHAKES)}
        columns = [f"{max(0.0, gaps(turned)[0]):.0e}"]
        for kind in KINDS:
            columns.append(f"{float(models[kind](shaken[1e-6])['interaction'].std() / bare['interaction'].std()):.0e}")
            forces = [models[kind](shaken[size])["forces"].square().mean().sqrt() for size in SHAKES]
            columns += [f"{float(force / bare['forces'].square().mean().sqrt()):.2g}" for force in forces]
        print(f"| {of.get_chemical_formula()} | {' | '.join(columns)} |", flush=True)
    store = open_dataset("xtb-molecules")
    for split in ("train", "ood_1200K"):
        found = gaps(graph_batch(store.take(store.split(split).indices(4000)), 5.0))
        shares = ", ".join(f"{100 * (found < gap).mean():.1f} % below {gap:g}" for gap in (0.1, 0.01, 0.001))
        print(f"\nxtb-molecules, {split}, {len(found)} samples: gaps {shares}")


if __name__ == "__main__":
    main()
