from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path, write_text
from scisci.data.ragged import Ragged
from scisci.data.samples import AtomsSample, CloudSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter


def random_samples(rng: np.random.Generator, count: int) -> list[AtomsSample]:
    return [
        AtomsSample(
            numbers=rng.integers(1, 10, n),
            positions=rng.normal(size=(n, 3)).astype("f4"),
            energy=float(rng.normal()),
            forces=rng.normal(size=(n, 3)).astype("f4"),
        )
        for n in rng.integers(1, 9, count)
    ]


def write(path: Path, samples: list[AtomsSample], **options: int) -> Store:
    with StoreWriter(path, "atoms", **options) as writer:
        for i, sample in enumerate(samples):
            writer.append(sample, f"group-{i % 3}", temperature=float(i), tag=f"t{i}")
        writer.split("train", np.arange(len(samples))[::-1], "none")
    return Store(path)


def assert_equal(ragged: Ragged, samples: list[AtomsSample]) -> None:
    assert len(ragged) == len(samples)
    for k, sample in enumerate(samples):
        rows = slice(ragged.offsets[k], ragged.offsets[k + 1])
        np.testing.assert_array_equal(ragged.items["numbers"][rows], sample.numbers)
        np.testing.assert_array_equal(ragged.items["positions"][rows], sample.positions)
        np.testing.assert_array_equal(ragged.items["forces"][rows], sample.forces)
        assert ragged.samples["energy"][k] == sample.energy


@settings(max_examples=25, deadline=None)
@given(data=st.data(), count=st.integers(1, 40), shard=st.integers(1, 50), seed=st.integers(0, 9))
def test_any_samples_come_back_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, shard: int, seed: int
) -> None:
    samples = random_samples(np.random.default_rng(seed), count)
    store = write(tmp_path_factory.mktemp("s") / "shards", samples, shard_samples=shard)
    assert len(store._paths) == -(-count // shard)
    wanted = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=60))
    from_file = store.take(np.array(wanted))
    assert_equal(from_file, [samples[i] for i in wanted])
    assert_equal(store.take(np.arange(count)).take(np.array(wanted)), [samples[i] for i in wanted])


def test_one_file_and_shards_hold_the_same(tmp_path: Path) -> None:
    samples = random_samples(np.random.default_rng(0), 25)
    one, many = write(tmp_path / "one.h5", samples), write(tmp_path / "many", samples, shard_samples=4)
    for store in (one, many):
        assert_equal(store.take(np.arange(25)), samples)
        assert store.metadata("temperature").tolist() == list(range(25))
        assert store.metadata("tag")[7] == "t7"
        assert store.split("train").indices(3).tolist() == [24, 23, 22]
        store.verify()


def test_same_content_has_the_same_fingerprint_and_other_content_another(tmp_path: Path) -> None:
    samples = random_samples(np.random.default_rng(0), 10)
    first, second = write(tmp_path / "a.h5", samples), write(tmp_path / "b.h5", samples)
    assert first.fingerprint == second.fingerprint
    samples[3].positions[0, 0] = np.nextafter(samples[3].positions[0, 0], 9)
    assert write(tmp_path / "c.h5", samples).fingerprint != first.fingerprint


def test_fingerprint_does_not_depend_on_how_much_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with StoreWriter(path, "atoms", checked=True) as writer:
        for k in range(40_000):
            writer.append(AtomsSample(np.array([1]), np.full((1, 3), k), energy=float(k)), f"molecule {k}")
    sha = hashlib.sha256(b"atoms:1")
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
        for name in sorted(names):
            node = file[name]
            sha.update(f"{name}:{sorted((key, str(value)) for key, value in node.attrs.items())}".encode())
            if isinstance(node, h5py.Dataset):
                sha.update(f"{node.shape}:{node.dtype}".encode())
                sha.update(b"\0".join(node[...]) if node.dtype == object else node[...].tobytes())
    assert Store(path).fingerprint == sha.hexdigest()
    assert Store(path).groups[39_999] == "molecule 39999"


def test_edited_store_is_refused(small_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "edited.h5"
    shutil.copy(small_store, path)
    with h5py.File(path, "r+") as file:
        file["samples/energy"][0] += 1e-6
    with pytest.raises(UserError, match="altered after it was written"):
        Store(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_store_is_refused(small_store: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.h5"
    content = small_store.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="truncated"):
        Store(path)


def test_flipped_byte_is_found_when_read(small_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "flipped.h5"
    with h5py.File(small_store) as file:
        chunk = file["items/positions"].id.get_chunk_info(0)
    content = bytearray(small_store.read_bytes())
    content[chunk.byte_offset + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        Store(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.h5 is not a readable store"):
        Store(tmp_path / "x.h5")


def test_other_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = 1
    with pytest.raises(UserError, match="not a scisci store"):
        Store(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": float("nan")}, "energy is not finite"),
        ({"forces": np.full((2, 3), np.inf)}, "forces is not finite"),
        ({"forces": np.zeros((3, 3))}, "forces has shape"),
        ({"numbers": np.zeros(0, int), "positions": np.zeros((0, 3))}, "no atoms"),
    ],
)
def test_unfit_sample_is_refused_with_its_index_and_leaves_nothing(tmp_path: Path, change: dict, message: str) -> None:
    good = {"numbers": np.array([1, 8]), "positions": np.eye(3)[:2], "energy": 0.0, "forces": np.zeros((2, 3))}
    with pytest.raises(UserError, match=f"sample 1 .*{message}"), StoreWriter(tmp_path / "x.h5", "atoms") as writer:
        writer.append(AtomsSample(**good), "a")
        writer.append(AtomsSample(**(good | change)), "a")
    assert list(tmp_path.iterdir()) == []


def test_half_present_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="energy"), StoreWriter(tmp_path / "x.h5", "atoms") as writer:
        writer.append(AtomsSample(np.array([1]), np.zeros((1, 3)), energy=1.0), "a")
        writer.append(AtomsSample(np.array([1]), np.zeros((1, 3))), "a")


def test_absent_labels_stay_absent(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "x.h5", "cloud") as writer:
        writer.append(CloudSample(np.zeros((4, 3))), "a")
    store = Store(tmp_path / "x.h5")
    assert store.fields == ("positions",)
    assert "velocities" not in store.take(np.array([0])).items


def test_unknown_split_names_the_closest(small_store: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'test'"):
        Store(small_store).split("tset")


def test_existing_store_is_never_overwritten(small_store: Path) -> None:
    before = small_store.read_bytes()
    with pytest.raises(UserError, match="exists already"), StoreWriter(small_store, "atoms"):
        raise AssertionError("unreachable")
    assert small_store.read_bytes() == before


@pytest.mark.parametrize("out", ["taken.h5/x.h5", "/proc/x.h5", "/proc/folder/x.h5"])
def test_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, out: str) -> None:
    (tmp_path / "taken.h5").touch()
    path = tmp_path / out
    refused = r"cannot write to .*x\.h5: .*; choose another place"
    with pytest.raises(UserError, match=refused), StoreWriter(path, "atoms"):
        raise AssertionError("unreachable")
    with pytest.raises(UserError, match=refused), atomic_path(path):
        raise AssertionError("unreachable")


def test_folder_in_the_place_of_a_file_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(UserError, match=r"cannot write to .*x\.json"):
        write_text(tmp_path / "x.json", "{}")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_two_processes_writing_to_one_place_do_not_touch_each_other(tmp_path: Path) -> None:
    samples = random_samples(np.random.default_rng(0), 3)
    path = tmp_path / "x.h5"
    other = (
        "import sys, numpy as np; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import test_store as t;"
        "t.write(Path(sys.argv[1]), t.random_samples(np.random.default_rng(0), 3))"
    )
    with pytest.raises(UserError, match="exists already"), StoreWriter(path, "atoms") as writer:
        writer.append(samples[0], "a")
        subprocess.run([sys.executable, "-c", other, str(path), str(Path(__file__).parent)], check=True)
        writer.append(samples[1], "a")
    assert_equal(Store(path).take(np.arange(3)), samples)
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]
