"""Extended tight binding through tblite, and processes to run it in: what the GFN-xTB data sets share."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from scisci.contracts.errors import UserError

ACCURACY = 0.01


def calculator(method: str) -> Any:
    """The ASE calculator of `method`, GFN1-xTB or GFN2-xTB, converged well enough for forces good to 1e-5 eV/Å."""
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise UserError(f"{method} needs tblite; install it with pip install 'scisci[xtb]'") from error
    return TBLite(method=method, accuracy=ACCURACY, verbosity=0)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def workers(processes: int | None) -> ProcessPoolExecutor:
    """A pool of processes with one thread each; by default as many as there are cores."""
    # OpenMP reads its thread count once, when tblite is loaded: each worker starts afresh and sets it before that.
    return ProcessPoolExecutor(processes or os.cpu_count() or 1, get_context("spawn"), _one_thread)
