"""Which model of halo velocities is better on the same boxes, and by how much: differences with paired intervals.

    python -m benchmarks._halo_velocities out/cosmology-velocities out/cosmology-long

takes from the sweeps the runs with the most training boxes, of every architecture and number of steps the size with
the lowest ID validation error, and holds each against each baseline: the difference of the unexplained share of the
variance (1 - R² of all clouds together), with a 95 % interval from 10,000 resamples of the boxes, the same for both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from scisci.contracts.run import RunResult, RunSpec
from scisci.data.library import open_dataset
from scisci.tasks.checkpoints import load_task
from scisci.tasks.metrics import velocity_errors

SPLITS = ("test", "ood_prior", "ood_redshift", "ood_resolution", "ood_density")
BASELINES, RESAMPLES, BATCH = ("linear_theory", "linear_vectors"), 10_000, 20
Runs = dict[str, tuple[float, Path, RunSpec]]


def chosen(folders: list[Path]) -> Runs:
    """Label → validation error, folder and spec of the run that stands for it."""
    found: list[tuple[RunSpec, float, Path]] = []
    for folder in folders:
        for path in sorted(folder.glob("runs/*/result.json")):
            result = RunResult.model_validate_json(path.read_text())
            if result.status == "ok":
                spec = RunSpec.model_validate_json((path.parent / "spec.json").read_text())
                found.append((spec, result.splits["val"].metrics["velocities_fvu"].value, path.parent))
    most, best = max(spec.data for spec, *_ in found), Runs()
    for spec, error, path in found:
        label = spec.architecture
        if spec.optimization.learning_rate is not None:
            label += f", {spec.optimization.steps} steps"
        if spec.data == most and (label not in best or error < best[label][0]):
            best[label] = (error, path, spec)
    return best


def per_cloud(path: Path, spec: RunSpec, split: str) -> np.ndarray:
    """[clouds, 2] squared errors and squared deviations of a run on a split, summed over each cloud."""
    store, task, parts = open_dataset(spec.dataset), load_task(path), []
    task.eval()
    for ids in np.array_split(store.split(split).indices(), -(-len(store.split(split)) // BATCH)):
        batch = task.seen(task.collate(store, ids))
        with torch.no_grad():
            parts.append(torch.stack(velocity_errors(task.model(batch), batch)["velocities_fvu"], dim=1))
    return torch.cat(parts).numpy()


def interval(values: np.ndarray) -> str:
    """The 95 % interval of bootstrap values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return f"[{low:+.4f}, {high:+.4f}]"


def main() -> None:
    """Print a table per split."""
    torch.set_num_threads(1)
    if not (folders := [Path(name) for name in sys.argv[1:]]) or not all(map(Path.is_dir, folders)):
        sys.exit("give the folders of sweeps of cosmology-*.yaml studies on velocities")
    best = chosen(folders)
    if missing := set(BASELINES) - set(best):
        sys.exit(f"the sweeps lack runs of {' and '.join(sorted(missing))} with as many boxes; add their folder")
    for split in SPLITS:
        clouds = {label: per_cloud(path, spec, split) for label, (_, path, spec) in best.items()}
        count = len(next(iter(clouds.values())))
        drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
        sums = {label: parts[drawn].sum(axis=1) for label, parts in clouds.items()}
        shares = {label: parts[:, 0] / parts[:, 1] for label, parts in sums.items()}
        print(f"\n{split}, {count} boxes: unexplained variance, and difference from the baselines")
        for label, parts in clouds.items():
            total = parts.sum(axis=0)
            row = f"{label:24s} {best[label][2].size:>5s} {total[0] / total[1]:.4f}"
            for name in BASELINES:
                other = clouds[name].sum(axis=0)
                gap = total[0] / total[1] - other[0] / other[1]
                row += f"   {name} {gap:+.4f} {interval(shares[label] - shares[name])}"
            print(row)


if __name__ == "__main__":
    main()
