from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from scisci.contracts.errors import UserError
from scisci.data.ragged import Ragged
from scisci.data.samples import AtomsSample, CloudSample, Sample
from scisci.data.shifts import SHIFTS, Setting, measure, shift_named
from scisci.data.spectra import graph_edges, laplacian_spectra, quantile_functions
from scisci.data.store import Store
from scisci.data.writer import StoreWriter


def store_of(path: Path, samples: Iterable[Sample], domain: str = "atoms", train: int = 1, **columns: list) -> Store:
    """A store of `samples`, each its own group, of which the first `train` are the split `train`."""
    with StoreWriter(path / "x.h5", domain) as writer:
        for k, sample in enumerate(samples):
            writer.append(sample, f"g{k}", **{name: values[k] for name, values in columns.items()})
        writer.split("train", np.arange(train), "none")
    return Store(path / "x.h5")


def molecule(symbols: str, spacing: float = 1.0, **labels: object) -> AtomsSample:
    """Atoms in a row along x."""
    numbers = np.array([{"H": 1, "C": 6, "N": 7, "O": 8}[s] for s in symbols])
    positions = np.arange(len(numbers))[:, None] * np.array([[spacing, 0.0, 0.0]])
    return AtomsSample(numbers, positions, **labels)


def directed(pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Edges both ways, sorted by receiver."""
    edges = np.array([e for a, b in pairs for e in ((a, b), (b, a))], dtype=np.int64).reshape(-1, 2).T
    return edges[:, np.argsort(edges[1], kind="stable")]


def complete(n: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(n) for b in range(a)]


# Chung, "Spectral graph theory" (1997), examples 1.1 to 1.5.
CLOSED_FORMS = {
    "complete": (complete, lambda n: [0.0] + [n / (n - 1)] * (n - 1)),
    "path": (
        lambda n: [(k, k + 1) for k in range(n - 1)],
        lambda n: [1 - np.cos(np.pi * k / (n - 1)) for k in range(n)],
    ),
    "cycle": (
        lambda n: [(k, (k + 1) % n) for k in range(n)],
        lambda n: [1 - np.cos(2 * np.pi * k / n) for k in range(n)],
    ),
    "star": (lambda n: [(0, k) for k in range(1, n)], lambda n: [0.0] + [1.0] * (n - 2) + [2.0]),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("n", [3, 4, 7, 12])
def test_laplacian_spectrum_has_its_closed_form(name: str, n: int) -> None:
    pairs, expected = CLOSED_FORMS[name]
    found = laplacian_spectra(directed(pairs(n)), np.array([0, n]))
    np.testing.assert_allclose(found, sorted(expected(n)), atol=1e-12)


def test_spectra_of_several_graphs_do_not_mix_and_ignore_loops_and_double_edges() -> None:
    # A triangle with a doubled edge and a loop, a lone node, a pair, another triangle.
    pairs = [(0, 1), (1, 2), (0, 2), (0, 1), (4, 5), (6, 7), (7, 8), (6, 8)]
    edges = np.concatenate([directed(pairs), [[2], [2]]], axis=1)
    edges = edges[:, np.argsort(edges[1], kind="stable")]
    found = laplacian_spectra(edges, np.array([0, 3, 4, 6, 9]))
    np.testing.assert_allclose(found, [0, 1.5, 1.5, 0, 0, 2, 0, 1.5, 1.5], atol=1e-12)


@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_zero_eigenvalues_count_the_parts_of_a_graph(n: int, seed: int) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    pairs = [pair for pair in complete(n) if rng.random() < 0.25]
    edges = directed(pairs)
    parts = connected_components(coo_array((np.ones(edges.shape[1]), edges), shape=(n, n)))[0]
    spectrum = laplacian_spectra(edges, np.array([0, n]))
    assert (spectrum < 1e-9).sum() == parts
    assert spectrum.max() < 2 + 1e-9


@given(st.lists(st.floats(0, 2), min_size=1, max_size=8), st.lists(st.floats(0, 2), min_size=1, max_size=8))
def test_mean_difference_of_quantile_functions_is_the_wasserstein_distance(a: list[float], b: list[float]) -> None:
    offsets = np.array([0, len(a), len(a) + len(b)])
    levels = 8 * 7 * 5 * 3  # divisible by all sizes, so that the steps of both functions fall between middles
    one, two = quantile_functions(np.array([*sorted(a), *sorted(b)]), offsets, levels)
    assert np.abs(one - two).mean() == pytest.approx(wasserstein_distance(a, b), abs=1e-9)


def test_bonds_of_real_molecules(shipped: Store) -> None:
    """Methane is a star, ethyne C2H2 a path; hydrogens are not bonded to each other."""
    groups = shipped.sample_column("group")[shipped.split("train").indices()]
    for name, spectrum in (("CH4", [0, 1, 1, 1, 2]), ("C2H2", [0, 0.5, 1.5, 2])):
        sample = shipped.split("train").indices()[groups == shipped.groups.index(name)][:3]
        ragged = shipped.take(sample)
        found = laplacian_spectra(graph_edges(ragged, None), ragged.offsets)
        np.testing.assert_allclose(found, spectrum * 3, atol=1e-9)


@pytest.mark.parametrize(("apart", "side", "edges"), [(1.5, 3.0, 4), (2.6, 4.0, 2), (2.6, 6.0, 0)])
def test_periodic_images_are_bonded(apart: float, side: float, edges: int) -> None:
    """Two carbon atoms bonded on both sides (which counts once), only through the boundary, and not at all."""
    ragged = Ragged(
        np.array([0, 2]),
        {"numbers": np.array([6, 6]), "positions": np.array([[0.0, 0, 0], [apart, 0, 0]])},
        {"cell": np.diag([side, 20, 20])[None], "pbc": np.array([[True, False, False]])},
    )
    found = graph_edges(ragged, None)
    assert found.shape == (2, edges)
    np.testing.assert_allclose(laplacian_spectra(found, ragged.offsets), [0, 2] if edges else [0, 0], atol=1e-12)


def test_forces_by_hand(tmp_path: Path) -> None:
    """|F| = 5 and 0: rms sqrt(12.5), largest 5."""
    forces = np.array([[3.0, 0, 4.0], [0, 0, 0]])
    store = store_of(tmp_path, [molecule("HH", forces=forces), molecule("HHH", forces=np.full((3, 3), 2.0))])
    np.testing.assert_allclose(measure(Setting(store), "force_norm"), [np.sqrt(12.5), np.sqrt(12)], rtol=1e-6)
    np.testing.assert_allclose(measure(Setting(store), "force_max"), [5.0, np.sqrt(12)], rtol=1e-6)
    np.testing.assert_array_equal(measure(Setting(store), "size"), [2, 3])


def test_elements_and_compositions_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path, [molecule(s) for s in ("CHHHH", "OHH", "OHHOHH", "CCHH", "NNNN")], train=2)
    element = measure(Setting(store, elements=frozenset([8, 7])), "element")
    np.testing.assert_allclose(element, [0, 1 / 3, 1 / 3, 0, 1])
    # C2H2 is 0.5 C from CH4's 0.2 C; N is all of what is not there; (H2O)2 has the composition of H2O.
    np.testing.assert_allclose(measure(Setting(store), "composition"), [0, 0, 0, 0.3, 1], atol=1e-12)
    everything = Setting(store, reference=np.arange(5))
    np.testing.assert_array_equal(measure(everything, "composition"), 0)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_composition_distance_is_that_of_the_nearest_by_brute_force(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("HCNO"), rng.integers(1, 6))) for _ in range(12)]
    store = store_of(tmp_path_factory.mktemp("s"), [molecule(word) for word in words], train=5)
    shares = np.array([[word.count(s) / len(word) for s in "HCNO"] for word in words])
    nearest = np.abs(shares[:, None] - shares[None, :5]).sum(axis=2).min(axis=1) / 2
    np.testing.assert_allclose(measure(Setting(store), "composition"), nearest, atol=1e-12)


def test_density_of_cells_and_boxes(tmp_path: Path) -> None:
    cell = np.array([[2.0, 0, 0], [1.0, 3.0, 0], [0, 1.0, 4.0]])
    crystal = store_of(tmp_path / "a", [molecule("HH", cell=cell, pbc=np.ones(3, bool))])
    np.testing.assert_allclose(measure(Setting(crystal), "density"), [2 / 24])
    points = np.random.default_rng(0).random((8, 3))
    cloud = store_of(tmp_path / "b", [CloudSample(points, box=np.array([2.0, 2.0, 4.0]))], "cloud")
    np.testing.assert_allclose(measure(Setting(cloud), "density"), [0.5])
    slab = store_of(tmp_path / "c", [molecule("HH", cell=cell, pbc=np.array([True, True, False]))])
    with pytest.raises(UserError, match="not periodic in all directions"):
        measure(Setting(slab), "density")


def test_connectivity_is_the_distance_from_the_mean_spectrum(tmp_path: Path) -> None:
    """Reference: H4 in a row (path) and packed (complete); a row of 8 is far from their mean by scipy's account."""
    corner = np.array([[0.0, 0, 0], [0.7, 0, 0], [0, 0.7, 0], [0, 0, 0.7]])
    packed = AtomsSample(np.ones(4, dtype=int), corner)
    store = store_of(tmp_path, [molecule("HHHH"), packed, molecule("HHHHHHHH")], train=2)
    path = lambda n: 1 - np.cos(np.pi * np.arange(n) / (n - 1))
    # The mean of two quantile functions with four steps each has four steps.
    mean = (path(4) + np.array([0, 4 / 3, 4 / 3, 4 / 3])) / 2
    expected = [wasserstein_distance(s, mean) for s in (path(4), [0, 4 / 3, 4 / 3, 4 / 3], path(8))]
    np.testing.assert_allclose(measure(Setting(store, cutoff=1.1), "connectivity"), expected, atol=1e-8)
    padded = [np.square(np.pad(s, (0, 8 - len(s))) - np.pad(mean, (0, 4))).sum() for s in (path(4), path(8))]
    found = measure(Setting(store, cutoff=1.1), "connectivity_padded")
    np.testing.assert_allclose(found[[0, 2]], padded, atol=1e-8)


def test_connectivity_does_not_see_size_where_the_padded_distance_does(tmp_path: Path) -> None:
    """A union of two H2 has the spectrum of one H2 twice: [0, 0, 2, 2] against [0, 2], filled up to [0, 2, 0, 0]."""
    pairs = AtomsSample(np.ones(4, dtype=int), np.array([[0.0, 0, 0], [0.7, 0, 0], [9, 0, 0], [9.7, 0, 0]]))
    store = store_of(tmp_path, [molecule("HH", 0.7), pairs])
    np.testing.assert_allclose(measure(Setting(store), "connectivity"), 0, atol=1e-9)
    assert measure(Setting(store, cutoff=2.0), "connectivity_padded")[1] == pytest.approx(12.0)


def test_connectivity_of_points_needs_a_cutoff(tmp_path: Path) -> None:
    store = store_of(tmp_path, [CloudSample(np.random.default_rng(0).random((8, 3)))], "cloud")
    with pytest.raises(UserError, match="points have no bonds"):
        measure(Setting(store), "connectivity")
    assert measure(Setting(store, cutoff=0.5), "connectivity") == pytest.approx([0.0])


def test_metadata_columns_are_shifts(tmp_path: Path) -> None:
    store = store_of(tmp_path, [molecule("H"), molecule("H")], temperature=[300.0, 600.0], name=["a", "b"])
    np.testing.assert_array_equal(measure(Setting(store), "temperature"), [300, 600])
    with pytest.raises(UserError, match="holds text"):
        measure(Setting(store), "name")
    with pytest.raises(UserError, match="unknown shift or metadata column 'temprature'; did you mean 'temperature'"):
        measure(Setting(store), "temprature")


def test_what_a_store_lacks_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, [molecule("H")])
    with pytest.raises(UserError, match="needs forces"):
        shift_named("force_norm", store)
    with pytest.raises(UserError, match="needs cell or box"):
        shift_named("density", store)
    with pytest.raises(UserError, match="--elements"):
        measure(Setting(store), "element")


@pytest.mark.parametrize("name", [name for name in SHIFTS if name != "density"])
def test_severities_do_not_depend_on_how_the_store_is_read(
    name: str, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(Store(small_store), elements=frozenset([7]))
    whole = measure(setting, name)
    assert whole.shape == (len(setting.store),)
    monkeypatch.setattr("scisci.data.shifts.SLICE", 7)
    np.testing.assert_allclose(measure(setting, name), whole, atol=1e-9)


def test_whole_groups_have_one_severity_each(shipped: Store) -> None:
    groups, values = shipped.sample_column("group"), measure(Setting(shipped, seed=3), "group")
    assert len(np.unique(values)) == len(np.unique(groups)) == len(np.unique(groups + 100j * values))
