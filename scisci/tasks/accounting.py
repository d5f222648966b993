"""What a run cost: FLOPs, memory, device, code version."""

from __future__ import annotations

import platform
import resource
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from scisci.contracts.files import digest
from scisci.tasks.atomistic import AtomisticTask

PACKAGE = Path(__file__).resolve().parents[1]
DECIDES_OUTCOME = ("data", "symmetry", "models", "tasks")
LIBRARIES = ("scisci", "torch", "torch-geometric", "e3nn", "lightning", "vesin")


@cache
def code_version() -> str:
    """Package version and a digest of the source files that decide a run's outcome."""
    files = sorted(path for folder in DECIDES_OUTCOME for path in (PACKAGE / folder).rglob("*.py"))
    return f"{version('scisci')}+{digest(*(path.read_bytes() for path in files))[:12]}"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def training_flops(task: AtomisticTask, batch: Any) -> float:
    """FLOPs of one training step per system: forward, gradient forces and the backward pass through both.

    Counted by torch's dispatcher: matrix products and convolutions, two per multiply-add; elementwise work is not.
    """
    task.model.train()
    with FlopCounterMode(display=False) as counter:
        task.loss(task.model(batch), batch).backward()
    task.zero_grad(set_to_none=True)
    return counter.get_total_flops() / batch.num_graphs


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """MiB: of tensors on a CUDA device, else of the whole process."""
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
