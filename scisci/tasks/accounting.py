"""What a run cost: FLOPs, memory, device."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from scisci.contracts.run import Hardware
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
    """MiB since the last reset: of this process's tensors on a CUDA device, else of the whole process.

    Others on the device are not in it. Where the system has no `clear_refs` (all but Linux), the mark of a process
    cannot be reset, and is the highest of its life: earlier runs of the same worker are in it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@cache
def processor_name() -> str:
    """The processor's model, or where the system does not tell it, its architecture."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def device_name(kind: str) -> str:
    """The device in words: the GPU's name, or the processor's model."""
    return torch.cuda.get_device_name() if kind == "cuda" else f"cpu ({processor_name()})"


def hardware(device: torch.device) -> Hardware:
    """What a run on `device` has at hand; of the GPU nothing for one on a CPU."""
    found = Hardware(
        processor=processor_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory=psutil.virtual_memory().total / 2**20,
    )
    if device.type != "cuda":
        return found
    gpu = torch.cuda.get_device_properties(device)
    about = {"gpu": gpu.name, "gpu_memory": gpu.total_memory / 2**20, "driver": _driver(), "cuda": torch.version.cuda}
    return found.model_copy(update=about)


def _driver() -> str | None:
    """The version of NVIDIA's driver, such as 580.95.05, as Linux tells it."""
    path = Path("/proc/driver/nvidia/version")
    said = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", path.read_text()) if path.exists() else None
    return said and said[1]
