"""What a run cost: FLOPs, memory, device."""

from __future__ import annotations

import os
import platform
import resource
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from scisci.data.store import Store
from scisci.models.flops import flop_counter
from scisci.tasks.base import Task

FLOP_SAMPLES, FLOP_BATCH = 64, 16
LIBRARIES = ("scisci", "torch", "torch-geometric", "e3nn", "lightning", "vesin")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def training_flops(task: Task, store: Store) -> float:
    """FLOPs of training per sample: forward, forces where they are a gradient, and the backward pass through both.

    What the symmetry treatment adds to a step is included.

    Measured on the first 64 samples of the fixed permutation and with the same draws, so it depends on the model alone
    and not on the size of the training subset or the seed. Counted by torch's dispatcher: matrix products, two per
    multiply-add; elementwise work is not.
    """
    indices = store.split("train").indices(FLOP_SAMPLES)
    task.cpu().model.train()
    with torch.random.fork_rng(devices=[]), flop_counter() as counter:
        torch.manual_seed(0)
        for start in range(0, len(indices), FLOP_BATCH):
            batch = task.collate(store, indices[start : start + FLOP_BATCH])
            task.treated(task.model, batch).backward()
    task.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(indices)


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """MiB since the last reset: of tensors on a CUDA device, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@cache
def device_name(kind: str) -> str:
    """The device in words: the GPU's name, or the processor's model."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"cpu ({line.split(':', 1)[1].strip()})"
    return f"cpu ({platform.machine()})"
