"""A run of a sweep on several devices: a process for each, all started here and gone when the run is."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from torch.distributed import TCPStore

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult, RunSpec
from scisci.tasks.processes import taking_part, together
from scisci.tasks.resuming import KEEP_SECONDS
from scisci.tasks.run import quiet, train
from scisci.tasks.threads import use_threads

HOST = "127.0.0.1"


def train_in_processes(
    spec: RunSpec,
    folder: Path,
    scratch: Path,
    device: str,
    devices: int,
    accumulation: int = 1,
    keep_seconds: float = KEEP_SECONDS,
) -> RunResult:
    """Train and measure as one process on the whole batches does, up to rounding; `scratch` is for what does not stay.

    What processes print is kept in `folder/processes` if one fails, whose error is then raised here.
    """
    if spec.optimization.batch_size % devices:
        raise UserError(
            f"batches of {spec.optimization.batch_size} samples cannot be shared out over {devices} devices; give a"
            " multiple"
        )
    if device == "cuda":
        require_gpus(devices)
    threads = max(1, torch.get_num_threads() // devices)
    work = {"spec": spec.model_dump(mode="json"), "folder": str(folder), "threads": threads}
    work |= {"device": device, "devices": devices, "accumulation": accumulation, "keep_seconds": keep_seconds}
    (scratch / "work.json").write_text(json.dumps(work), encoding="utf-8")
    # Processes meet here: a port that one of them chose might be taken when the others come.
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    environment = {
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": str(threads),
        # What is imported here is imported there, which Ray and tests see to by the path alone.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    command = [sys.executable, "-P", "-m", __name__, str(scratch)]
    output = folder / "processes"
    if output.exists():  # of an attempt before
        shutil.rmtree(output)
    together(command, devices, output, environment)
    shutil.rmtree(output)
    result = RunResult.model_validate_json((scratch / "result.json").read_bytes())
    return result.model_copy(update={"device": f"{devices} x {result.device}"})


def require_gpus(count: int) -> None:
    """Raise `UserError` where this process sees fewer GPUs than a run is to have."""
    if (seen := torch.cuda.device_count()) < count:
        raise UserError(f"a run is to have {count} GPUs, of which {seen} are here; lower gpus in the study's resources")


def main(scratch: Path) -> None:
    """One of the processes."""
    quiet()
    work = json.loads((scratch / "work.json").read_text(encoding="utf-8"))
    use_threads(work["threads"])
    spec, folder = RunSpec.model_validate(work["spec"]), Path(work["folder"])
    options = (work[name] for name in ("device", "devices", "accumulation", "keep_seconds"))
    result = train(spec, folder, scratch, *options)
    if result is not None:
        (scratch / "result.json").write_text(result.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    taking_part(lambda: main(Path(sys.argv[1])))
