from __future__ import annotations

import pandas as pd

from scisci.report.findings import findings, rising_errors
from scisci.report.fits import parse
from scisci.report.study import Study, assemble

from . import entries


def said(study: Study) -> dict[str, str]:
    return {finding.topic: finding.text for finding in findings(study)}


def test_what_is_said_follows_from_the_table(study: Study, frame: pd.DataFrame) -> None:
    text = said(study)
    assert text["Runs"] == (
        "48 runs of mpnn, nequip and transformer on xtb-molecules; 46 finished, 1 diverged and 1 failed."
    )
    scores = frame[(frame.metric == "force_mae") & (frame.split == "test")]
    best = scores.loc[scores.value.idxmin()]
    assert f"{best.architecture} with {best.value:.1f} ± {1.96 * best.se_groups:.1f} (ID · test)" in text["Best runs"]
    median = frame[(frame.metric == "symmetry_rotation_forces") & (frame.split == "test")]
    assert f"mpnn {median[median.architecture == 'mpnn'].value.median():.3f}" in text["Symmetry"]


def test_exponents_are_said_as_the_fits_print_them(study: Study) -> None:
    text = said(study)["Against parameters"]
    for fit in study.fits_of("params"):
        if fit.split == "test":
            assert f"{fit.series} {fit.text}" in text
    assert "OOD minus ID: 11 of 11 exponents below zero, 0 above, 0 not told apart." in text
    told = "nequip has a larger exponent than mpnn and nequip has a larger exponent than transformer."
    assert f"Told apart, 2 of 3 pairs: {told}" in text


def test_without_fits_nothing_is_said_of_exponents(unfitted: Study) -> None:
    assert not any(topic.startswith("Against") for topic in said(unfitted))


def test_an_error_that_grows_with_scale_is_said(frame: pd.DataFrame) -> None:
    """One architecture's error on new molecules is made to rise with size, beyond its standard errors."""
    worse = (frame.architecture == "mpnn") & (frame.split == "ood_molecule") & (frame.metric == "force_mae")
    rising = frame.assign(value=frame.value.where(~worse, 300.0 + frame.params / 1e4), error=5.0)
    study = assemble(rising, parse(entries.entries(rising), "fits"))
    assert "mpnn on OOD · molecule against parameters (300 → 420)" in rising_errors(study)
    noisy = assemble(rising.assign(error=200.0), parse(entries.entries(rising), "fits"))
    assert "against parameters" not in rising_errors(noisy)
