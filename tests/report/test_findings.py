from __future__ import annotations

import pandas as pd

from scisci.report import tables
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


def test_zero_but_for_rounding_is_neither_signed_nor_decided(frame: pd.DataFrame) -> None:
    """An error that does not depend on the data leaves an exponent of the order of 1e-17, with an interval as small."""
    records = entries.entries(frame)
    for record in records:
        if record["axis"] == "data" and record["group"]["architecture"] == "mpnn":
            record["text"] = "-0.00000 [-0.00000, 0.00000]"
            for difference in record["differences"]:
                difference |= {"value": -3e-17, "ci95": [-4e-17, -2e-17], "text": "-0.00 [-0.00, -0.00]"}
    study = assemble(frame, parse(records, "fits"))
    text = said(study)["Against training samples"]
    assert "mpnn 0.00000 [0.00000, 0.00000]" in text
    apart = text[text.index("Told apart") if "Told apart" in text else text.index("None of") :].split(".")[0]
    assert "mpnn" not in apart
    rows = [row for row in tables.against_identity(study).rows if row[0].text == "mpnn"]
    cells = next(row for row in rows if row[1].text == "training samples")[2:]
    assert {(cell.text, cell.strong) for cell in cells} == {("0.00 [0.00, 0.00]", False)}


def test_what_has_no_value_on_an_axis_is_not_among_its_exponents(frame: pd.DataFrame) -> None:
    """A baseline without parameters: the study that fits says so, the report has nothing to add."""
    baseline = frame.assign(params=frame.params.mask(frame.architecture == "mpnn", 0))
    study = assemble(baseline, parse(entries.entries(frame), "fits"))
    assert "mpnn" not in said(study)["Against parameters"]
    assert "mpnn" in said(study)["Against training samples"]
    assert {row[0].text for row in tables.exponents(study, "params").rows} == {"nequip", "transformer"}
    assert {row[0].text for row in tables.exponents(study, "data").rows} == {"mpnn", "nequip", "transformer"}


def test_a_single_pair_is_told_as_one(frame: pd.DataFrame) -> None:
    two = frame[frame.architecture != "transformer"]
    records = [r for r in entries.entries(frame) if r["group"]["architecture"] != "transformer"]
    for record in records:
        record["differences"] = [d for d in record["differences"] if d["to"]["architecture"] != "transformer"]
        for difference in record["differences"]:
            difference |= {"value": 0.01, "ci95": [-0.1, 0.1], "text": "0.01 [-0.10, 0.10]"}
    text = said(assemble(two, parse(records, "fits")))["Against parameters"]
    assert "The pair of architectures is not told apart by its exponents." in text


def test_remarks_call_the_metric_by_its_label(frame: pd.DataFrame) -> None:
    record = entries.entries(frame)[0]
    record["audit"] = {"verdict": "weak", "reasons": ["force_mae is flat within its scatter"]}
    assert parse([record], "fits")[0].remarks == ["Force MAE is flat within its scatter."]
