"""Several data sets in one store: every sample as it was, told apart, in splits that hold them in proportion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.combine import combine, interleaved
from scisci.data.references import fit_references
from scisci.data.resplit import resplit
from scisci.data.samples import AtomsSample
from scisci.data.splits import Part, Plan, leaks
from scisci.data.store import Store
from scisci.data.writer import StoreWriter


def write(path: Path, elements: list[int], count: int, rng: np.random.Generator, **options: Any) -> Store:
    """A store with labels made up, whose test split is graded sample by sample."""
    periodic, shard = options.pop("periodic", False), options.pop("shard", 1_000_000)
    columns = options.pop("columns", lambda k: {})
    order = rng.permutation(count)
    with StoreWriter(path, "atoms", shard_samples=shard) as writer:
        for k in range(count):
            atoms = int(rng.integers(1, 5))
            sample = AtomsSample(
                np.concatenate([elements, rng.choice(elements, atoms)]),
                3.0 * np.arange(len(elements) + atoms)[:, None] + rng.normal(size=(len(elements) + atoms, 3)),
                energy=float(rng.normal()),
                forces=rng.normal(size=(len(elements) + atoms, 3)),
            )
            if periodic:
                sample.cell, sample.pbc, sample.stress = 30.0 * np.eye(3), np.array([True, True, False]), np.eye(3)
            writer.append(sample, f"group {k % 7}", severity_x=float(rng.normal()), **columns(k))
        first, second = count // 2, 3 * count // 4
        writer.split("train", order[:first], "none", 0.5, severity_column="severity_x")
        writer.split("test", order[first:second], "far", 2.0, severity_column="severity_x")
        writer.split(f"ood_{path.stem}", order[second:], "farther", 3.0)
        writer.reference("energy", fit_references(writer.written(), order[:first])[0])
    return Store(path)


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Store]:
    """Molecules in one file and crystals in shards; metadata columns that both have, and that one has."""
    rng = np.random.default_rng(0)
    return {
        "a": write(tmp_path / "a.h5", [1, 6, 8], 40, rng, columns=lambda k: {"step": k, "source": f"run {k}"}),
        "b": write(tmp_path / "b", [6, 14], 24, rng, periodic=True, shard=10, columns=lambda k: {"step": k / 2}),
    }


@pytest.fixture
def both(stores: dict[str, Store], tmp_path: Path) -> Store:
    combine(stores, tmp_path / "both", without=["stress"])
    return Store(tmp_path / "both")


def test_every_sample_is_as_it_was(stores: dict[str, Store], both: Store) -> None:
    assert (len(both), both.datasets, both.name) == (64, ("a", "b"), "both")
    assert "stress" not in both.fields
    groups = np.array(both.groups)[both.sample_column("group")].tolist()
    for (name, store), start in zip(stores.items(), (0, 40), strict=True):
        mine = np.arange(start, start + len(store))
        found, wanted = both.take(mine), store.take(mine - start)
        assert (found.samples["dataset"] == list(stores).index(name)).all()
        np.testing.assert_array_equal(found.offsets, wanted.offsets)
        for kind in ("items", "samples"):
            for field in getattr(wanted, kind).keys() - {"group", "stress"}:
                np.testing.assert_array_equal(getattr(found, kind)[field], getattr(wanted, kind)[field])
        own = np.array(store.groups)[wanted.samples["group"]]
        assert [groups[k] for k in mine] == [f"{name}/{group}" for group in own]
        for column in ("step", "severity_x"):
            np.testing.assert_array_equal(both.metadata(column)[mine], store.metadata(column))
        np.testing.assert_array_equal(both.references["energy"][list(stores).index(name)], store.references["energy"])
    isolated = both.take(np.arange(40)).samples
    assert not isolated["pbc"].any()
    assert not isolated["cell"].any()
    assert both.metadata("source").tolist() == [f"run {k}" for k in range(40)] + [""] * 24
    assert both.metadata("dataset").tolist() == [0] * 40 + [1] * 24
    assert leaks(both) == []


def test_splits_of_the_same_name_are_joined(stores: dict[str, Store], both: Store) -> None:
    a, b = stores.values()
    assert set(both.splits) == {"train", "test", "ood_a", "ood_b"}
    for name in ("train", "test"):
        joined = both.split(name)
        indices = joined.indices()
        np.testing.assert_array_equal(indices[indices < 40], a.split(name).indices())
        np.testing.assert_array_equal(indices[indices >= 40] - 40, b.split(name).indices())
        graded = np.concatenate([store.metadata("severity_x") for store in (a, b)])
        np.testing.assert_array_equal(joined.severities(), graded[indices])
        assert joined.severity == a.split(name).severity
    assert both.split("test").shift == "far"
    assert both.split("ood_b").shift == "b: farther"
    np.testing.assert_array_equal(both.split("ood_b").indices() - 40, b.split("ood_b").indices())


def test_severities_of_shifts_that_differ_are_not_averaged(stores: dict[str, Store], tmp_path: Path) -> None:
    combine(stores, tmp_path / "x", without=["stress", "severity_x"])
    assert Store(tmp_path / "x").split("test").severity == 2.0  # equal in both
    rng = np.random.default_rng(1)
    with StoreWriter(tmp_path / "c.h5", "atoms") as writer:
        for _ in range(4):
            writer.append(AtomsSample([1], rng.normal(size=(1, 3)), energy=0.0, forces=np.zeros((1, 3))), "g")
        writer.split("train", np.arange(2), "none")
        writer.split("test", np.arange(2, 4), "hot", 600.0)
        writer.reference("energy", np.zeros(119))
    combine({"a": stores["a"], "c": Store(tmp_path / "c.h5")}, tmp_path / "y")
    found = Store(tmp_path / "y").split("test")
    assert (found.severity, found.severity_column, found.shift) == (None, None, "a: far; c: hot")


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(0, 99))
def test_the_first_of_a_joined_split_hold_every_set_in_proportion(sizes: list[int], seed: int) -> None:
    parts = [100 * k + np.random.default_rng(k).permutation(size) for k, size in enumerate(sizes)]
    order = interleaved(parts, np.random.default_rng(seed))
    assert (order == interleaved(parts, np.random.default_rng(seed))).all()
    for k, part in enumerate(parts):
        mine = order // 100 == k
        assert (order[mine] == part).all()
        share = np.arange(1, len(order) + 1) * len(part) / len(order)
        assert (np.abs(np.cumsum(mine) - share) <= max(1, len(parts) - 1)).all()


def test_another_seed_gives_another_order_and_the_same_one_the_same_store(
    stores: dict[str, Store], both: Store, tmp_path: Path
) -> None:
    combine(stores, tmp_path / "again", without=["stress"])
    combine(stores, tmp_path / "other", without=["stress"], seed=1)
    again, other = Store(tmp_path / "again"), Store(tmp_path / "other")
    assert again.fingerprint == both.fingerprint != other.fingerprint
    assert (other.split("train").indices() != both.split("train").indices()).any()


def test_other_splits_have_reference_energies_for_each_set(both: Store, tmp_path: Path) -> None:
    """Least squares for each set by itself; what only one set's training samples lack is told."""
    rng = np.random.default_rng(2)
    order = rng.permutation(64)
    parts = {"train": order[:40], "val": order[40:50], "test": order[50:]}
    strange = resplit(both, tmp_path / "again", Plan({name: Part(part, "none") for name, part in parts.items()}))
    found = Store(tmp_path / "again")
    assert (found.datasets, strange) == (("a", "b"), [])
    for dataset, mine in enumerate((parts["train"][parts["train"] < 40], parts["train"][parts["train"] >= 40])):
        ragged = both.take(mine)
        counts = np.add.reduceat(np.eye(119)[ragged.items["numbers"]], ragged.offsets[:-1])
        seen = counts.any(axis=0)
        expected, *_ = np.linalg.lstsq(counts[:, seen], ragged.samples["energy"], rcond=None)
        np.testing.assert_allclose(found.references["energy"][dataset][seen], expected, rtol=1e-6)
        assert np.isnan(found.references["energy"][dataset][~seen]).all()
    only_a = Plan({"train": Part(np.arange(20), ""), "val": Part(np.arange(20, 40), ""), "test": Part(order[:0], "")})
    assert resplit(both, tmp_path / "third", only_a) == [6, 14]


def test_batches_say_of_which_set_systems_are(stores: dict[str, Store], both: Store) -> None:
    rows = np.array([41, 3, 40, 60])
    batch = graph_batch(both.take(rows), 5.0)
    assert batch.dataset.tolist() == [1, 0, 1, 1]
    assert [batch[k].dataset.item() for k in range(4)] == [1, 0, 1, 1]
    assert "dataset" not in graph_batch(stores["a"].take(np.arange(2)), 5.0)
    for k, (name, row) in enumerate((("b", 1), ("a", 3), ("b", 0), ("b", 20))):
        alone = graph_batch(stores[name].take(np.array([row])), 5.0)
        assert batch[k].edge_index.tolist() == alone.edge_index.tolist()
        assert batch[k].edge_shift.tolist() == alone.edge_shift.tolist()


def test_elements_are_known_set_by_set(both: Store) -> None:
    known = (frozenset({1, 6, 8}), frozenset({6, 14}))
    graph_batch(both.take(np.arange(64)), 5.0, known)
    with pytest.raises(UserError, match=r"atomic numbers \[14\], but the model was trained on \[6\] only"):
        graph_batch(both.take(np.arange(64)), 5.0, (known[0], frozenset({6})))
    with pytest.raises(UserError, match=r"atomic numbers \[1, 8\]"):
        graph_batch(both.numbered(("b", "a")).take(np.arange(3)), 5.0, known)  # the numbers of another model


def test_sets_are_numbered_by_name(stores: dict[str, Store], both: Store) -> None:
    rows = np.array([1, 50, 2])
    assert both.numbered(()) is both
    assert both.numbered(("c", "b", "a")).take(rows).samples["dataset"].tolist() == [2, 1, 2]
    assert both.numbered(("c", "b", "a")).numbered(("a", "b")).take(rows).samples["dataset"].tolist() == [0, 1, 0]
    assert both.take(rows).samples["dataset"].tolist() == [0, 1, 0]
    assert stores["b"].numbered(("a", "b")).take(rows[:1]).samples["dataset"].tolist() == [1]
    with pytest.raises(UserError, match=r"trained on the data sets a, c, and .* is 'b'; say which .*NAME="):
        both.numbered(("a", "c"))


def test_a_library_folder_names_its_store(tmp_path: Path) -> None:
    for path, name in (("x/data.h5", "x"), ("y/data", "y"), ("z.h5", "z"), ("v1.2", "v1.2")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        assert write(tmp_path / path, [1], 4, np.random.default_rng(0)).name == name


def test_a_column_called_dataset_is_not_a_combined_store(tmp_path: Path) -> None:
    store = write(tmp_path / "x.h5", [1], 8, np.random.default_rng(0), columns=lambda k: {"dataset": k})
    assert store.datasets == ()
    assert "dataset" not in store.take(np.arange(2)).samples
    with pytest.raises(UserError, match="--without dataset"):
        combine({"x": store}, tmp_path / "y")
    combine({"x": store}, tmp_path / "y", without=["dataset"])
    assert Store(tmp_path / "y").metadata("dataset").tolist() == [0] * 8


def refused(stores: dict[str, Store], path: Path, match: str, **options: Any) -> None:
    before = sorted(path.parent.iterdir())
    with pytest.raises(UserError, match=match):
        combine(stores, path, **options)
    assert sorted(path.parent.iterdir()) == before


def test_what_cannot_be_combined_is_refused_and_nothing_is_written(
    stores: dict[str, Store], both: Store, particle_store: Path, tmp_path: Path
) -> None:
    new, rng = tmp_path / "new", np.random.default_rng(3)
    refused(stores, new, "a.h5 has no stress, which .*b has; leave it out of all with --without stress")
    refused(stores | {"p": Store(particle_store)}, new, "domain 'particles', and only atoms")
    refused({"both": both, "a": stores["a"]}, new, "combined already; combine those it was made of: a, b")
    refused({"x/y": stores["a"]}, new, "cannot be the name of a data set")
    refused(stores, tmp_path / "both", "exists already")
    refused(stores, tmp_path / "new.h5", "leave .h5 off")
    refused(stores, new, "did you mean 'step' or 'stress'", without=["stres"])
    refused(stores, new, "no atoms can be stored without positions", without=["positions"])
    refused(stores, new, "no atoms can be stored without pbc", without=["stress", "pbc"])
    text = write(tmp_path / "c.h5", [1], 8, rng, columns=lambda k: {"step": "third"})
    refused(
        {"a": stores["a"], "c": text},
        new,
        "'step' is a text in one data set and a number in another; .* --without step",
    )
    combine({"a": stores["a"], "c": text}, tmp_path / "steps", without=["step"])
    with StoreWriter(tmp_path / "d.h5", "atoms") as writer:
        writer.append(AtomsSample([1], np.zeros((1, 3)), energy=0.0, forces=np.zeros((1, 3))), "g")
        writer.split("train", np.arange(1), "none")
    refused({"a": stores["a"], "d": Store(tmp_path / "d.h5")}, new, "no per-element reference energies")
    with StoreWriter(tmp_path / "e.h5", "atoms") as writer:
        writer.append(AtomsSample([1], np.zeros((1, 3)), energy=0.0, forces=np.zeros((1, 3))), "g")
        writer.split("test", np.arange(1), "none")
    refused({"e": Store(tmp_path / "e.h5")}, new, "no split train")


def test_command(stores: dict[str, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (str(store.path) for store in stores.values())
    main(["combine", a, f"gfn={b}", "--without", "stress", "source", "--out", str(tmp_path / "out")])
    assert "data sets: a, gfn" in capsys.readouterr().out
    found = Store(tmp_path / "out")
    assert found.datasets == ("a", "gfn")
    with pytest.raises(UserError, match="metadata column 'source'"):
        found.metadata("source")
    main(["verify", str(tmp_path / "out")])
    with pytest.raises(UserError, match="two data sets are called 'a'; tell them apart with NAME=DATASET"):
        main(["combine", a, f"a={b}", "--out", str(tmp_path / "other")])
