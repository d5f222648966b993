from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.registry import source


def binary_tree(levels: int, simulation: int, seed: int = 0) -> Data:
    """A tree of two progenitors each, children after their parents, in the layout of the released files."""
    rng, nodes = np.random.default_rng([seed, simulation]), 2 ** (levels + 1) - 1
    child = np.arange(1, nodes)
    level = np.log2(np.arange(nodes) + 1).astype(int)
    lg = np.stack([rng.uniform(10.5, 14, nodes), rng.uniform(0, 1.2, nodes), rng.uniform(2, 3, nodes)], axis=1)
    names = rng.permutation(10**6)[:nodes]
    return Data(
        x=torch.tensor(np.column_stack([lg, 1 - 0.08 * level]), dtype=torch.float32),
        edge_index=torch.tensor(np.stack([child, (child - 1) // 2])),
        edge_attr=torch.full((nodes - 1, 1), 2.0),
        y=torch.tensor([[0.1 + simulation / 100, 0.6 + simulation / 100]]),
        num_nodes=nodes,
        lh_id=simulation,
        mask_main=names[2 ** np.arange(levels + 1) - 1],
        node_halo_id=torch.tensor(names)[:, None],
    )


def infilling(data: Data, swallowed: Callable[[int], bool] = lambda node: node % 3 == 0) -> Data:
    """The tree with a virtual node at each merger, node by node as CosmoBench's own code makes it."""
    halos = data.num_nodes
    mergers = [k for k in range(halos) if (data.edge_index[1] == k).sum() == 2]
    mean, std = data.x[:, :3].mean(dim=0), data.x[:, :3].std(dim=0)
    made = Data(edge_attr=data.edge_attr, y=data.y, lh_id=data.lh_id, mask_main=data.mask_main)
    made.node_halo_id, made.x_mean_excl_time, made.x_std_excl_time = data.node_halo_id, mean, std
    x = torch.cat([(data.x[:, :3] - mean) / std, data.x[:, 3:]], dim=1)
    made.x = torch.cat([x, torch.zeros(len(mergers), 4)])
    made.label = -torch.ones(halos + len(mergers)).long()
    made.vn_mask = torch.zeros(halos + len(mergers), dtype=torch.bool)
    made.edge_index = data.edge_index
    for k, node in enumerate(mergers):
        first, second = data.edge_index[0][data.edge_index[1] == node].tolist()
        edges = torch.tensor([[node, first, second], [halos + k] * 3])
        made.edge_index = torch.hstack([made.edge_index, edges])
        made.label[halos + k] = int(swallowed(node))
        made.vn_mask[halos + k] = True
    return made


def save(path: Path, trees: Any) -> Path:
    torch.save(trees, path)
    return path


def read(path: Path, **keys: str) -> list[Frame | BadFrame]:
    return list(source("cs-trees").reader()(path, keys))


def test_released_trees_keep_everything_that_is_read(tmp_path: Path) -> None:
    trees = [binary_tree(levels, simulation) for levels, simulation in ((3, 7), (0, 11), (5, 2))]
    frames = read(save(tmp_path / "CS_tree_train.pt", trees))
    assert length_hint(source("cs-trees").reader()(tmp_path / "CS_tree_train.pt", {})) == 3
    for data, frame in zip(trees, frames, strict=True):
        assert isinstance(frame, Frame)
        sample = frame.sample
        assert frame.group == f"LH_{data.lh_id}"
        assert frame.metadata == {"root": int(data.node_halo_id[0])}
        np.testing.assert_array_equal(sample.node_features, data.x)
        assert sample.parent.tolist() == [-1, *((k - 1) // 2 for k in range(1, data.num_nodes))]
        assert np.flatnonzero(sample.main_branch).tolist() == [2**k - 1 for k in range(len(data.mask_main))]
        assert [sample.omega_m, sample.sigma_8] == data.y[0].tolist()
        assert sample.label is None


@pytest.mark.parametrize("seed", range(4))
def test_trees_for_infilling_come_back_edge_by_edge(tmp_path: Path, seed: int) -> None:
    from scisci.data.trees import tree_edges

    plain = binary_tree(4, seed)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    plain.edge_index = plain.edge_index[:, order]
    data = infilling(plain)
    (frame,) = read(save(tmp_path / "x.pt", [data]))
    sample = frame.sample
    np.testing.assert_array_equal(sample.label, data.label)
    np.testing.assert_array_equal(sample.label >= 0, data.vn_mask)
    np.testing.assert_allclose(sample.node_features[:31], plain.x, rtol=1e-5)
    np.testing.assert_allclose(sample.node_features[31:, :3], np.tile(plain.x[:, :3].mean(0), (15, 1)), rtol=1e-5)
    edges = tree_edges(sample.parent, sample.label >= 0)
    assert sorted(edges.T.tolist()) == sorted(data.edge_index.T.tolist())
    assert (np.diff(edges[1]) >= 0).all()
    assert not sample.main_branch[31:].any()


def test_three_files_are_the_published_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "trees"
    folder.mkdir()
    for k, split in enumerate(("train", "val", "test")):
        save(folder / f"infilling_trees_25k_200_{split}.pt", [infilling(binary_tree(2, 10 * k + j)) for j in range(4)])
    options = ("--format", "cs-trees-infilling", "--out", str(tmp_path / "x.h5"))
    main(["import", str(folder), *options])
    store = Store(tmp_path / "x.h5")
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 4, "val": 4, "test": 4}
    assert store.fields == ("node_features", "parent", "main_branch", "label", "omega_m", "sigma_8")
    assert "'train' has 4 samples in its file, where 120 are published" in capsys.readouterr().out
    assert {store.groups[g][:4] for g in store.sample_column("group")[store.split("val").indices()]} == {"LH_1"}


def test_pickles_of_numpy_1_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "new.pt", [binary_tree(2, 3)])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "old.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            new.writestr(name, content)
    (frame,) = read(tmp_path / "old.pt")
    assert frame.sample.main_branch.sum() == 3


@pytest.mark.parametrize("place", ["alone", "in the list", "in a tree", "in an array"])
def test_anything_but_data_is_refused_and_not_run(tmp_path: Path, payload: Any, place: str) -> None:
    tree = binary_tree(2, 0)
    if place == "in a tree":
        tree.edge_attr = payload
    elif place == "in an array":
        tree.mask_main = np.array([payload, payload], dtype=object)
    path = save(
        tmp_path / "x.pt", payload if place == "alone" else [tree, payload] if place == "in the list" else [tree]
    )
    with pytest.raises(UserError, match=r"holds other objects .* could run any code; it was not loaded"):
        read(path)
    assert not payload.trace.exists()
    torch.load(path, weights_only=False)
    assert payload.trace.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_bare_pickle_is_refused_and_not_run(tmp_path: Path, payload: Any, protocol: int) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps([payload], protocol))
    with pytest.raises(UserError, match=r"x.pt"):
        read(tmp_path / "x.pt")
    assert not payload.trace.exists()


def test_permission_to_load_data_ends_with_the_file(tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    path = save(tmp_path / "x.pt", [binary_tree(2, 0)])
    read(path)
    assert set(torch.serialization.get_safe_globals()) == set(before)


def without(name: str) -> Callable[[Data], None]:
    return lambda data: data.__delattr__(name)


def put(name: str, change: Callable[[Any], Any]) -> Callable[[Data], None]:
    return lambda data: data.__setattr__(name, change(data[name]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("y"), "tree 1 of .* has no y; it has x, edge_index"),
        (without("lh_id"), "tree 1 of .* has no lh_id"),
        (without("mask_main"), "tree 1 of .* has no mask_main"),
        (put("x", lambda x: x[:, :3]), r"tree 1 of .* has x of shape \(31, 3\)"),
        (put("y", lambda y: y[:, :1]), r"tree 1 of .* y of \(1, 1\)"),
        (put("lh_id", lambda x: "seven"), "tree 1 of .* has <U5 under lh_id"),
        (without("x_std_excl_time"), "tree 1 of .* has no x_std_excl_time"),
    ],
)
def test_fault_of_the_file_is_an_error_with_tree_and_field(
    tmp_path: Path, edit: Callable[[Data], None], message: str
) -> None:
    trees = [infilling(binary_tree(3, k)) if "std" in message else binary_tree(4, k) for k in range(3)]
    edit(trees[1])
    with pytest.raises(UserError, match=message):
        read(save(tmp_path / "x.pt", trees))


def moved(edges: torch.Tensor) -> torch.Tensor:
    edges[0, -1] = 0
    return edges


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (put("x", lambda x: x * torch.tensor([torch.nan, 1, 1, 1])), "node_features is not finite"),
        (put("x", lambda x: x[:-1]), "label has shape (22,) for 21 nodes"),
        (put("edge_index", lambda e: e[:, 1:]), "where a tree has one edge fewer than nodes"),
        (put("edge_index", lambda e: e[:, :-1]), "not from a merger and its progenitors"),
        (put("edge_index", moved), "not from a merger and its progenitors"),
        (put("label", lambda x: x.flip(0)), "virtual nodes do not come after all halos"),
        (put("x_mean_excl_time", lambda x: x + 10), "a mass is above 10^17 Msun/h"),
    ],
)
def test_unusable_tree_is_a_bad_frame(tmp_path: Path, edit: Callable[[Data], None], reason: str) -> None:
    trees = [infilling(binary_tree(3, k)) for k in range(3)]
    edit(trees[1])
    frames = read(save(tmp_path / "x.pt", trees))
    (bad,) = (frame for frame in frames if isinstance(frame, BadFrame))
    assert bad.where == f"tree 1 of {tmp_path / 'x.pt'}"
    assert reason in bad.reason


@pytest.mark.parametrize("content", [{"x": torch.zeros(3)}, [torch.zeros(3)], torch.zeros(3)])
def test_other_tensors_are_no_trees(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="does not hold a list of Data"):
        read(save(tmp_path / "x.pt", content))


@settings(max_examples=25)
@given(share=st.floats(0, 0.999), places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4))
def test_damaged_file_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, share: float, places: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("x")
    content = bytearray(save(folder / "x.pt", [binary_tree(2, k) for k in range(2)]).read_bytes())
    (folder / "cut.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut\.pt"):
        read(folder / "cut.pt")
    for where, value in places:
        content[int(where * len(content))] = value
    (folder / "altered.pt").write_bytes(content)
    try:
        assert all(isinstance(frame, Frame | BadFrame) for frame in read(folder / "altered.pt"))
    except UserError as error:
        if "altered.pt" not in str(error):
            raise
