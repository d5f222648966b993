from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.conventions import by_groups, nested_order, oc20, plain, three_bpa
from scisci.data.cuts import Cut, cut, cut_splits
from scisci.data.resplit import resplit
from scisci.data.samples import AtomsSample
from scisci.data.shifts import Setting, measure
from scisci.data.splits import Part, Plan, drawn, leaks
from scisci.data.store import Store
from scisci.data.writer import StoreWriter

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}


def values(size: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, size, elements=st.integers(0, 9).map(float))


@given(st.integers(30, 80).flatmap(lambda n: st.tuples(values(n), values(n))), st.integers(0, 9))
def test_cuts_partition_the_samples_and_order_severities(columns: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """Every sample is in one split; each tail lies above all of `train`, level by level; `ood_both` beyond both."""
    cuts = [
        Cut("a", columns[0], (4.0, 7.0), "", "", "severity_a"),
        Cut("b", columns[1], (5.0,), "", "", "severity_b"),
    ]
    a, b = columns
    wanted = {
        "train": (a <= 4) & (b <= 5),
        "ood_a_1": (a > 4) & (a <= 7) & (b <= 5),
        "ood_a_2": (a > 7) & (b <= 5),
        "ood_b": (a <= 4) & (b > 5),
        "ood_both": (a > 4) & (b > 5),
    }
    if not all(mask.any() for name, mask in wanted.items() if name != "ood_both"):
        with pytest.raises(UserError, match="no sample is left"):
            cut_splits(cuts, seed)
        return
    plan = cut_splits(cuts, seed)
    for name, mask in wanted.items():
        if mask.any():
            assert sorted(plan.parts[name].indices) == np.flatnonzero(mask).tolist()
    assert sum(len(part.indices) for part in plan.parts.values()) == len(a)
    assert plan.parts["ood_a_1"].severity == pytest.approx(a[wanted["ood_a_1"]].mean())


@given(st.lists(st.integers(0, 12), min_size=60, max_size=120), st.integers(0, 50))
def test_drawing_divides_a_split_and_never_a_group(labels: list[int], seed: int) -> None:
    groups = np.array([*labels, *range(6)])
    half = np.flatnonzero(groups % 2 == 0)
    plan = Plan({"train": Part(half, "none"), "ood_odd": Part(np.flatnonzero(groups % 2), "odd")})
    try:
        parts = drawn(plan, FRACTIONS, seed, groups).parts
    except UserError:  # too few groups
        assert len(np.unique(groups[half])) < 6
        return
    assert list(parts) == ["train", "val", "test", "ood_odd"]
    inside = [parts[name].indices for name in FRACTIONS]
    assert sorted(np.concatenate(inside)) == half.tolist()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not set(groups[inside[one]]) & set(groups[inside[other]])


def test_drawing_over_a_split_that_is_there_is_refused() -> None:
    plan = Plan({"train": Part(np.arange(9), ""), "val": Part(np.arange(9, 12), "")})
    with pytest.raises(UserError, match="'val' is there already"):
        drawn(plan, FRACTIONS)


@given(hnp.arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 3)), st.integers(0, 20))
def test_nested_sets_are_prefixes_of_one_order(rank: np.ndarray, seed: int) -> None:
    order = nested_order(rank, seed)
    assert sorted(order) == list(range(len(rank)))
    for k in range(4):
        size = (rank <= k).sum()
        assert set(order[:size]) == set(np.flatnonzero(rank <= k))


def test_the_order_within_a_nested_set_is_random_and_fixed_by_the_seed() -> None:
    rank = np.zeros(100, dtype=int)
    order = nested_order(rank, 1)
    assert (order == nested_order(rank, 1)).all()
    for other in (nested_order(rank, 2), np.arange(100)):
        assert (order == other).sum() < 20


def test_oc20_tags_become_its_splits() -> None:
    """200K within 2M within 20M, scaled down: 20, 200 and 2000 samples."""
    sizes = {"train_200K": 20, "train_2M": 180, "train_20M": 1800, "val_id": 40}
    sizes |= {f"val_ood_{name}": 30 for name in ("ads", "cat", "both")}
    tags = np.random.default_rng(0).permutation(np.repeat(list(sizes), list(sizes.values())))
    parts = oc20(tags.tolist(), seed=5).parts
    train = parts["train"].indices
    for size, members in (
        (20, {"train_200K"}),
        (200, {"train_200K", "train_2M"}),
        (2000, {t for t in sizes if "train" in t}),
    ):
        assert set(train[:size]) == set(np.flatnonzero(np.isin(tags, list(members))))
    assert len(parts["val"].indices) == len(parts["test"].indices) == 20
    assert set(tags[np.concatenate([parts["val"].indices, parts["test"].indices])]) == {"val_id"}
    for name in ("ood_ads", "ood_cat", "ood_both"):
        assert set(tags[parts[name].indices]) == {f"val_{name}"}
    assert sorted(np.concatenate([part.indices for part in parts.values()])) == list(range(len(tags)))


def test_3bpa_tags_become_its_splits() -> None:
    tags = (
        ["train_300K"] * 20
        + ["test_300K"] * 5
        + ["test_600K"] * 4
        + ["test_1200K"] * 3
        + ["test_dih_beta120"] * 2
        + ["test_dih"]
    )
    plan = three_bpa(tags)
    found = {name: (len(part.indices), part.severity) for name, part in plan.parts.items()}
    assert found == {
        "train": (20, 300.0),
        "test": (5, 300.0),
        "ood_600K": (4, 600.0),
        "ood_1200K": (3, 1200.0),
        "ood_dihedral": (1, None),
        "ood_dihedral_120": (2, None),
    }
    assert set(plan.columns["severity_temperature"][plan.parts["ood_1200K"].indices]) == {1200.0}
    with pytest.raises(UserError, match="'train_mixedT' is not one of this convention"):
        three_bpa([*tags, "train_mixedT"])
    with pytest.raises(UserError, match="second split 'train'"):
        three_bpa([*tags, "train_600K"])


def test_plain_tags_are_names_of_splits() -> None:
    parts = plain(["train", "val", "ood_slab", "test", "train"]).parts
    assert sorted(parts["train"].indices) == [0, 4]
    assert parts["ood_slab"].indices.tolist() == [2]
    with pytest.raises(UserError, match="'valid' is not one"):
        plain(["train", "valid"])


def test_listed_groups_are_held_out() -> None:
    names, groups = ["a", "b", "c"], np.array([0, 1, 2, 1, 0, 2])
    parts = by_groups(names, groups, {"ood_x": ["b"], "ood_y": ["c"]}).parts
    assert {name: sorted(part.indices) for name, part in parts.items()} == {
        "train": [0, 4],
        "ood_x": [1, 3],
        "ood_y": [2, 5],
    }
    with pytest.raises(UserError, match="lists 1 groups that the store lacks, such as 'z'"):
        by_groups(names, groups, {"ood_x": ["b", "z"]})
    with pytest.raises(UserError, match="'b' is listed for two splits"):
        by_groups(names, groups, {"ood_x": ["b"], "ood_y": ["b"]})


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["abc"], "not understood"),
        (["0%"], "not possible"),
        (["100%"], "not possible"),
        (["10", "10.0"], "are the same"),
        (["99"], "no sample is left for the split 'ood_size' .*size from 4 to 10"),
        (["2"], "no sample is left for the split 'train'"),
    ],
)
def test_impossible_levels_are_refused(small_store: Path, levels: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cut_splits([cut(Setting(Store(small_store)), "size", levels)])


def shards_of(source: Store, path: Path) -> Store:
    """The samples of a store in a folder of shards of 100, with its splits and references."""
    with StoreWriter(path, "atoms", shard_samples=100) as writer:
        ragged = source.take(np.arange(len(source)))
        for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
            sample = AtomsSample(
                ragged.items["numbers"][a:b],
                ragged.items["positions"][a:b],
                forces=ragged.items["forces"][a:b],
                energy=float(ragged.samples["energy"][k]),
            )
            writer.append(sample, source.groups[ragged.samples["group"][k]], frame=k)
        for split in source.splits.values():
            writer.split(split.name, split.indices(), split.shift, split.severity)
        writer.reference("energy", source.references["energy"])
    return Store(path)


def test_new_splits_are_written_beside_an_unchanged_store_of_several_shards(small_store: Path, tmp_path: Path) -> None:
    old = shards_of(Store(small_store), tmp_path / "old")
    assert len(old.shards) == 2
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    plan = drawn(cut_splits([cut(Setting(old), "force_norm", ["70%", "90%"])]), FRACTIONS)
    resplit(old, tmp_path / "new", plan)
    new = Store(tmp_path / "new")
    new.verify()
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
    assert new.fingerprint != old.fingerprint
    assert leaks(new) == []
    every = np.arange(len(old))
    np.testing.assert_array_equal(new.take(every).items["forces"], old.take(every).items["forces"])
    np.testing.assert_array_equal(new.metadata("frame"), every)
    assert sorted(new.splits) == ["ood_force_norm_1", "ood_force_norm_2", "test", "train", "val"]
    norms = measure(Setting(old), "force_norm")
    highest = max(new.split(name).severities().max() for name in FRACTIONS)
    assert highest == np.quantile(norms, 0.7, method="lower")
    for lower, upper in (("train", "ood_force_norm_1"), ("ood_force_norm_1", "ood_force_norm_2")):
        assert new.split(lower).severities().max() < new.split(upper).severities().min()
    for split in new.splits.values():
        np.testing.assert_array_equal(split.severities(), norms[split.indices()])
        assert split.severity == pytest.approx(split.severities().mean())
        np.testing.assert_array_equal(split.severities(5), split.severities()[:5])
    assert len(list(tmp_path.iterdir())) == 2


def test_references_are_those_of_the_new_train(small_store: Path, tmp_path: Path) -> None:
    """Least squares over the training samples alone, by numpy; elements held out have none."""
    old = Store(small_store)
    setting = Setting(old, elements=frozenset([8]))
    plan = drawn(cut_splits([cut(setting, "element", [])]), FRACTIONS)
    assert resplit(old, tmp_path / "new.h5", plan) == [8]
    new = Store(tmp_path / "new.h5")
    ragged = new.take(new.split("train").indices())
    counts = np.stack([np.bincount(z, minlength=119) for z in np.split(ragged.items["numbers"], ragged.offsets[1:-1])])
    elements = np.flatnonzero(counts.any(axis=0))
    expected = np.linalg.lstsq(counts[:, elements].astype(float), ragged.samples["energy"], rcond=None)[0]
    assert np.flatnonzero(np.isfinite(new.references["energy"])).tolist() == elements.tolist()
    np.testing.assert_allclose(new.references["energy"][elements], expected, rtol=1e-8)
    assert new.split("ood_element").disjoint  # every frame of a molecule has the same elements
    assert not new.split("test").disjoint


def test_severities_of_older_splits_go_and_metadata_stays(small_store: Path, tmp_path: Path) -> None:
    old = Store(small_store)
    resplit(old, tmp_path / "a.h5", drawn(cut_splits([cut(Setting(old), "connectivity", [])]), FRACTIONS))
    middle = Store(tmp_path / "a.h5")
    resplit(middle, tmp_path / "b.h5", drawn(cut_splits([cut(Setting(middle), "size", ["8"])]), FRACTIONS))
    with h5py.File(tmp_path / "b.h5") as file:
        assert list(file["metadata"]) == ["severity_size"]


def test_splits_written_without_severities_say_so(small_store: Path) -> None:
    with pytest.raises(UserError, match="has no severity per sample"):
        Store(small_store).split("train").severities()


def test_nothing_is_left_of_a_copy_that_fails(small_store: Path, tmp_path: Path) -> None:
    old = Store(small_store)
    with pytest.raises(UserError, match="lack 'val'"):
        resplit(old, tmp_path / "new.h5", Plan({"train": Part(np.arange(5), "")}))
    parts = {name: Part(np.array([k]), "") for k, name in enumerate(FRACTIONS)}
    with pytest.raises(TypeError):
        resplit(old, tmp_path / "new.h5", Plan(parts, {"severity_x": np.array([object()] * len(old))}))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new.h5").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        resplit(old, tmp_path / "new.h5", Plan(parts))
    with pytest.raises(UserError, match="has 2 shards, which need a folder"):
        resplit(shards_of(old, tmp_path / "old"), tmp_path / "other.h5", Plan(parts))


def test_an_altered_store_is_not_copied(small_store: Path, tmp_path: Path) -> None:
    store = Store(small_store)
    store.fingerprint = "0" * 64
    parts = {name: Part(np.array([k]), "") for k, name in enumerate(FRACTIONS)}
    with pytest.raises(UserError, match="was altered"):
        resplit(store, tmp_path / "new.h5", Plan(parts))


def run(*words: object) -> None:
    main(["split", *map(str, words)])


def test_shipped_molecules_split_by_three_shifts_at_once(
    tmp_path: Path, shipped: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.h5"
    run("xtb-molecules", "--out", out, "--by", "force_norm", "--train-below", "90%", "99%", "--by", "size",
        "--train-below", 10, "--by", "connectivity", "--split-by", "group")  # fmt: skip
    main(["verify", str(out)])
    assert "splits without leaks" in capsys.readouterr().out
    store = Store(out)
    assert sum(split.size for split in store.splits.values()) == len(shipped)
    assert {name for name in store.splits if name.startswith("ood")} == {
        "ood_force_norm_1", "ood_force_norm_2", "ood_size", "ood_connectivity", "ood_several"
    }  # fmt: skip
    assert store.split("test").disjoint
    assert store.split("ood_size").disjoint
    assert store.split("ood_size").severities().min() == 11
    trained = store.split("train").indices()
    for name in ("force_norm", "size", "connectivity"):
        column = store.metadata(f"severity_{name}")
        assert column[trained].max() < min(
            split.severities().min() for split in store.splits.values() if split.severity_column == f"severity_{name}"
        )


def test_temperature_is_a_shift_by_its_metadata_column(tmp_path: Path, shipped: Store) -> None:
    out = tmp_path / "new.h5"
    run("xtb-molecules", "--out", out, "--by", "temperature", "--train-below", 300, 600)
    store = Store(out)
    for name, other, kelvin in (("ood_temperature_1", "ood_600K", 600), ("ood_temperature_2", "ood_1200K", 1200)):
        assert sorted(store.split(name).indices()) == sorted(shipped.split(other).indices())
        assert store.split(name).severity == kelvin
        assert set(store.split(name).severities()) == {kelvin}


def test_listed_groups_are_held_out_by_the_command(tmp_path: Path, shipped: Store) -> None:
    (tmp_path / "rings.txt").write_text("C6H6\n\nC5H5N\n")
    run("xtb-molecules", "--out", tmp_path / "new.h5", "--group-list", f"ood_rings={tmp_path / 'rings.txt'}")
    store = Store(tmp_path / "new.h5")
    split = store.split("ood_rings")
    assert {store.groups[g] for g in store.sample_column("group")[split.indices()]} == {"C6H6", "C5H5N"}
    assert split.disjoint


def tagged(path: Path) -> Path:
    """A store with the tags of 3BPA in a metadata column."""
    tags = ["train_300K"] * 20 + ["test_300K"] * 6 + ["test_600K"] * 4
    with StoreWriter(path, "atoms") as writer:
        for k, tag in enumerate(tags):
            writer.append(AtomsSample(np.array([1]), np.zeros((1, 3)), energy=float(k)), "3BPA", file=tag)
        writer.split("train", np.arange(len(tags)), "none")
        writer.reference("energy", np.zeros(119))
    return path


def test_a_column_of_tags_becomes_splits_by_the_command(tmp_path: Path) -> None:
    old = tagged(tmp_path / "old.h5")
    choose = ("--out", tmp_path / "new.h5", "--split-column", "file", "--convention", "3bpa")
    with pytest.raises(UserError, match=r"lack 'val'.*--split val=FRACTION"):
        run(old, *choose)
    run(old, *choose, "--split", "train=0.9", "val=0.1")
    store = Store(tmp_path / "new.h5")
    assert {name: split.size for name, split in store.splits.items()} == {
        "ood_600K": 4,
        "test": 6,
        "train": 18,
        "val": 2,
    }
    assert set(store.split("val").severities()) == {300.0}
    assert set(store.split("ood_600K").severities()) == {600.0}
    assert leaks(store) == []


def test_particles_are_split_by_how_many_there_are(particle_store: Path, tmp_path: Path) -> None:
    run(particle_store, "--out", tmp_path / "new.h5", "--by", "size", "--train-below", 5)
    old, new = Store(particle_store), Store(tmp_path / "new.h5")
    assert sorted(new.split("ood_size").indices()) == sorted(old.split("ood_bodies8").indices())
    assert new.split("ood_size").severity == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "force"], "unknown shift or metadata column 'force'"),
        (["--by", "element"], "give --elements"),
        (["--by", "element", "--elements", "Xq"], "unknown element 'Xq'"),
        (["--train-below", "3", "--by", "size"], "belongs to the --by before it"),
        (["--by", "connectivity", "--cutoff", "-1"], "--cutoff is -1.0"),
        (["--by", "connectivity", "--reference", "trian"], "unknown split 'trian'"),
        (["--by", "size", "--split", "val=0.5"], "no split named train"),
        (["--split-column", "tag"], "unknown metadata column 'tag'"),
        (["--split-column", "temperature", "--convention", "oc22"], "unknown convention 'oc22'"),
        (["--group-list", "ood_x=/nowhere"], "cannot read /nowhere"),
        (["--by", "size", "--by", "size"], "--by size is given twice"),
        (["--group-list", "train=/dev/null"], "cannot be held out for 'train'"),
        (["--group-list", "ood_x=/dev/null"], "the list for 'ood_x' is empty"),
        (["--by", "size", "--elements", "O"], "--elements means nothing"),
        (["--by", "size", "--cutoff", "3"], "--cutoff means nothing"),
        (["--by", "size", "--reference", "all"], "--reference means nothing"),
        (["--by", "size", "--convention", "oc20"], "--convention means nothing"),
    ],
)
def test_what_a_user_gets_wrong_is_said_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, shipped: Store
) -> None:
    with pytest.raises(UserError, match=message):
        run("xtb-molecules", "--out", tmp_path / "new.h5", *words)
    assert list(tmp_path.iterdir()) == []


def test_shifts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["shifts"])
    shown = capsys.readouterr().out
    assert "force_norm" in shown
    assert "Kreiman" in shown
