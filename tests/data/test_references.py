from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.data import references
from scisci.data.references import fit_references
from scisci.data.samples import AtomsSample
from scisci.data.writer import StoreWriter


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), subset=st.integers(6, 40), shard=st.sampled_from([15, 40]))
def test_references_of_a_subset_are_its_least_squares_solution(
    tmp_path_factory: pytest.TempPathFactory, seed: int, subset: int, shard: int
) -> None:
    rng = np.random.default_rng(seed)
    elements = np.array([1, 6, 8])
    counts = rng.integers(0, 4, (40, 3)) + np.eye(3, dtype=int)[rng.integers(0, 3, 40)]
    energies = counts @ [-13.0, -1030.0, -2040.0] + rng.normal(size=40)
    chosen = rng.permutation(40)[:subset]
    with (
        pytest.MonkeyPatch.context() as patch,
        StoreWriter(tmp_path_factory.mktemp("x") / "shards", "atoms", shard_samples=shard) as writer,
    ):
        patch.setattr(references, "SAMPLES_AT_ONCE", 7)
        for row, energy in zip(counts, energies, strict=True):
            numbers = rng.permutation(np.repeat(elements, row))
            writer.append(AtomsSample(numbers, rng.normal(size=(len(numbers), 3)), energy=energy), "a")
        found, others = fit_references(writer.written(), chosen)
    seen = counts[chosen].any(axis=0)
    expected, *_ = np.linalg.lstsq(counts[chosen][:, seen].astype(float), energies[chosen], rcond=None)
    # Both are the shortest solution, so they agree where the compositions do not pin it down too.
    np.testing.assert_allclose(found[elements[seen]], expected, rtol=1e-6, atol=1e-4)
    assert np.isfinite(found).sum() == seen.sum()
    assert others == elements[counts.any(axis=0) & ~seen].tolist()
