"""Every law: its gradient, its recovery from exact data, and the constants its paper gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.scaling.fitting import fit
from scisci.scaling.law import LAWS, Law, Parameter, law, laws, register
from scisci.scaling.laws.curves import annealing_areas
from scisci.scaling.records import fit_record

from .typical import RATES, TYPICAL


def test_every_law_has_typical_values_here() -> None:
    assert set(TYPICAL) == set(laws())


@pytest.mark.parametrize("name", sorted(TYPICAL))
def test_gradient_is_the_derivative(name: str) -> None:
    """Complex-step derivatives are exact to rounding and share no code with the analytic ones."""
    form, (x, parameters) = law(name), TYPICAL[name]
    theta = np.array(parameters, float)
    analytic = form.gradient(*x, *theta)
    for i in range(len(theta)):
        step = theta.astype(complex)
        step[i] += 1e-30j
        numeric = np.imag(form.value(*x, *step)) / 1e-30
        exact = np.broadcast_to(analytic[i], numeric.shape)
        np.testing.assert_allclose(exact, numeric, rtol=1e-9, atol=1e-12 * np.abs(numeric).max())


@pytest.mark.parametrize("name", sorted(TYPICAL))
def test_parameters_are_recovered_from_exact_data(name: str) -> None:
    form, (x, parameters) = law(name), TYPICAL[name]
    loss = form.value(*x, *np.array(parameters, float))
    table = dict(zip(form.variables, x, strict=True)) | {"loss": loss}
    found = fit(name, table, {variable: variable for variable in form.variables}, "loss")
    np.testing.assert_allclose(list(found.parameters.values()), parameters, rtol=1e-5)
    assert found.audit.verdict == "identified"


def test_kaplan_law_has_the_papers_limits_and_critical_sizes() -> None:
    form, (_, parameters) = law("kaplan"), TYPICAL["kaplan"]
    named = dict(zip(form.names, map(np.float64, parameters), strict=True))
    assert form.derived["N_c"](named) == pytest.approx(8.8e13)
    assert form.derived["D_c"](named) == pytest.approx(5.4e13)
    n, d = np.array([1e9]), np.array([1e10])
    direct = ((8.8e13 / n) ** (0.076 / 0.095) + 5.4e13 / d) ** 0.095
    assert form.value(n, d, *named.values()) == pytest.approx(direct, rel=1e-10)


def test_annealing_areas_are_the_sums_of_the_paper() -> None:
    rate = RATES[::50]
    s1, s2 = annealing_areas(rate, memory=0.9)
    for s in (1, 10, len(rate) - 1):
        drops = rate[:-1] - rate[1:]
        momenta = [sum(0.9 ** (i - k) * drops[k - 1] for k in range(1, i + 1)) for i in range(1, s + 1)]
        assert s1[s] == pytest.approx(rate[: s + 1].sum())
        assert s2[s] == pytest.approx(sum(momenta))


def test_repetition_halves_the_utility_every_tau_epochs() -> None:
    form = law("repetition")
    unique, tau, b = 1e6, 2.0, 0.3
    seen = unique * np.arange(1, 8)
    loss = form.value(np.full(7, unique), seen, 30.0, 1.5, b, tau)
    np.testing.assert_allclose(loss[0], 30 * unique**-b + 1.5)
    slopes = -np.diff(np.log(loss)) / np.diff(np.log(seen))
    np.testing.assert_allclose(slopes, b * 0.5 ** (np.arange(1, 7) / tau), rtol=1e-10)


def test_a_law_is_added_in_a_few_lines() -> None:
    form = Law(
        name="logarithm",
        formula=r"L = A / \ln N",
        variables=("N",),
        parameters=(Parameter("A", "A", transform="log", linear=True),),
        evaluate=lambda N, A: (A / np.log(N), (1 / np.log(N),)),
        source="a test",
        exponent="A",
    )
    try:
        register(form)
        n = np.geomspace(10, 1e6, 6)
        found = fit("logarithm", {"n": n, "y": 3 / np.log(n)}, {"N": "n"}, "y")
        assert found.parameters["A"] == pytest.approx(3)
    finally:
        del LAWS["logarithm"]


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(TYPICAL)), rows=st.integers(2, 30), seed=st.integers(0, 10**6), robust=st.booleans())
def test_any_law_on_any_positive_table_gives_loadable_json_or_a_sentence(
    name: str, rows: int, seed: int, robust: bool
) -> None:
    """Tables without any structure: wide or narrow x, few or many distinct values, noise up to e^5."""
    rng = np.random.default_rng(seed)
    form = law(name)
    grids = (np.geomspace(1e3, 1e8, 5), np.linspace(1, 2, 40), np.exp(rng.uniform(-5, 25, 40)))
    table = {variable: rng.choice(grids[rng.integers(3)], rows) for variable in form.variables}
    table["y"] = np.exp(rng.choice([0.01, 1.0, 5.0]) * rng.normal(size=rows))
    try:
        found = fit(name, table, {v: v for v in form.variables}, "y", delta=1e-3 if robust else np.inf)
    except UserError as error:
        sentence = str(error)
    else:
        assert np.isfinite(found.objective)
        json.dumps(fit_record(found, {}), allow_nan=False)
        return
    assert sentence
    assert "\n" not in sentence
