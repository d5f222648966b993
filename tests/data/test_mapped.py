from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scisci.contracts.errors import UserError
from scisci.data import mapped, store
from scisci.data.mapped import MappedFile, MappedRows, fletcher32
from scisci.data.samples import AtomsSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter

DTYPES = st.sampled_from(["u1", "?", "<i4", "<f4", "<f8", ">f8"])


@settings(max_examples=40, deadline=None)
@given(
    values=hnp.arrays(DTYPES, st.sampled_from([(1,), (50,), (17, 3), (40, 3, 3)]), elements={"allow_nan": False}),
    chunk=st.integers(1, 60),
    checked=st.booleans(),
    data=st.data(),
)
def test_rows_are_those_of_h5py(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, chunk: int, checked: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("m") / "x.h5"
    with h5py.File(path, "w") as file:
        options = {"chunks": (chunk, *values.shape[1:]), "maxshape": (None, *values.shape[1:]), "fletcher32": checked}
        file.create_dataset("x", data=values, **options)
    rows = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), max_size=30)), dtype=np.int64)
    with h5py.File(path) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "ROWS_AT_ONCE", 7)
        patch.setattr(mapped, "RESIDENT_BYTES", 50)
        found = MappedRows(file["x"], MappedFile(path)).take(rows)
        assert found.dtype == file["x"].dtype
        np.testing.assert_array_equal(found, file["x"][...][rows])


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=2000) | st.integers(1, 2000).map(lambda n: b"\xff" * n))
def test_checksum_is_the_one_hdf5_writes(content: bytes) -> None:
    values = np.frombuffer(content, dtype="u1")
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        node = file.create_dataset("x", data=values, chunks=values.shape, fletcher32=True)
        _, chunk = node.id.read_direct_chunk((0,))
    assert chunk[:-4] == content
    assert fletcher32(values) == int.from_bytes(chunk[-4:], "little")


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"shuffle": True, "fletcher32": True}, {"chunks": None}])
def test_other_layouts_are_refused(tmp_path: Path, options: dict) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        node = file.create_dataset("x", data=np.zeros(9), **({"chunks": (4,)} | options))
        with pytest.raises(RuntimeError, match="laid out otherwise"):
            MappedRows(node, MappedFile(tmp_path / "x.h5"))


def test_altered_byte_of_a_large_store_is_found_when_it_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    rng = np.random.default_rng(0)
    with StoreWriter(path, "atoms") as writer:
        for _ in range(1200):
            writer.append(AtomsSample(np.ones(8, int), rng.normal(size=(8, 3)), energy=0.0), "a")
    with h5py.File(path) as file:
        chunk = file["items/positions"].id.get_chunk_info(2)
        first = -(-chunk.chunk_offset[0] // 8)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 1000] ^= 4
    path.write_bytes(content)
    monkeypatch.setattr(store, "VERIFY_ON_OPEN_BYTES", 0)
    opened = Store(path)
    opened.take(np.arange(100))
    with pytest.raises(UserError, match=r"x\.h5 is not a readable store \(truncated, damaged"):
        opened.take(np.array([5, first]))


def test_a_pass_over_a_file_leaves_little_of_it_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((2**21, 4)), chunks=(2048, 4), fletcher32=True)
    code = """
import sys, h5py, numpy as np
from pathlib import Path
from scisci.data.mapped import MappedFile, MappedRows
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
rows = MappedRows(h5py.File(sys.argv[1])["x"], MappedFile(Path(sys.argv[1])))
rows.take(np.arange(4096))
before, most = resident(), 0
for at in range(0, 2**21, 4096):
    assert rows.take(np.arange(at, at + 4096)).sum() == 4 * 4096
    most = max(most, resident())
print(most - before)
"""
    grown = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert int(grown.stdout) < path.stat().st_size / 3
