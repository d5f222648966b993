"""How often do the 95 % intervals hold the truth? Coverage over synthetic families of scaling experiments.

For every family the experiment is repeated: runs at several sizes and seeds with log-normal noise, part of
it shared by the rows of a run. Reported are the coverage of exponents called `identified` (the quoted
interval and, beside it, the plain percentile bootstrap over runs), of exponent differences and of
crossovers, the verdicts, and beside them the error within which an oracle (least squares on the true form,
started at the truth) finds the exponent in 95 % of the repetitions.

Run: python benchmarks/scaling_calibration.py [--repetitions 1000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from scisci.contracts.errors import UserError
from scisci.scaling.comparison import difference
from scisci.scaling.crossing import crossover
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.resampling import bootstrap, quote
from scisci.scaling.table import Points

SMALLEST = 1e4
QUOTED_FROM = 0.01  # share of repetitions with a crossover below which its coverage has no meaning


@dataclass(frozen=True)
class Family:
    """One kind of experiment: L = offset + reducible * (N / smallest)^-alpha, noise relative to L."""

    name: str
    law: str
    alpha: float
    offset: float
    decades: float
    sizes: int
    seeds: int
    noise: float
    rows: int = 1
    within: float = 0.0  # noise between rows of a run; `noise` is what a run shares
    by_seed: float = 0.0  # noise that all runs of one seed share; the seed is then the cluster


FAMILIES = (
    Family("power, 1 decade, 5 sizes, 3 seeds, 1 %", "power", 0.3, 0.0, 1.0, 5, 3, 0.01),
    Family("power, 2 decades, 6 sizes, 1 seed, 2 %", "power", 0.3, 0.0, 2.0, 6, 1, 0.02),
    Family("power, 5 decades, 12 sizes, 1 seed, 5 %", "power", 0.1, 0.0, 5.0, 12, 1, 0.05),
    Family(
        "power, 2.5 decades, 8 sizes, 2 seeds, 3 % + 2 % in 3 rows a run", "power", 0.2, 0.0, 2.5, 8, 2, 0.03, 3, 0.02
    ),
    Family("offset, 2 decades, 8 sizes, 3 seeds, 1 %", "power_offset", 0.6, 0.2, 2.0, 8, 3, 0.01),
    Family("offset, 3 decades, 8 sizes, 2 seeds, 2 %", "power_offset", 0.5, 0.1, 3.0, 8, 2, 0.02),
    Family("offset, 5 decades, 12 sizes, 2 seeds, 5 %", "power_offset", 0.35, 0.05, 5.0, 12, 2, 0.05),
    Family("offset, 4 decades, 10 sizes, 1 seed, 1 %", "power_offset", 0.4, 0.1, 4.0, 10, 1, 0.01),
    Family("power, 3 decades, 8 sizes, 4 seeds, 1 % + 3 % a seed", "power", 0.3, 0.0, 3.0, 8, 4, 0.01, by_seed=0.03),
    Family(
        "offset, 3 decades, 8 sizes, 5 seeds, 1 % + 2 % a seed", "power_offset", 0.5, 0.1, 3.0, 8, 5, 0.01, by_seed=0.02
    ),
    Family("power, 3 decades, 12 sizes, 20 seeds, 3 % (robust loss)", "power", 0.2, 0.0, 3.0, 12, 20, 0.03),
    Family("offset, 1.5 decades, 6 sizes, 1 seed, 4 %", "power_offset", 0.3, 0.4, 1.5, 6, 1, 0.04),
    Family("offset, 1.5 decades, 5 sizes, 2 seeds, 3 %", "power_offset", 0.4, 0.3, 1.5, 5, 2, 0.03),
)


def draw(family: Family, rng: np.random.Generator, alpha: float, scale: float = 1.0) -> Points:
    """The points of one experiment."""
    sizes = np.repeat(np.geomspace(SMALLEST, SMALLEST * 10**family.decades, family.sizes), family.seeds)
    seed = np.tile(np.arange(family.seeds), family.sizes)
    shared = family.noise * rng.normal(size=sizes.size)
    if family.by_seed:
        shared = shared + family.by_seed * rng.normal(size=family.seeds)[seed]
    run = np.repeat(np.arange(sizes.size), family.rows)
    n = sizes[run]
    loss = family.offset + scale * (n / SMALLEST) ** -alpha
    noise = shared[run] + family.within * rng.normal(size=n.size)
    cluster = seed[run] if family.by_seed else run
    runs = tuple(f"r{i}-{rng.integers(1 << 60)}" for i in range(cluster.max() + 1))
    return Points((n,), loss * np.exp(noise), cluster, runs)


def crossing(family: Family, alpha: float, beta: float, scale: float) -> float:
    """The true crossing of two curves, by bisection on a fine grid."""
    n = np.geomspace(SMALLEST / 10, SMALLEST * 10 ** (family.decades + 1), 200_001)
    x = n / SMALLEST
    gap = np.log(family.offset + x**-alpha) - np.log(family.offset + scale * x**-beta)
    return float(n[np.argmax(np.sign(gap[1:]) != np.sign(gap[:-1]))])


def oracle_error(family: Family, data: Points) -> float:
    """Relative error of the exponent by scipy's least squares on the true form, started at the truth."""
    z = np.log(data.x[0] / SMALLEST)

    def residuals(u: np.ndarray) -> np.ndarray:
        offset = u[2] if family.law == "power_offset" else 0.0
        return np.log(np.maximum(offset + np.exp(u[0] - u[1] * z), 1e-12)) - data.log_y

    truth = [0.0, family.alpha, family.offset][: 3 if family.law == "power_offset" else 2]
    return float(optimize.least_squares(residuals, truth).x[1] / family.alpha - 1.0)


def inside(low: float, value: float, high: float) -> bool:
    """Whether an interval with open (NaN) ends holds a value."""
    return (np.isnan(low) or low <= value) and (np.isnan(high) or value <= high)


def attempt(family: Family, data: Points) -> Fit | None:
    """The fit as the command would make it, or None where the data are refused."""
    try:
        found = fit(family.law, data)
    except UserError:
        return None
    return found if np.isinf(found.delta) else quote(found, bootstrap(found, 1000))


def run(family: Family, repetitions: int, resamples: int, seed: int) -> dict[str, float | str]:
    """Coverages and verdicts of one family."""
    rng = np.random.default_rng(seed)
    beta = family.alpha * 0.8
    counts = {"identified": 0, "weak": 0, "not identified": 0}
    covered = percentile = percentiles = differences = difference_covered = 0
    crossings = crossing_covered = missed = 0
    oracle = []
    x = 10 ** (family.decades / 2)
    scale = x ** (beta - family.alpha)  # the curves cross in the middle of the range
    truth = crossing(family, family.alpha, beta, scale)
    for i in range(repetitions):
        data, other = draw(family, rng, family.alpha), draw(family, rng, beta, scale)
        one, two = attempt(family, data), attempt(family, other)
        verdict = one.audit.verdict if one else "not identified"
        counts[verdict] += 1
        oracle.append(abs(oracle_error(family, data)))
        missed += oracle[-1] <= 0.1 and verdict == "not identified"
        if one and verdict == "identified":
            covered += inside(one.intervals["alpha"][0], family.alpha, one.intervals["alpha"][1])
            if resamples:
                percentiles += 1
                # a robust fit quotes the percentile bootstrap already
                refits = bootstrap(one, resamples, seed=i) if np.isinf(one.delta) else None
                low, high = refits.interval("alpha") if refits else one.intervals["alpha"]
                percentile += low <= family.alpha <= high
        if one and two and verdict == "identified" == two.audit.verdict:
            found = difference(one, two)
            differences += 1
            difference_covered += inside(found.low, family.alpha - beta, found.high)
            crossed = crossover(one, two, draws=100)
            crossings += crossed.verdict != "undecided"
            crossing_covered += crossed.verdict == "crossover" and crossed.low <= truth <= crossed.high
    return {
        "family": family.name,
        "identified": counts["identified"] / repetitions,
        "weak": counts["weak"] / repetitions,
        "not identified": counts["not identified"] / repetitions,
        "exponent": covered / max(counts["identified"], 1),
        "percentile": percentile / percentiles if percentiles else "not computed",
        "difference": difference_covered / max(differences, 1),
        "crossover": crossing_covered / crossings if crossings >= QUOTED_FROM * repetitions else "not quoted",
        "crossover quoted": crossings / repetitions,
        "oracle's 95 % error": float(np.quantile(oracle, 0.95)),
        "not identified though oracle within 10 %": missed / repetitions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000, help="of the percentile bootstrap; 0: leave it out")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of families, from 0, in the order to run them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="write the table here")
    options = parser.parse_args()
    rows = []
    for family in [FAMILIES[k] for k in options.only] if options.only else FAMILIES:
        begin = time.perf_counter()
        row = run(family, options.repetitions, options.resamples, options.seed)
        rows.append(row)
        figures = {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()}
        cells = "  ".join(f"{key} {value}" for key, value in figures.items() if key != "family")
        print(f"{family.name}: {cells}  ({time.perf_counter() - begin:.0f} s)", flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
