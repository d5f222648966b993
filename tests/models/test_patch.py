"""The patch transformers: published sizes, the body against a slow twin, windows, and forecasts patch by patch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.mixture import StudentMixture
from scisci.models.blocks.patch import LEAST_PREDICTED, MOST_PREDICTED, MixtureHead, predicted, window
from scisci.models.blocks.rope import Rotation
from scisci.models.blocks.sequence import Transformer
from scisci.models.patch_decoder import PatchDecoder
from scisci.models.patch_encoder import PatchEncoder
from scisci.models.potential import parameter_counts

# Yao et al. (2024): width, layers and parameters of the body.
LADDER = [(8, 1, 872), (24, 1, 7_032), (64, 2, 100_928), (64, 6, 302_656), (192, 4, 1_771_712), (256, 6, 4_747_264)]


def batch_of(past: Tensor, future: Tensor, seen: Tensor | None = None) -> Any:
    """What models read of a batch."""
    seen = torch.ones_like(torch.cat([past, future], -1), dtype=torch.bool) if seen is None else seen
    observed = seen.split((past.shape[-1], future.shape[-1]), dim=-1)
    return SimpleNamespace(past=past, future=future, past_observed=observed[0], future_observed=observed[1])


@pytest.mark.parametrize("name", ["patch_encoder", "patch_decoder"])
def test_sizes_are_the_published_ones(name: str) -> None:
    sizes = {tuple(options.values()): size for size, options in registry.get(name).SIZES.items()}
    for channels, layers, parameters in LADDER:
        with torch.device("meta"):
            model = registry.build_forecaster(name, 512, 64, **registry.options(name, sizes[channels, layers]))
        masked = channels if name == "patch_encoder" else 0
        # One linear map of a patch, and one to 4 components of 4 numbers for each of its steps.
        around = 33 * channels + masked + (channels + 1) * 4 * 4 * 32
        assert parameter_counts(model) == (parameters + around, parameters)


def slow_body(body: Transformer, x: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """The body [N, C] → [N, C] of one row, head by head and position by position."""

    def norm(v: np.ndarray, module: Any) -> np.ndarray:
        return v / np.sqrt((v**2).mean(-1, keepdims=True) + 1e-6) * module.scale.detach().numpy()

    def weight(module: Any) -> np.ndarray:
        return module.weight.detach().numpy()

    def turned(v: np.ndarray, at: int) -> np.ndarray:
        half = len(v) // 2
        pairs = v[: half // 2] + 1j * v[half // 2 : half]
        pairs = pairs * np.exp(1j * at * 10_000.0 ** (-np.arange(0, half, 2) / half))
        return np.concatenate([pairs.real, pairs.imag, v[half:]])

    for block in body.blocks:
        attention, width = block.attention, block.attention.width
        q, k, v = np.split(norm(x, block.norm_attention) @ weight(attention.qkv).T, 3, axis=1)
        mixed = np.zeros_like(x)
        for head in range(attention.heads):
            own = slice(head * width, (head + 1) * width)
            qs = [turned(norm(q[n, own], attention.norm_q), n) for n in range(len(x))]
            ks = [turned(norm(k[n, own], attention.norm_k), n) for n in range(len(x))]
            for n in range(len(x)):
                looks = [m for m in range(len(x)) if (observed[m] or m == n) and (m <= n or not body.causal)]
                logits = np.array([qs[n] @ ks[m] / np.sqrt(width) for m in looks])
                weights = np.exp(logits) / np.exp(logits).sum()
                mixed[n, own] = sum(w * v[m, own] for w, m in zip(weights, looks, strict=True))
        x = x + mixed @ weight(attention.out).T
        gate, up = np.split(norm(x, block.norm_feed_forward) @ weight(block.feed_forward.gate_up).T, 2, axis=1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weight(block.feed_forward.down).T
    return norm(x, body.norm)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("channels", [12, 128])
def test_the_body_agrees_with_its_slow_twin(causal: bool, channels: int) -> None:
    torch.manual_seed(0)
    body = Transformer(channels, 2, causal).double()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, observed = torch.randn(2, 7, channels, dtype=torch.float64), torch.ones(2, 7, dtype=torch.bool)
    for missing in ([], [0, 1, 4]):
        observed[1, missing] = False
        found = body(x, observed).detach().numpy()
        for row in range(2):
            np.testing.assert_allclose(found[row], slow_body(body, x[row].numpy(), observed[row].numpy()), atol=1e-10)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 200))
def test_rotary_products_see_differences_of_time_alone(early: int, late: int, shift: int) -> None:
    rng = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=rng, dtype=torch.float64)
    rotation = Rotation.over(300, 4, q)

    def product(at: int, of: int) -> Tensor:
        turned = [rotation.turn(v.expand(300, 1, 8))[n, 0] for v, n in ((q, at), (k, of))]
        assert torch.equal(turned[0][4:], q[4:])
        return turned[0] @ turned[1]

    torch.testing.assert_close(product(early, late), product(early + shift, late + shift))


@settings(deadline=None)
@given(st.integers(2, 600), st.integers(0, 2**31))
def test_the_predicted_share_is_between_its_bounds(total: int, seed: int) -> None:
    torch.manual_seed(seed)
    count = predicted(total)
    assert 1 <= count < total
    assert LEAST_PREDICTED * total - 0.5 <= count <= max(1, MOST_PREDICTED * total + 0.5)


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 70), st.sampled_from([1, 4, 32]), st.booleans(), st.integers(0, 1000))
def test_windows_hold_past_and_future_and_units_of_the_known(
    times: int, horizon: int, patch: int, training: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    whole, seen = torch.randn(2, 3, times + horizon, dtype=torch.float64), torch.rand(2, 3, times + horizon) < 0.8
    of = window(batch_of(*whole.split((times, horizon), -1), seen), horizon, patch, training)
    lead, known = -times % patch, of.known * patch
    seen = seen.clone()
    if not training:
        seen[..., times:] = False
        assert known == lead + times
    values, observed = (part.flatten(-2)[..., lead : lead + times + horizon] for part in (of.values, of.observed))
    assert torch.equal(observed, seen)
    assert torch.equal(values, whole * seen)
    assert of.observed.sum() == seen.sum()
    for row, mask, mean, scale in zip(
        *(part[..., : known - lead].flatten(0, 1) for part in (whole, seen)),
        of.instance.mean.flatten(),
        of.instance.scale.flatten(),
        strict=True,
    ):
        if mask.sum() > 1:
            torch.testing.assert_close(mean, row[mask].mean())
            torch.testing.assert_close(scale, row[mask].std(correction=0))


def test_heads_give_distributions() -> None:
    torch.manual_seed(0)
    found = MixtureHead(5, 3, 4)(torch.randn(100, 5) * 100)
    assert all(part.shape == (100, 3, 4) for part in found.values())
    assert (found["df"] >= 2).all()
    assert (found["scale"] > 0).all()


def test_a_decoder_goes_on_from_the_median_of_the_patch_before() -> None:
    torch.manual_seed(0)
    model, past = PatchDecoder(96, 64, channels=16, layers=1).double().eval(), torch.randn(2, 1, 96).double().cumsum(-1)
    found = model(batch_of(past, torch.zeros(2, 1, 64)))
    mean, scale = past.mean(-1, keepdim=True), past.std(-1, correction=0, keepdim=True)
    first = StudentMixture.of({name: part[:, :, :32] for name, part in found.items()})
    median = torch.empty(2, 1, 32, dtype=torch.float64)
    for at in np.ndindex(2, 1, 32):
        one = StudentMixture(*(part[at] for part in (first.logits, first.df, first.loc, first.scale)))
        median[at] = brentq(lambda x, one=one: float(one.cdf(torch.tensor(x).double())) - 0.5, -1e3, 1e3, xtol=1e-12)
    tokens = ((torch.cat([past, median], -1) - mean) / scale).view(2, 4, 32)
    expected = model.head(model.body(model.embedding(tokens), torch.ones(2, 4, dtype=torch.bool)))["loc"][:, -1]
    expected = mean[..., None][:, 0] + scale[..., None][:, 0] * expected
    torch.testing.assert_close(found["loc"][:, 0, 32:], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", [PatchEncoder, PatchDecoder])
def test_the_first_patch_is_the_same_at_any_horizon_of_a_decoder(architecture: Any) -> None:
    torch.manual_seed(0)
    model, past = architecture(96, 64, channels=16, layers=1).eval(), torch.randn(1, 1, 96)
    long = model(batch_of(past, torch.zeros(1, 1, 64)))["loc"][:, :, :20]
    model.horizon = 20
    same = torch.allclose(model(batch_of(past, torch.zeros(1, 1, 20)))["loc"], long, atol=1e-5)
    # An encoder's masked patches see each other.
    assert same == (architecture is PatchDecoder)


def test_no_more_patches_than_published() -> None:
    registry.build_forecaster("patch_encoder", 511 * 32, 32)
    with pytest.raises(UserError, match="513 patches of 32, more than 512"):
        registry.build_forecaster("patch_encoder", 512 * 32, 1)
