from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scisci
from scisci.contracts.metrics import METRICS
from scisci.contracts.results import RESULTS_SCHEMA, write_results
from scisci.report.methods import methods
from scisci.report.provenance import provenance
from scisci.report.study import Study, assemble, read_table

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")
HEADLINES = {
    "atoms": "force_mae",
    "cloud": "velocities_fvu",
    "tree": "infilling_nll",
    "series": "series_wql",
}


def test_the_paragraph_says_how_the_study_was_made(study: Study, table: Path) -> None:
    text = methods(study)
    runs = pd.read_parquet(table).drop_duplicates("run")
    done = runs[runs.status == "ok"]
    assert text.startswith(
        "In the study demo, 48 runs were made on the data set xtb-molecules of the domain atoms; 46 finished, 1 "
        "diverged and 1 failed. Reasons for not finishing: "
    )
    assert "killed by signal 9 (1 run); loss is NaN at step 212 (1 run); no fit has such a run in it." in text
    assert "mpnn in xs (3,200), s (24,000), m (170,000) and l (1,200,000); nequip in" in text
    assert "The numbers of training samples were 64, 512, 4,096 and 16,384. The seed was 0." in text
    assert "The learning rate was 0.003." in text
    least, most = (f"{bound / 10**power:.2f}×10" for bound, power in ((done.flops.min(), 9), (done.flops.max(), 13)))
    assert f"saw 12,800 training samples, repeats counted, and took {least}⁹ to {most}¹³ training FLOPs." in text
    assert "in distribution on test (severity 300, 2,048 samples), and out of distribution on 600K (severity" in text
    assert f"The error is the force MAE [meV/Å], {METRICS['force_mae'].description}." in text
    assert "± 1.96 standard errors over groups" in text
    assert f"with at most {runs.peak_memory.max():.0f} MiB" in text
    assert "Not measured, or not in the table: the spread between seeds." in text
    assert text.endswith(f"This report was made with scisci {scisci.__version__}.")


def test_laws_and_intervals_are_told_in_the_words_of_the_fits(study: Study, table: Path) -> None:
    text = methods(study)
    records = json.loads(table.with_name("fits.json").read_text())
    for record in records:
        assert f"95 % intervals of exponents: {record['interval']['words']} 95 %" in text
        assert all(difference["method"].split(",")[0] in text for difference in record["differences"])
    for axis, words in (("params", "parameters"), ("data", "training samples"), ("flops", "training FLOPs")):
        verdicts = [record["audit"]["verdict"] for record in records if record["axis"] == axis]
        sentence = text[text.index(f"Against {words}, the law “power”, L = A ") :].split(". ")[0]
        for verdict in set(verdicts):
            assert f" {verdicts.count(verdict)} {verdict}" in sentence


@pytest.mark.parametrize("shared", [True, False, None])
def test_time_on_a_shared_device_is_no_measure_of_speed(study: Study, table: Path, tmp_path: Path, shared: Any) -> None:
    runs = replace(study, frame=study.frame.assign(shared=pd.Series(shared, index=study.frame.index, dtype=object)))
    count = (runs.runs.status == "ok").sum()
    used = "used" if shared else "may have used"
    said = f"no measure of speed: other processes {used} the device during {count} of {count} finished runs"
    facts = dict(provenance(runs, table, None, tmp_path / "report.html").facts)
    assert (said in methods(runs)) is (said in facts["time over all runs"]) is (shared is not False)
    assert ("measure of speed" in methods(runs)) is (shared is not False)


def test_without_fits_nothing_is_said_of_laws(unfitted: Study) -> None:
    text = methods(unfitted)
    assert "law" not in text
    assert "exponents" not in text[: text.index("Not measured, or not in the table: ")]
    assert "exponents against parameters, exponents against training samples and exponents against" in text


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """The headline metric of a domain, and a results table of few runs with gaps where a table may have them."""
    domain = draw(st.sampled_from(sorted(HEADLINES)))
    metric = HEADLINES[domain]
    splits = ["test", *draw(st.sets(st.sampled_from(["ood_far", "ood_farther"])))]
    maybe = lambda values: st.none() | values
    rows: list[dict[str, Any]] = []
    shared = {name: draw(st.booleans()) for name in ("lr", "flops", "peak_memory", "device", "se", "shared")}
    for run in range(draw(st.integers(1, 6))):
        status = "ok" if run == 0 else draw(st.sampled_from(["ok", "ok", "diverged", "out_of_memory"]))
        row = dict.fromkeys(RESULTS_SCHEMA.names) | {
            "run": f"r{run}",
            "study": draw(st.sampled_from(["one", "two"])),
            "domain": domain,
            "dataset": "set",
            "architecture": draw(st.sampled_from(["net", "former"])),
            "treatment": "none",
            "size": draw(st.sampled_from(["small", "large"])),
            "params": draw(maybe(st.integers(0, 10**9))),
            "data": draw(st.integers(1, 3000)),
            "samples_seen": draw(st.integers(1, 10**7)),
            "flops": draw(st.floats(1, 1e21)) if shared["flops"] else None,
            "seed": draw(st.integers(0, 3)),
            "lr": draw(maybe(st.sampled_from([1e-4, 3e-3, 0.02]))) if shared["lr"] else None,
            "status": status,
            "reason": None if status == "ok" else draw(maybe(st.sampled_from(["it burst", "it ran out"]))),
            "seconds": draw(st.floats(0, 1e5)),
            "peak_memory": draw(st.floats(1, 1e5)) if shared["peak_memory"] else None,
            "device": "a cpu" if shared["device"] else None,
            "shared": draw(maybe(st.booleans())) if shared["shared"] else False,
        }
        measured = [] if status != "ok" else splits if run == 0 else draw(st.sets(st.sampled_from(splits), min_size=1))
        for split in measured:
            value = {
                "split": split,
                "metric": metric,
                "value": draw(st.floats(0.1, 10)),
                "n": draw(st.integers(1, 999)),
            }
            rows.append(row | value | {"se": 0.1 if shared["se"] else None})
        if status != "ok":
            rows.append(row)
    return metric, rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("methods") / "results.parquet"


@given(drawn=tables())
def test_every_number_is_the_tables_and_every_sentence_is_english(
    place: Path, drawn: tuple[str, list[dict[str, Any]]]
) -> None:
    metric, rows = drawn
    write_results(place, rows)
    study = assemble(read_table(place), [], metric)
    text = methods(study)
    said = text.replace(METRICS[metric].title, "").replace(METRICS[metric].description, "")
    said = said.replace("95 % intervals are ± 1.96", "").replace(f"scisci {scisci.__version__}", "")

    table = pd.read_parquet(place)
    runs = table.drop_duplicates("run")
    done = runs[runs.status == "ok"]
    allowed = {f"{value:,.0f}" for name in ("params", "data", "samples_seen", "n") for value in table[name].dropna()}
    allowed |= {f"{value:g}" for value in (*runs.lr.dropna(), *runs.seed)} | {
        f"{v:,.0f}" for v in runs.peak_memory.dropna()
    }
    allowed |= {str(count) for count in range(len(runs) + 1)}  # numbers of runs, held against the table below
    total = runs.seconds.sum()
    allowed |= {f"{total:.0f}", f"{total / 60:.1f}", f"{total / 3600:,.1f}"}
    flops = [f"{value:.2e}" for value in done.flops.dropna()]
    for number in NUMBER.findall(said):
        number = number.rstrip(",")
        power = number.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")).replace("×10", "e").replace(",", "")
        assert number in allowed or f"{float(power):.2e}" in flops, (number, said)

    assert f", {len(runs)} run{'s were' if len(runs) > 1 else ' was'} made" in text
    for status, count in runs[runs.status != "ok"].status.value_counts().items():
        assert f"{count} {str(status).replace('_', ' ')}" in text
    for gone, words in (
        (done.flops.isna().all(), "training FLOPs"),
        (done.lr.isna().all(), "learning rates"),
        (done.params.isna().all(), "parameter counts"),
        (done.peak_memory.isna().all(), "peak memory"),
        (table.se.isna().all(), "standard errors"),
        (not table.split.fillna("").str.startswith("ood").any(), "errors out of distribution"),
    ):
        absent = re.split(", | and |: |[.] ", text[text.index("Not measured, or not in the table: ") :])
        assert (words in absent) == gone
    for split in study.splits:
        without = len(done) - table[(table.status == "ok") & (table.split == split.name)].run.nunique()
        assert (f"the error on {split.words} of {without} run" in text) == (without > 0)
    assert not re.search(
        r"\b1 (runs|samples|values)\b|(?<![\d,])[02-9] (run|sample|value)\b|nan|None|  |\(\)| ,|\.\.", text
    )
    assert not re.search(r"seed were|seeds was|rate were|rates was|studies \w+,|study \w+ and", text)


def test_a_single_run_is_told_in_the_singular(frame: pd.DataFrame) -> None:
    one = frame[(frame.architecture == "mpnn") & (frame["size"] == "s") & (frame.data == 64)]
    text = methods(assemble(one.assign(samples_seen=1, n=1), []))
    assert text.startswith("In the study demo, 1 run was made on the data set xtb-molecules of the domain atoms; it ")
    assert "The number of training samples was 64. The seed was 0. The learning rate was 0.003." in text
    assert "A finished run saw 1 training sample, repeats counted" in text
    assert "600K (severity 600, 1 sample)" in text


def test_what_differs_between_architectures_is_told_of_each(frame: pd.DataFrame) -> None:
    baseline = frame.architecture == "mpnn"
    apart = frame.assign(lr=frame.lr.mask(baseline), seed=frame.seed.mask(frame.architecture == "nequip", 7))
    text = methods(assemble(apart, []))
    assert "The learning rate was 0.003 for nequip and transformer; none is recorded for mpnn." in text
    assert "The seeds were 0 for mpnn and transformer; 7 for nequip." in text


def test_many_values_and_many_reasons_are_told_in_short(frame: pd.DataFrame) -> None:
    ended = frame[frame.status == "failed"].iloc[:1]
    many = [ended.assign(run=f"x{i}", reason=f"reason {min(i, 5)}", seed=i) for i in range(20)]
    text = methods(assemble(pd.concat([frame, *many]), []))
    assert "reason 5 (15 runs); " in text
    assert re.search(r"other reasons \(\d runs\); no fit has such a run in it", text)
    assert "The seeds were 0 for mpnn and transformer; 0 to 19 (20 values) for nequip." in text


def test_runs_without_the_error_are_counted(frame: pd.DataFrame) -> None:
    """One architecture has another metric alone; one run of the others lacks a split."""
    other = frame[~((frame.architecture == "mpnn") & (frame.metric == "force_mae"))]
    lacking = other.run == other[(other.status == "ok") & (other.architecture == "nequip")].run.iloc[0]
    text = methods(assemble(other[~(lacking & (other.split == "ood_size"))], []))
    assert "the error of 16 finished runs" in text
    assert "the error on size of 1 run with errors on other splits" in text
