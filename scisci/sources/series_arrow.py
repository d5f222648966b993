"""Rows of Arrow and Parquet files with a series in each, as GluonTS and Hugging Face's `datasets` write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from scisci.contracts.errors import UserError

# GluonTS flattens arrays of more dimensions, and has their shapes in a column of this name.
SHAPE = "{}._np_shape"
RANDOM_ACCESS, PARQUET = b"ARROW1", b"PAR1"
ROWS = 64


def arrow_rows(path: Path, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The columns `names`, of those the file has, row by row: lists as arrays, times as `datetime64`.

    The kind of file is told by its first bytes; of an Arrow file one batch is in memory, of Parquet a few rows.
    """
    for batch in _batches(path):
        columns = {name: batch.column(name) for name in batch.schema.names}
        wanted = [name for name in dict.fromkeys(names) if name in columns]
        for row in range(len(batch)):
            entry = {name: _value(columns[name][row]) for name in wanted}
            for name in wanted:
                if (shape := columns.get(SHAPE.format(name))) is not None:
                    entry[name] = entry[name].reshape(shape[row].as_py())
            yield entry


def arrow_schema(path: Path) -> pa.Schema:
    """The columns of a file, and what it says beside them."""
    with _opened(path) as reader:
        return reader.schema_arrow if isinstance(reader, parquet.ParquetFile) else reader.schema


def _opened(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(len(RANDOM_ACCESS))
    try:
        if head.startswith(PARQUET):
            return parquet.ParquetFile(path)
        return (pa.ipc.open_file if head == RANDOM_ACCESS else pa.ipc.open_stream)(pa.memory_map(str(path)))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} has no Arrow schema, so it is no Arrow file or cut short ({error}); get it again"
        ) from error


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with _opened(path) as reader:
        if isinstance(reader, parquet.ParquetFile):
            yield from reader.iter_batches(ROWS, use_threads=False)
        elif isinstance(reader, pa.RecordBatchFileReader):
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield from reader


def _value(scalar: pa.Scalar) -> Any:
    if not scalar.is_valid:
        return None
    if pa.types.is_timestamp(scalar.type) or pa.types.is_date(scalar.type):
        return np.datetime64(scalar.cast(pa.timestamp("us")).value, "us")
    if not _is_list(scalar.type):
        return scalar.as_py()
    if _is_list(scalar.type.value_type):
        return [row.values.to_numpy(zero_copy_only=False) for row in scalar.values]
    return scalar.values.to_numpy(zero_copy_only=False)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
