from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scisci.data.references import CompositionLog


@given(seed=st.integers(0, 10_000), subset=st.integers(6, 40))
def test_references_of_a_subset_are_its_least_squares_solution(seed: int, subset: int) -> None:
    rng = np.random.default_rng(seed)
    elements = np.array([1, 6, 8])
    counts = rng.integers(0, 4, (40, 3)) + np.eye(3, dtype=int)[rng.integers(0, 3, 40)]
    energies = counts @ [-13.0, -1030.0, -2040.0] + rng.normal(size=40)
    log = CompositionLog()
    for row, energy in zip(counts, energies, strict=True):
        log.add(rng.permutation(np.repeat(elements, row)), energy)
    chosen = rng.permutation(40)[:subset]
    seen = counts[chosen].any(axis=0)
    expected, *_ = np.linalg.lstsq(counts[chosen][:, seen].astype(float), energies[chosen], rcond=None)
    found = log.fit(chosen)
    # Both are the shortest solution, so they agree where the compositions do not pin it down too.
    np.testing.assert_allclose(found[elements[seen]], expected, rtol=1e-6, atol=1e-4)
    assert np.isfinite(found).sum() == seen.sum()
    assert log.elements == set(elements[counts.any(axis=0)].tolist())
