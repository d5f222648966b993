"""Speed of the scaling fits, side by side with the published multistart BFGS, in one run on one core.

The reference is the procedure of Hoffmann et al. 2022 as re-fitted by Besiroglu et al. 2024: a grid of 4,500
starts over (a, b, e, alpha, beta), scipy's BFGS with numeric gradients from each, and 4,000 bootstrap
resamples refitted the same way from the optimum. Both sides fit the same synthetic table of 240 points.

Run: OMP_NUM_THREADS=1 python benchmarks/scaling_fit.py [--starts 4500] [--reference-resamples 4000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from scisci.scaling.fitting import fit
from scisci.scaling.resampling import bootstrap
from scisci.scaling.solve import huber
from scisci.scaling.table import Points

DELTA = 1e-3
TRUTH = (1.8, 480.0, 2100.0, 0.35, 0.37)


def table(n: int, seed: int = 0) -> Points:
    """`n` runs of a Chinchilla law with 0.4 % noise and a few outliers, over four decades of compute."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(5e7), np.log(1.5e10), n))
    data = np.exp(rng.uniform(np.log(1e9), np.log(3e11), n))
    floor, a, b, alpha, beta = TRUTH
    loss = floor + a * size**-alpha + b * data**-beta
    noise = 0.004 * rng.standard_t(4, size=n)
    return Points((size, data), loss * np.exp(noise), np.arange(n), tuple(map(str, range(n))))


def reference_objective(u: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_y: np.ndarray) -> float:
    """Sum of Huber of LSE(a - alpha ln N, b - beta ln D, e) - ln L, with u = (a, b, e, alpha, beta)."""
    a, b, e, alpha, beta = u
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    return float(huber(logsumexp(terms, axis=0) - log_y, DELTA).sum())


def reference_fit(data: Points, starts: int) -> tuple[np.ndarray, float]:
    """The best of BFGS from the first `starts` of the published grid, shuffled."""
    axes = (
        np.arange(0, 30, 5),
        np.arange(0, 30, 5),
        np.arange(-1, 1.5, 0.5),
        np.arange(0, 2.5, 0.5),
        np.arange(0, 2.5, 0.5),
    )
    grid = np.array(list(itertools.product(*axes)), float)
    np.random.default_rng(0).shuffle(grid)
    arguments = (np.log(data.x[0]), np.log(data.x[1]), data.log_y)
    best, value = grid[0], np.inf
    with np.errstate(all="ignore"):
        for start in grid[:starts]:
            found = minimize(reference_objective, start, args=arguments, method="BFGS")
            if found.fun < value:
                best, value = found.x, float(found.fun)
    return best, value


def reference_bootstrap(data: Points, optimum: np.ndarray, resamples: int) -> np.ndarray:
    """Refits of resampled points from the optimum, one by one."""
    rng = np.random.RandomState(42)
    refits = []
    for _ in range(resamples):
        pick = rng.choice(len(data), len(data))
        arguments = (np.log(data.x[0][pick]), np.log(data.x[1][pick]), data.log_y[pick])
        refits.append(minimize(reference_objective, optimum, args=arguments, method="BFGS").x)
    return np.array(refits)


def timed(work: Callable[..., Any], *arguments: Any, repeats: int = 1, **options: Any) -> tuple[float, Any]:
    """Best wall time of `repeats` and the last result."""
    times, result = [], None
    for _ in range(repeats):
        begin = time.perf_counter()
        result = work(*arguments, **options)
        times.append(time.perf_counter() - begin)
    return min(times), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=4500)
    parser.add_argument("--reference-resamples", type=int, default=4000)
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    data = table(240)

    seconds, found = timed(fit, "chinchilla", data, delta=DELTA, repeats=5)
    figures["fit of 240 points [s]"], figures["objective"] = seconds, found.objective
    seconds, refits = timed(bootstrap, found, 4000, repeats=2)
    figures["4000 resamples [s]"] = seconds
    for n in (1_000, 10_000, 100_000):
        many = table(n)
        figures[f"fit of {n} points [s]"], large = timed(fit, "chinchilla", many, delta=DELTA)
        figures[f"100 resamples of {n} points [s]"], _ = timed(bootstrap, large, 100)
    for resamples in (1_000, 16_000):
        figures[f"{resamples} resamples of 240 points [s]"], _ = timed(bootstrap, found, resamples)
    for name, value in figures.items():
        print(f"{name}: {value:.6g}", flush=True)

    seconds, (optimum, value) = timed(reference_fit, data, options.starts)
    figures[f"reference, {options.starts} starts [s]"], figures["reference objective"] = seconds, value
    figures["fit: times faster"] = seconds / figures["fit of 240 points [s]"]
    print(f"reference, {options.starts} starts: {seconds:.1f} s, objective {value:.10g} (here {found.objective:.10g})")
    print(f"times faster: {figures['fit: times faster']:.0f}", flush=True)
    if options.reference_resamples:
        seconds, slow = timed(reference_bootstrap, data, optimum, options.reference_resamples)
        figures[f"reference, {options.reference_resamples} resamples [s]"] = seconds
        print(f"reference, {options.reference_resamples} resamples: {seconds:.1f} s")
        for name, column in (("alpha", 3), ("beta", 4)):
            ends = np.quantile(slow[:, column], [0.025, 0.975])
            print(f"{name}: reference {ends[0]:.4f} to {ends[1]:.4f}, here {refits.interval(name)}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
