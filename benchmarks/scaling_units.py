"""How often is a second unit in the column of the loss found, and how often is one seen where there is none?

Found: power laws and laws with an offset whose rows are partly multiplied by a conversion factor: the larger half of
the sizes, every other row, or rows at random. Not there: the families of `scaling_calibration`, broken laws with sharp
breaks, plain noise, laws of two variables of which one is hidden, double descent, and diverged runs.

Run: python benchmarks/scaling_units.py [--tables 2000]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scaling_calibration import FAMILIES, Family, draw

from scisci.scaling.law import Array
from scisci.scaling.units import two_units

Draw = Callable[[np.random.Generator], tuple[Array, Array]]  # x and ln y of one table
FACTORS = (1000.0, 1e-3, 27.2114, 1 / 27.2114)
HOW = ("half", "turns", "random")  # which rows are in the other unit: the larger sizes, every other row, any


def design(rng: np.random.Generator) -> Array:
    """ln N / N_min of 5-14 sizes over 1-6 decades with 1-3 seeds."""
    span = rng.uniform(1, 6) * np.log(10)
    return np.repeat(np.linspace(0.0, span, rng.integers(5, 15)), rng.integers(1, 4))


def noise(rng: np.random.Generator, n: int) -> Array:
    """None to 100 % noise, normal or with heavy tails."""
    heavy = rng.random() < 0.5
    return rng.choice([0, 0.01, 0.03, 0.1, 0.3, 1.0]) * (rng.standard_t(3, n) if heavy else rng.normal(size=n))


def offset(rng: np.random.Generator) -> tuple[Array, Array]:
    z = design(rng)
    return z, np.log(10 ** rng.uniform(-8, 0) + np.exp(-rng.uniform(0.1, 3) * z)) + noise(rng, z.size)


def broken(rng: np.random.Generator) -> tuple[Array, Array]:
    """One or two breaks by up to 1 in the exponent, within a thousandth to one e-fold of N."""
    z = design(rng)
    log_y = -rng.uniform(0, 1.5) * z
    for _ in range(rng.integers(1, 3)):
        change, at, width = rng.uniform(-1, 1), rng.uniform(0.1, 0.9) * z.max(), 10 ** rng.uniform(-3, 0)
        log_y = log_y - change * width * np.logaddexp(0.0, (z - at) / width)
    return z, log_y + noise(rng, z.size)


def cliff(rng: np.random.Generator) -> tuple[Array, Array]:
    """Between two gentle stretches the loss falls as N^-2."""
    z = design(rng)
    return z, -0.2 * z - 2.0 * np.clip(z - rng.uniform(0.1, 0.8) * z.max(), 0, rng.uniform(0.3, 3)) + noise(rng, z.size)


def plateaus(rng: np.random.Generator) -> tuple[Array, Array]:
    """A sigmoid between two flat stretches: a change of regime that may fall between two sizes."""
    z = design(rng)
    at, width = rng.uniform(0.2, 0.8) * z.max(), 10 ** rng.uniform(-1, 0.3)
    return z, -rng.uniform(1, 6) / (1 + np.exp(-(z - at) / width)) + 0.03 * rng.normal(size=z.size)


def plain_noise(rng: np.random.Generator) -> tuple[Array, Array]:
    z = design(rng)
    return z, rng.choice([1.0, 2.0, 5.0]) * rng.normal(size=z.size)


def hidden(rng: np.random.Generator) -> tuple[Array, Array]:
    """Three amounts of data in one table that knows only the parameters."""
    z, d = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 7, 6), np.log([64, 1024, 16384])))
    return z, -0.3 * z - rng.uniform(0.1, 0.5) * d + 0.03 * rng.normal(size=z.size)


def descent(rng: np.random.Generator) -> tuple[Array, Array]:
    """Double descent: a peak of up to e^5 on a falling law."""
    z = np.linspace(0, 7, rng.integers(8, 20))
    peak = rng.uniform(1, 5) / (1 + ((z - rng.uniform(1.5, 5)) / rng.uniform(0.1, 0.8)) ** 2)
    return z, -0.3 * z + peak + 0.03 * rng.normal(size=z.size)


def diverged(rng: np.random.Generator) -> tuple[Array, Array]:
    """The runs of the two largest sizes diverge, each by its own amount."""
    z = design(rng)
    top = z >= np.unique(z)[-2]
    return z, -0.3 * z + 0.03 * rng.normal(size=z.size) + top * np.abs(4 * rng.normal(size=z.size))


def from_family(family: Family) -> Draw:
    def one(rng: np.random.Generator) -> tuple[Array, Array]:
        data = draw(family, rng, family.alpha)
        return np.log(data.x[0]), data.log_y

    return one


def rate(tables: int, make: Draw) -> float:
    """Share of tables in which two units are seen."""
    rng = np.random.default_rng(1)
    drawn = (make(rng) for _ in range(tables))
    return float(np.mean([two_units((np.exp(z),), log_y) is not None for z, log_y in drawn]))


def mixed(sizes: int, decades: float, seeds: int, how: str, factor: float) -> Draw:
    """Exponent .1-.6, no or some offset, 1-5 % noise; part of the rows in another unit."""

    def one(rng: np.random.Generator) -> tuple[Array, Array]:
        z = np.repeat(np.linspace(0.0, decades * np.log(10), sizes), seeds)
        log_y = np.log(rng.choice([0.0, 0.05]) + np.exp(-rng.uniform(0.1, 0.6) * z))
        log_y = log_y + rng.choice([0.01, 0.03, 0.05]) * rng.normal(size=z.size)
        other = {"half": z > np.median(z), "turns": np.arange(z.size) % 2 == 1, "random": rng.random(z.size) < 0.4}[how]
        return z, log_y + other * np.log(factor)

    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000)
    tables = parser.parse_args().tables
    print("found, of tables in two units:")
    for sizes, decades, seeds in ((7, 6.0, 1), (8, 3.0, 1), (8, 3.0, 3), (12, 5.0, 1)):
        print(f"  {sizes} sizes over {decades:g} decades, {seeds} seeds:")
        for factor in FACTORS:
            shares = {how: rate(tables // 4, mixed(sizes, decades, seeds, how, factor)) for how in HOW}
            print(f"    {factor:.4g}: " + ", ".join(f"{how} {share:.1%}" for how, share in shares.items()), flush=True)
    print(f"seen where there are none, of {tables} tables:")
    for family in FAMILIES:
        print(f"  {family.name}: {rate(tables, from_family(family)):.2%}", flush=True)
    for make in (offset, broken, cliff, plateaus, plain_noise, hidden, descent, diverged):
        print(f"  {make.__name__}: {rate(tables, make):.2%}", flush=True)


if __name__ == "__main__":
    main()
