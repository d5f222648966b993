"""What the formats of halo and galaxy catalogues have in common: names of their columns, checks of their units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.samples import CloudSample
from scisci.sources.frames import BadFrame, Frame, checked
from scisci.sources.labels import NONE

PARAMETERS = {"omega_m": "Omega_m", "sigma_8": "sigma_8"}
# Masses have another unit in every suite, so they are read only under a name that is given.
LABELS = {"positions": "X,Y,Z", "velocities": "VX,VY,VZ", "masses": NONE} | PARAMETERS
AXES = {"positions": 3, "velocities": 3, "masses": 1}
# Catalogues have points a little outside their periodic box; further out the unit is another one.
MARGIN = 0.01
# With so many points their extent and speed say whether the unit can be right.
MANY = 100
SPEEDS = (5.0, 5000.0)


def point_columns(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Label → its columns, of what `labels` has of `AXES`; those of several axes are separated by commas."""
    columns = {label: labels[label].split(",") for label in AXES if label in labels}
    for label, names in columns.items():
        if len(names) != AXES[label]:
            raise UserError(f"--key {label}={labels[label]} names {len(names)} columns instead of {AXES[label]}")
    if "positions" not in columns:
        raise UserError("points cannot be read without positions; leave out --key positions=none")
    return columns


def cloud_frame(
    where: str,
    values: Mapping[str, np.ndarray],
    columns: Mapping[str, list[str]],
    box: float,
    group: str,
    parameters: Mapping[str, float],
    metadata: Mapping[str, Any] | None = None,
) -> Frame | BadFrame:
    """A cloud of the `values` [N] of its columns: Mpc/h, km/s and Msun/h, in a periodic box of side `box`.

    Points up to `MARGIN` of the box outside are wrapped into it. Columns whose values cannot be in these units make a
    `BadFrame` that names them.
    """
    for label, names in columns.items():
        for name in names:
            if reason := _unusable(label, name, values[name], box):
                return BadFrame(where, reason)
    arrays = {label: np.stack([values[name] for name in names], axis=1) for label, names in columns.items()}
    positions = arrays["positions"].astype(np.float64)
    outside = (positions < 0) | (positions > box)
    positions[outside] %= box
    masses = arrays["masses"][:, 0] if "masses" in arrays else None
    cosmology = parameters.get("omega_m"), parameters.get("sigma_8")
    sample = CloudSample(positions, np.full(3, box), arrays.get("velocities"), masses, *cosmology)
    return checked(Frame(where, sample, group, metadata or {}))


def _unusable(label: str, name: str, values: np.ndarray, box: float) -> str | None:
    if len(missing := np.flatnonzero(~np.isfinite(values))):
        return f"{name} of point {missing[0]} is not finite"
    if label == "positions":
        off = np.abs(values - box / 2)
        if (off > box * (0.5 + MARGIN)).any():
            return f"{name} of point {off.argmax()} is {values[off.argmax()]:g}, outside its box of {box:g} Mpc/h" + (
                ": lengths in kpc/h?" if off.max() > 10 * box else ""
            )
        if len(values) >= MANY and np.ptp(values) < box / 2:
            return f"{name} spans {np.ptp(values):g} of a box of {box:g} Mpc/h: another unit, or another box?"
    if label == "velocities" and (len(values) >= MANY or not values.any()):
        speed = float(np.sqrt(np.square(values, dtype=np.float64).mean()))
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            return f"{name} has an rms of {speed:g}, which peculiar velocities in km/s never have: another unit?"
    return None
