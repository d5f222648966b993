"""What electricity a training took, as codecarbon measures or estimates it: only where somebody asks for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from scisci.contracts.errors import UserError

# Counters of the processor's own; by any other mode codecarbon estimates from its rated power and its load.
COUNTERS = ("intel_rapl", "intel_power_gadget", "windows_emi")


def check_energy() -> None:
    """Raise `UserError` if codecarbon is missing."""
    if find_spec("codecarbon") is None:
        raise UserError("energy is measured with codecarbon, which is not installed; pip install 'scisci[energy]'")


@contextmanager
def metered(asked: bool) -> Iterator[dict[str, Any]]:
    """Measure what is done inside; at its end the dictionary has `energy_kwh` and `energy_method` of a run's record.

    Without `asked` it stays empty. Of GPUs all that they took is counted; of a processor and of memory the share of
    this process where that is estimated, and everything where the processor counts. Asks nothing of the network and
    writes no file. Errors: `UserError` if codecarbon is missing.
    """
    found: dict[str, Any] = {}
    if not asked:
        yield found
        return
    check_energy()
    import codecarbon

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    tracker = codecarbon.OfflineEmissionsTracker(
        # A configuration of the user's own may name places to send to, which nobody asked for here.
        output_methods=[],
        output_handlers=[],
        emissions_endpoint=None,
        tracking_mode="process",
        allow_multiple_runs=True,
        # Emissions depend on where and when: they are left to those who know, and no country has to be named.
        force_carbon_intensity_g_co2e_kwh=0.0,
        log_level="error",
    )
    tracker.start()
    try:
        yield found
    finally:
        tracker.stop()
        energy = tracker.final_emissions_data
        # Nothing public says how; parts without energy, such as GPUs where there are none, are left out.
        modes = {type(part).__name__: getattr(part, "_mode", "") for part in tracker._hardware}
        parts = {"CPU": energy.cpu_energy, "RAM": energy.ram_energy, "GPU": energy.gpu_energy}
        said = [f"{part} {kwh:.3g} kWh {_how(part, modes.get(part, ''))}" for part, kwh in parts.items() if kwh]
        method = f"codecarbon {codecarbon.__version__}: {', '.join(said) or 'nothing found'}"
        found |= {"energy_kwh": energy.energy_consumed, "energy_method": method}


def _how(part: str, mode: str) -> str:
    if part == "GPU" or mode in COUNTERS:
        return "measured" + (f" ({mode})" if mode else "")
    return "estimated" + (f" ({mode})" if mode else "")
