"""Executions that use up what a machine has: memory, and the disk, as each library that writes a run's files does."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np

from scisci.contracts.run import RunResult, RunSpec

from .regression import execute

MUCH = 2**22


def by_torch(spec: RunSpec, folder: Path, accumulation: int = 1) -> RunResult:
    """A batch in memory needs 1300 MiB, by torch's allocator."""
    import torch

    torch.ones(1300 * 2**20 // accumulation, dtype=torch.uint8)
    return execute(spec, folder, accumulation)


def killed_in_parts(spec: RunSpec, folder: Path, accumulation: int = 1) -> RunResult:
    """Too large in whole batches; the first attempt with parts is killed."""
    if accumulation == 1:
        raise MemoryError("whole batches do not fit")
    if not (mark := Path(os.environ["SWEEP_JOURNAL"]) / f".{spec.run}.killed").exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return execute(spec, folder, accumulation)


def write(spec: RunSpec, folder: Path) -> RunResult:
    """Write more than a small disk holds, by the library that `overrides` name."""
    noise = np.random.default_rng(0).integers(0, 256, MUCH, dtype=np.uint8)
    library = spec.overrides["library"]
    if library == "text":
        (folder / "file").write_text("x" * MUCH)
    elif library == "print":
        print("x" * MUCH)
    elif library == "hdf5":
        import h5py

        with h5py.File(folder / "file", "w") as file:
            file["noise"] = noise
    elif library == "abort":
        with contextlib.suppress(OSError), open(folder / "file", "wb", buffering=0) as file:
            while True:
                file.write(noise[:4096])
        os.abort()
    elif library == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"noise": noise}), folder / "file")
    elif library == "safetensors":
        from safetensors.numpy import save_file

        save_file({"noise": noise}, folder / "file")
    elif library == "torch":
        import torch

        torch.save(torch.from_numpy(noise), folder / "file")
    elif library == "checkpoint":
        import torch
        from lightning.fabric.utilities.cloud_io import _atomic_save

        _atomic_save({"noise": torch.from_numpy(noise)}, folder / "file")
    return execute(spec, folder)
