from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci import cli
from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.registry import source

ROOTS = (73012345678, 9, 101)
WHERE = "LH_10/LH_10_101"


def recursive_tree(rng: np.random.Generator, levels: int) -> dict[str, Any]:
    """Arrays of one tree, filled halo by halo from the root, as CosmoBench's script walks through ytree."""
    names, order, features, edges, main = [], [], [], [], []

    def visit(level: int, parent: int | None, on_main: bool) -> None:
        number = len(names)
        names.append(int(rng.integers(1, 2**40)))
        order.append(level)
        features.append([10 ** rng.uniform(11, 14), rng.uniform(2, 20), rng.uniform(50, 900), rng.uniform(0, 0.1)])
        features[-1] += [1 - 0.1 * level, *rng.uniform(0, 100, 3), *rng.normal(scale=300, size=3), *rng.normal(size=3)]
        if on_main:
            main.append(names[-1])
        if parent is not None:
            edges.append((number, parent))
        for child in range(int(rng.integers(0, 4)) if level < levels else 0):
            visit(level + 1, number, on_main and child == 0)

    visit(0, None, True)
    return {
        "node_name": np.array(names, dtype="i8"),
        "node_order": np.array(order, dtype="i8"),
        "node_feats": np.array(features, dtype="f4"),
        "edge_index": np.array(edges, dtype="i8"),
        "main_branch": np.array(main, dtype="i8"),
    }


def write(path: Path, simulations: tuple[int, ...] = (2, 10)) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for k in simulations:
            file[f"LH_{k}/y"] = [0.1 + k / 100, 0.6 + k / 100]
            for uid in ROOTS:
                for name, values in recursive_tree(rng, 4).items():
                    file[f"LH_{k}/LH_{k}_{uid}/{name}"] = values
    return path


def read(path: Path, **keys: str) -> list[Frame | BadFrame]:
    return list(source("merger-trees").reader()(path, keys))


def test_trees_keep_edges_features_branch_and_parameters(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.hdf5")
    frames = read(path)
    assert [(frame.group, frame.metadata["root"]) for frame in frames] == [
        (f"LH_{k}", uid) for k in (2, 10) for uid in sorted(ROOTS)
    ]
    with h5py.File(path) as file:
        for frame in frames:
            node, sample = file[f"{frame.group}/{frame.group}_{frame.metadata['root']}"], frame.sample
            raw = node["node_feats"][...].astype(float)
            np.testing.assert_allclose(10 ** sample.node_features[:, :3], raw[:, :3], rtol=1e-12)
            np.testing.assert_array_equal(sample.node_features[:, 3], raw[:, 4])
            expected = dict(node["edge_index"][...].tolist()) | {0: -1}
            assert dict(enumerate(sample.parent.tolist())) == expected
            branch = [node["node_name"][k] for k in np.flatnonzero(sample.main_branch)]
            assert branch == node["main_branch"][...].tolist()
            assert [sample.omega_m, sample.sigma_8] == file[f"{frame.group}/y"][...].tolist()


def test_import_divides_whole_simulations(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.hdf5", tuple(range(10)))
    main(["import", str(path), "--format", "merger-trees", "--out", str(tmp_path / "x.h5"), "--split-by", "group"])
    store = Store(tmp_path / "x.h5")
    assert store.fields == ("node_features", "parent", "main_branch", "omega_m", "sigma_8")
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 24, "val": 3, "test": 3}
    found = store.take(np.arange(30))
    assert found.lengths.tolist() == [len(frame.sample.parent) for frame in read(path)]
    np.testing.assert_array_equal(found.items["parent"], np.concatenate([f.sample.parent for f in read(path)]))
    assert store.metadata("root").tolist() == sorted(ROOTS) * 10


def test_main_branch_can_be_left_out(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "x.hdf5"), "a") as file:
        del file[f"{WHERE}/main_branch"]
    with pytest.raises(UserError, match=f"{WHERE} of .* has no main_branch; it has edge_index"):
        read(tmp_path / "x.hdf5")
    assert all(frame.sample.main_branch is None for frame in read(tmp_path / "x.hdf5", main_branch="none"))


def edited(path: Path, name: str, change: Callable[[np.ndarray], Any]) -> None:
    with h5py.File(path, "a") as file:
        values = change(file[name][...])
        del file[name]
        if values is not None:
            file[name] = values


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("LH_10/y", lambda v: None, "LH_10 of .* has no y; it has LH_10_101"),
        ("LH_10/y", lambda v: v[:1], r"LH_10 of .* has y of shape \(1,\), not Omega_m and sigma_8"),
        (f"{WHERE}/node_feats", lambda v: None, f"{WHERE} of .* has no node_feats"),
        (
            f"{WHERE}/node_feats",
            lambda v: v[:, :4],
            rf"{WHERE} of .* has node_feats of shape \(\d+, 4\), not 14 columns",
        ),
        (f"{WHERE}/edge_index", lambda v: v.astype("f8"), f"{WHERE} of .* has float64 under edge_index"),
    ],
)
def test_fault_of_the_file_is_an_error_with_group_and_field(
    tmp_path: Path, name: str, change: Callable[[np.ndarray], Any], message: str
) -> None:
    edited(write(tmp_path / "x.hdf5"), name, change)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "x.hdf5")


def cut_twice(edges: np.ndarray) -> np.ndarray:
    edges[1] = edges[0]
    return edges


def at(node: int, column: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(features: np.ndarray) -> np.ndarray:
        features[node, column] = value
        return features

    return change


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("node_feats", lambda v: v * np.nan, "mass (column 0 of node_feats) is not above zero throughout"),
        ("node_feats", lambda v: -np.abs(v), "mass (column 0 of node_feats) is not above zero"),
        ("node_feats", lambda v: v * [1e8, *[1] * 13], "a mass is above 10^17 Msun/h"),
        ("node_feats", at(3, 1, np.nan), "concentration (column 1 of node_feats) is not above zero"),
        ("node_feats", at(3, 2, np.inf), "vmax (column 2 of node_feats) is inf at node 3"),
        ("node_feats", at(3, 4, np.nan), "scale factor (column 4 of node_feats) is nan at node 3"),
        ("node_feats", at(0, 4, 1.5), "scale factor (column 4 of node_feats) is 1.5 at node 0, where halos have from"),
        ("node_feats", lambda v: v * [1e-10, *[1] * 13], "Msun/h: another unit?"),
        ("node_feats", lambda v: v * [1, 1, 1000, *[1] * 11], "vmax (column 2 of node_feats) is"),
        ("edge_index", lambda v: v[:-1], "where a tree has one edge fewer than nodes"),
        ("edge_index", cut_twice, "parents"),
        ("edge_index", lambda v: v + 10**6, "edge_index names node 10000"),
        ("edge_index", lambda v: v[:, ::-1], "parents"),
    ],
)
def test_unusable_tree_is_skipped_only_when_asked(
    tmp_path: Path, name: str, change: Callable[[np.ndarray], Any], reason: str
) -> None:
    edited(write(tmp_path / "x.hdf5"), f"{WHERE}/{name}", change)
    frames = read(tmp_path / "x.hdf5")
    (bad,) = (frame for frame in frames if isinstance(frame, BadFrame))
    assert bad.where == f"{WHERE} of {tmp_path / 'x.hdf5'}"
    assert reason in bad.reason
    assert len(frames) == 6


def test_other_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="is not a whole HDF5 file"):
        read(tmp_path / "x.hdf5")
    with h5py.File(tmp_path / "y.hdf5", "w") as file:
        file["BSQ/BSQ_0/X"] = np.zeros(3)
    with pytest.raises(UserError, match=r"has no groups LH_0, LH_1, ...; it has BSQ"):
        read(tmp_path / "y.hdf5")


def test_a_simulation_whose_parameters_are_not_numbers_is_named(tmp_path: Path) -> None:
    edited(write(tmp_path / "x.hdf5"), "LH_10/y", lambda v: v * [1, np.nan])
    bad = [frame for frame in read(tmp_path / "x.hdf5") if isinstance(frame, BadFrame)]
    assert len(bad) == 3
    assert all(frame.where.startswith("LH_10/LH_10_") and "sigma_8 is not finite" in frame.reason for frame in bad)


@settings(max_examples=25)
@given(share=st.floats(0, 0.999), places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4))
def test_damaged_file_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, share: float, places: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("x")
    content = bytearray(write(folder / "x.hdf5", (2,)).read_bytes())
    (folder / "cut.hdf5").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut\.hdf5"):
        read(folder / "cut.hdf5")
    for where, value in places:
        content[int(where * len(content))] = value
    (folder / "altered.hdf5").write_bytes(content)
    try:
        assert all(isinstance(frame, Frame | BadFrame) for frame in read(folder / "altered.hdf5"))
    except UserError as error:
        if "altered.hdf5" not in str(error):
            raise


def test_command_ends_with_one_sentence_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(write(tmp_path / "x.hdf5"), f"{WHERE}/node_feats", at(3, 1, np.nan))
    words = ["data", "import", str(tmp_path / "x.hdf5"), "--format", "merger-trees", "--out", str(tmp_path / "out.h5")]
    monkeypatch.setattr("sys.argv", ["scisci", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith(f"scisci: error: {WHERE} of ")
    assert "concentration (column 1 of node_feats)" in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.hdf5"]
