"""Where memory is too short for a run: it is tried once more, with each batch in parts."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from scisci.contracts.files import write_text
from scisci.contracts.run import RunSpec
from scisci.sweep.records import CRASH_FILE, SHORTAGE_FILE, clear

PARTS = 2


def is_of(error: Exception) -> bool:
    """Whether an error says that memory is short."""
    # torch raises OutOfMemoryError for a device, and a bare RuntimeError from the allocator of the CPU
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def divisible(spec: RunSpec) -> bool:
    """Whether a run takes batches (baselines do not), of which each can be had in parts."""
    return spec.optimization.learning_rate is not None and min(spec.optimization.batch_size, spec.data) >= PARTS


def note(folder: Path, reason: str) -> None:
    """Have whoever takes up the run in this folder begin anew with parts; what the attempt wrote goes."""
    write_text(folder / SHORTAGE_FILE, reason)
    clear(folder, but=(SHORTAGE_FILE, CRASH_FILE))


def earlier(folder: Path) -> str | None:
    """Why an attempt on whole batches failed, if one was out of memory."""
    path = folder / SHORTAGE_FILE
    return path.read_text(encoding="utf-8") if path.exists() else None


def both(first: str, second: str) -> str:
    """The reason of a run for which memory was too short twice."""
    return f"{first}; and again with each batch in {PARTS} parts: {second}"


def free_memory() -> None:
    """Give back what a failed training held: its objects refer to each other, and torch keeps memory for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
