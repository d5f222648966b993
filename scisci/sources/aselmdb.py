"""ASE databases in LMDB files (`.aselmdb`), as fairchem's OMol25 and OMat24 are: rows of compressed JSON.

The LMDB files that OC20 was released in hold pickled objects instead, and are refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase.db.row import AtomsRow
from ase.io.jsonio import decode

from scisci.contracts.errors import UserError
from scisci.sources.ase_db import row_frame
from scisci.sources.frames import BadFrame, Frame, undamaged
from scisci.sources.labels import Labels

PATTERNS = ("*.aselmdb", "*.lmdb", "data.mdb")
# The first byte of every pickle since protocol 2, and of no zlib stream.
PICKLE = b"\x80"


def read_aselmdb(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream an `.aselmdb` file, or all of a folder in the order of their names.

    Labels are found as `Labels` says, among the calculator's results (eV, eV/Å, eV/Å³), the key-value pairs and
    `data`, where OMol25 has charge and multiplicity. The group is the formula unless the row names one; `data_id`,
    OMol25's domain, is kept as metadata.
    """
    labels = Labels(keys or {})
    for file in _files(Path(path)):
        yield from undamaged((_frame(row, labels, file) for row in _rows(file)), file, "row")


def _frame(row: AtomsRow, labels: Labels, path: Path) -> Frame | BadFrame:
    frame = row_frame(row, labels, f"row with id {row.id} of {path}")
    if isinstance(frame, Frame) and "data_id" in row.data:
        return replace(frame, metadata={**frame.metadata, "data_id": str(row.data["data_id"])})
    return frame


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if files := sorted({file for pattern in PATTERNS for file in path.rglob(pattern)}):
        return files
    raise UserError(f"{path} has no .aselmdb files; give one, or a folder of them")


def _rows(path: Path) -> Iterator[AtomsRow]:
    """Rows in the order of their ids. ASE's own LMDB reader would list all ids, and crash where a file is cut off."""
    try:
        import lmdb
    except ImportError as error:
        raise UserError("LMDB files need the package lmdb; run 'pip install scisci[lmdb]'") from error
    try:
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env, env.begin() as table:
            if path.stat().st_size < (env.info()["last_pgno"] + 1) * env.stat()["psize"]:
                raise ValueError("it is cut off")
            with table.cursor() as cursor:
                if cursor.first() and cursor.value()[:1] == PICKLE:
                    raise _pickled(path)
            gone = set(_decoded(table, "deleted_ids") if table.get(b"deleted_ids") else ())
            for number in range(1, _decoded(table, "nextid")):
                if number not in gone:
                    yield AtomsRow({**_decoded(table, str(number)), "id": number})
    except (lmdb.Error, zlib.error) as error:
        raise ValueError(error) from error


def _decoded(table: Any, key: str) -> Any:
    if (value := table.get(key.encode())) is None:
        raise ValueError(f"it has no {key}, as every ASE database does")
    return decode(zlib.decompress(value).decode())


def _pickled(path: Path) -> UserError:
    return UserError(
        f"{path} holds pickled objects, and unpickling runs whatever code a file holds; import OC20's extended XYZ"
        " instead, or, if you trust it, read it with fairchem-core 1's LmdbDataset and write an .aselmdb with ase.db"
    )
