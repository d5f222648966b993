"""Whether other processes used a run's device while it trained, so that its times say nothing of its speed."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import psutil
import torch

# Cores that others may take. A system at rest takes a few hundredths, and so does Ray; another run takes a whole one.
MOST_CORES = 0.2
# The system's clocks tick every hundredth of a second on every core; below this they cannot tell such a share.
SHORTEST_SECONDS = 0.5


@dataclass(frozen=True)
class CpuUse:
    """Clocks at one moment, in seconds: on the wall, of all cores of the machine at work, of this process's own work.

    What a hypervisor took from the machine for others counts as work of the machine.
    """

    wall: float
    machine: float
    own: float

    @classmethod
    def now(cls) -> CpuUse:
        """Read them. Its own work is also that of its children, such as loader workers, ended or not."""
        machine = psutil.cpu_times()._asdict()
        # Guests are in `user` and `nice` already.
        idle = sum(machine.get(name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
        ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(usage.ru_utime + usage.ru_stime for usage in ended)
        return cls(time.perf_counter(), sum(machine.values()) - idle, own + _of_children())

    def shared_until(self, later: CpuUse) -> bool | None:
        """Whether others took more than `MOST_CORES` on average; None where the clocks cannot tell."""
        wall, machine, own = later.wall - self.wall, later.machine - self.machine, later.own - self.own
        allowed = MOST_CORES * wall
        # Clocks of a sandbox may stand still, and then do not have even this process's own work.
        if wall < SHORTEST_SECONDS or machine < own - allowed:
            return None
        return machine - own > allowed


def _of_children() -> float:
    """CPU seconds of children that have not ended, and of theirs."""
    found = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            used = child.cpu_times()
        except psutil.NoSuchProcess:  # ended in between: its parent has its seconds now
            continue
        found += sum(getattr(used, name, 0.0) for name in ("user", "system", "children_user", "children_system"))
    return found


def gpu_shared(device: torch.device) -> bool | None:
    """Whether another process computes on a CUDA device just now; None where NVIDIA's library is absent or silent."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        found = {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    except pynvml.NVMLError:
        return None
    return others_among(found, psutil.Process().pid)


def others_among(processes: set[int], own: int) -> bool | None:
    """Whether processes on a device are others than `own`.

    In a container they may have other numbers there, or not be seen: two are one too many, but one may be this one.
    """
    if own in processes or len(processes) > 1:
        return len(processes) > 1
    return None


def either(before: bool | None, after: bool | None) -> bool | None:
    """Of two parts of a training: shared if one was, not known if that of one is not known."""
    return True if before or after else None if None in (before, after) else False


class Sharing:
    """Watches the device of a training from its making on.

    CPUs by the work of others over the whole time; a GPU by who is on it at each look. Not known for runs of several
    `processes`, some of which may be on other machines.
    """

    def __init__(self, device: torch.device, processes: int = 1) -> None:
        self._device, self._processes, self._begin = device, processes, CpuUse.now()
        self._gpu: bool | None = False
        self.look()

    def look(self) -> None:
        """See who is on a GPU just now; does nothing on a CPU."""
        if self._device.type == "cuda":
            self._gpu = either(self._gpu, gpu_shared(self._device))

    @property
    def shared(self) -> bool | None:
        """Whether the device was shared until now."""
        if self._processes > 1 or self._device.type not in ("cpu", "cuda"):
            return None
        if self._device.type == "cpu":
            return self._begin.shared_until(CpuUse.now())
        self.look()
        return self._gpu
