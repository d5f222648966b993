"""A second unit in the column of the loss is found; laws with breaks, noise and hidden structure are left alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.scaling.cli import main
from scisci.scaling.law import law
from scisci.scaling.studies import study
from scisci.scaling.units import two_units

from .tables import power_table, results_table
from .typical import TYPICAL

DECADES = np.geomspace(1e3, 1e9, 7)
LAST = np.arange(7) >= 4
TURNS = np.arange(7) % 2 == 1
UNITS = {1000.0: "meV and eV", 27.2114: "eV and Hartree", 23.0605: "kcal/mol and eV"}


def write(path: Path, table: dict[str, np.ndarray]) -> str:
    rows = zip(*table.values(), strict=True)
    path.write_text("\n".join([",".join(table), *(",".join(map(repr, map(float, row))) for row in rows)]) + "\n")
    return str(path)


@pytest.mark.parametrize("factor", [*UNITS, 1e-3])
@pytest.mark.parametrize("rows", [LAST, TURNS], ids=["last", "turns"])
def test_a_table_in_two_units_gets_a_sentence_and_no_number(
    factor: float, rows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = 3 * DECADES**-0.1 * np.where(rows, factor, 1.0)
    table, out = write(tmp_path / "t.csv", {"N": DECADES, "loss": loss}), tmp_path / "fit.json"
    with pytest.raises(UserError) as error:
        main(["fit", table, "--law", "power", "--x", "N=N", "--y", "loss", "--json", str(out)])
    side = "above" if factor > 1 else "below"
    sentence = f"3 of 7 rows (first: row {1 + int(np.argmax(rows))}) lie {side} the curve of the others"
    assert sentence in str(error.value)
    assert UNITS[max(factor, 1 / factor)] in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""
    assert not out.exists()


def test_the_group_in_two_units_is_named(tmp_path: Path) -> None:
    loss = 3 * DECADES**-0.1
    both = {"width": np.repeat([64.0, 128.0], 7), "N": np.tile(DECADES, 2)}
    table = write(tmp_path / "t.csv", both | {"loss": np.concatenate([loss, loss * np.where(TURNS, 1000.0, 1.0)])})
    with pytest.raises(UserError, match=r"^width 128(\.0)?: 'loss' jumps as no law does: 3 of 7 rows"):
        main(["fit", table, "--law", "power", "--x", "N=N", "--y", "loss", "--by", "width"])


def test_levels_that_a_steep_law_could_join_are_not_refused() -> None:
    """27 times lower a decade on is what N^-1.4 does; 27 times higher is what no falling law does."""
    loss = 3 * DECADES**-0.1
    assert two_units((DECADES,), np.log(loss * np.where(LAST, 1 / 27.2114, 1.0))) is None
    assert two_units((DECADES,), np.log(loss * np.where(LAST, 27.2114, 1.0))) is not None


@pytest.mark.parametrize("seed", range(5))
def test_noisy_runs_with_seeds_are_told_apart_row_by_row(seed: int) -> None:
    table = power_table(noise=0.05, sizes=8, seeds=3, seed=seed)
    other = np.random.default_rng(seed).random(24) < 0.4
    found = two_units((table["params"],), np.log(table["loss"] * np.where(other, 27.2114, 1.0)))
    assert found is not None
    assert (found.high == other).all()
    assert found.factor == pytest.approx(27.2114, rel=0.1)


@pytest.mark.parametrize("other", ["N", "D", "random"])
def test_a_law_of_two_variables_is_seen_through(other: str) -> None:
    rng = np.random.default_rng(3)
    n, d = (np.exp(rng.uniform(*ends, 60)) for ends in ((14, 25), (18, 27)))
    log_y = np.log(1.8 + 480 * n**-0.35 + 2100 * d**-0.37)
    assert two_units((n, d), log_y) is None
    rows = {"N": n > np.median(n), "D": d > np.median(d), "random": rng.random(60) < 0.3}[other]
    found = two_units((n, d), log_y + np.log(1000.0) * rows)
    assert found is not None
    assert (found.high == rows).all()


def test_a_conversion_nobody_uses_is_named_by_its_size_alone() -> None:
    found = two_units((DECADES,), np.log(3 * DECADES**-0.1 * np.where(LAST, 5e4, 1.0)))
    assert found is not None
    assert found.words == "about 50,000"


@pytest.mark.parametrize("name", sorted(TYPICAL))
def test_no_law_is_taken_for_two_units(name: str) -> None:
    (x, parameters), rng = TYPICAL[name], np.random.default_rng(0)
    log_y = np.log(law(name).value(*x, *np.array(parameters, float)))
    for noise in (0.0, 0.01, 0.1, 1.0):
        assert two_units(x, log_y + noise * rng.normal(size=len(log_y))) is None


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    sizes=st.integers(5, 20),
    decades=st.floats(1, 6),
    seeds=st.integers(1, 3),
    noise=st.sampled_from([0.0, 0.01, 0.05, 0.3]),
    breaks=st.integers(0, 2),
    floor=st.sampled_from([0.0, 1e-6, 1e-3, 0.1]),
)
def test_broken_laws_however_sharp_are_not_taken_for_two_units(
    seed: int, sizes: int, decades: float, seeds: int, noise: float, breaks: int, floor: float
) -> None:
    """Exponents that change by up to 1 within as little as a thousandth of an e-fold of N, and a floor."""
    rng = np.random.default_rng(seed)
    z = np.repeat(np.linspace(0.0, decades * np.log(10), sizes), seeds)
    log_y = -rng.uniform(-0.2, 1.5) * z
    for _ in range(breaks):
        change, at, width = rng.uniform(-1, 1), rng.uniform(0.1, 0.9) * z.max(), 10 ** rng.uniform(-3, 0)
        log_y = log_y - change * width * np.logaddexp(0.0, (z - at) / width)
    log_y = np.log(floor + np.exp(log_y)) + noise * rng.normal(size=z.size)
    assert two_units((1e4 * np.exp(z),), log_y) is None


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9), rows=st.integers(2, 40), size=st.sampled_from([0.1, 0.5, 1.0, 2.0, 5.0]))
def test_noise_is_not_taken_for_two_units(seed: int, rows: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.choice(np.geomspace(1e3, 1e8, 9), rows)
    assert two_units((x,), size * rng.normal(size=rows)) is None


def test_the_floor_of_a_steep_law_is_no_second_unit() -> None:
    """Three seeds at the first size, far above a floor that the next size has reached already."""
    n = np.repeat(np.geomspace(1e4, 1e8, 5), 3)
    log_y = np.log(1e-6 + (n / 1e4) ** -9.0) + 0.01 * np.random.default_rng(0).normal(size=15)
    assert log_y[:3].min() - log_y[3:].max() > np.log(1e5)
    assert two_units((n,), log_y) is None


def test_a_few_failed_runs_are_not_a_second_unit() -> None:
    """Runs that diverge do so each by its own amount, and one or two rows are no column of a unit."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        table = power_table(noise=0.03, seed=int(rng.integers(10**6)))
        log_y, failed = np.log(table["loss"]), rng.choice(16, rng.integers(1, 3), replace=False)
        log_y[failed] += np.log(1000.0)
        assert two_units((table["params"],), log_y) is None


def test_a_study_says_it_of_the_group_and_leaves_the_frontier_of_unlike_cells_alone(tmp_path: Path) -> None:
    """Data amounts 64 to 1,024 under an exponent of 1.5 put the cells of one size 60-fold apart: no second unit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = results_table(tmp_path / "t.parquet")
    whole = pq.read_table(path)
    frame = whole.to_pandas()
    frame["value"] *= (frame["data"] / 64.0) ** -1.35
    moved = (frame["architecture"] == "alpha_net") & (frame["split"] == "ood_hot") & (frame["params"] > 20_000)
    frame.loc[moved, "value"] *= 1000.0
    pq.write_table(pa.Table.from_pandas(frame, schema=whole.schema, preserve_index=False), path)
    entries = study(path, "force_mae", laws=("power",))
    refused = {(e.axis, e.group["architecture"], e.group["split"]) for e in entries if "as no law does" in e.reason}
    assert ("params", "alpha_net", "ood_hot") in refused
    assert {key[1:] for key in refused} == {("alpha_net", "ood_hot")}
    reason = next(e.reason for e in entries if "as no law does" in e.reason)
    assert re.search(r"4 of 8 rows \(first: row \d\) lie (above|below)", reason)
