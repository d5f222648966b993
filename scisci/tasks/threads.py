"""How many threads a process computes with: those of torch, and those of the BLAS that NumPy and SciPy bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


def use_threads(count: int) -> None:
    """Compute with so many threads from now on.

    Of torch alone that is not enough where processes compute side by side: OpenBLAS wakes its threads on every core for
    products of small matrices, too, and they wait for the next one at full speed.
    """
    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
