"""Treatments of rotations that a network does not know, at equal compute: symmetry errors in training, force errors.

Reads the finished sweep of configs/studies/treatments.yaml. Per backbone and amount of data: the relative error of
forces under random rotations of validation samples in the course of training, and the mean absolute error of forces on
every split, as means over seeds. Ratios of two treatments are of the same seed, with the 95 % interval of Student's t
over the logarithms; it is one of trainings, for test samples are the same in all.

Run: scisci sweep run configs/studies/treatments.yaml --out out/treatments, then python -m benchmarks.treatments
    [--sweep out/treatments]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import stats

from scisci.sweep.plan import PLAN_FILE, Plan
from scisci.sweep.records import Records

SHARES = (1 / 12, 1 / 4, 1 / 2, 1.0)
REFERENCE = "augmentation"
SYMMETRY, ERROR = "val/symmetry_rotation_forces", "force_mae"


def table(folder: Path) -> pd.DataFrame:
    """A row per run: backbone, treatment, data, seed; symmetry errors at each share of training; errors by split."""
    plan, records, rows = Plan.read(folder), Records(folder), []
    for cell, spec in plan.specs():
        result = records.result(spec.run)
        if result is None or result.status != "ok":
            continue
        curve = pq.read_table(folder / "runs" / spec.run / "curve.parquet").to_pandas().dropna(subset=[SYMMETRY])
        at = [np.abs(curve.step - share * spec.optimization.steps).argmin() for share in SHARES]
        rows.append(
            {
                "backbone": cell.label.rsplit("-", 1)[0],
                "treatment": spec.treatment,
                "data": spec.data,
                "seed": spec.seed,
            }
            | dict(zip(SHARES, curve[SYMMETRY].iloc[at], strict=True))
            | {split: found.metrics[ERROR].value for split, found in result.splits.items() if split != "val"}
        )
    return pd.DataFrame(rows)


def ratio(found: pd.DataFrame, of: str, to: str, split: str) -> str:
    """Errors of a treatment over those of another, with the interval over seeds."""
    by_seed = found.pivot(index="seed", columns="treatment", values=split)[[of, to]].dropna()
    logs = np.log(by_seed[of] / by_seed[to])
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std() / np.sqrt(len(logs))
    low, middle, high = np.exp(logs.mean() + np.array([-half, 0.0, half]))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=Path("out/treatments"))
    folder = parser.parse_args().sweep
    if not (folder / PLAN_FILE).exists():
        print(f"skipped: no sweep in {folder}; scisci sweep run configs/studies/treatments.yaml --out {folder}")
        return
    runs = table(folder)
    splits = [name for name in runs if name == "test" or str(name).startswith("ood_")]
    for (data, backbone), group in runs.groupby(["data", "backbone"]):
        print(f"\n{backbone}, {data} training samples, {group.seed.nunique()} seeds\n")
        heads = [*(f"symmetry error after {share:.0%}" for share in SHARES), *(f"{name}, meV/Å" for name in splits)]
        print(f"| treatment | {' | '.join(heads)} |\n|---{'|--:' * len(heads)}|")
        means = group.groupby("treatment").mean(numeric_only=True)
        for name in plan_order(group):
            cells = [f"{means.loc[name, share]:.3g}" for share in SHARES]
            cells += [f"{means.loc[name, split]:.0f}" for split in splits]
            print(f"| {name} | {' | '.join(cells)} |")
        print(f"\n| over {REFERENCE} | {' | '.join(splits)} |\n|---{'|---' * len(splits)}|")
        for name in (name for name in plan_order(group) if name != REFERENCE and REFERENCE in means.index):
            print(f"| {name} | {' | '.join(ratio(group, name, REFERENCE, split) for split in splits)} |")


def plan_order(group: pd.DataFrame) -> list[str]:
    """Treatments as the study lists them."""
    return list(dict.fromkeys(group.treatment))


if __name__ == "__main__":
    main()
