"""Measured FLOPs against closed forms of the transformers, and every kernel that is used against what is counted."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.blocks.patch import predicted
from scisci.models.blocks.sequence import hidden_width
from scisci.models.conformance import Subject
from scisci.models.conformance.systems import batch_of, time_series
from scisci.models.flops import flop_counter, forward_flops, step_flops
from scisci.models.potential import Potential
from scisci.models.transformer import Transformer

# How kernels are called that multiply and sum; any that is not aten's may do so too.
PRODUCTS = re.compile("mm$|mv$|dot$|attention|conv|linear|einsum|matmul|cdist|lstm|gru|addr")
CLUSTERS = st.lists(st.integers(2, 9), min_size=1, max_size=3)


def potential_flops(
    n: int, e: int, c: int, layers: int, heads: int, basis: int, rotary: bool, direct: bool
) -> tuple[int, int]:
    """Of the energies, and of a training step of the transformer of docs/accounting.md: n atoms, e pairs, width c."""
    features = basis if rotary else 4 * basis
    qkv, rest, last = 6 * n * c * c, 14 * n * c * c, 2 * n * c
    pairs = 2 * e * features * heads + (6 * e * heads * (c // heads // 2) if rotary else 4 * e * features * c)
    forward = layers * (qkv + rest + pairs) + 2 * n * c * c + last
    if direct:
        # Twice the forward pass backward, except that nothing asks for the gradient of pair vectors.
        return forward, 3 * (forward + 6 * n * c) - layers * pairs
    # The energy does not reach positions through the first layer's queries, keys and values, and its own gradient at
    # the last linear map is a constant.
    return forward, 6 * forward - 3 * qkv - last


@settings(max_examples=25)
@given(
    CLUSTERS, st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.booleans(), st.booleans()
)
def test_the_transformer_of_atoms_costs_what_its_definition_says(
    sizes: list[int], width: int, heads: int, layers: int, basis: int, rotary: bool, direct: bool
) -> None:
    rng = np.random.default_rng(0)
    batch = batch_of(*((rng.choice([1, 6, 8], count), rng.normal(size=(count, 3)) * 1.5) for count in sizes))
    c = width * heads
    positions = "rotary" if rotary else "features"
    made = Transformer(Inputs((1, 6, 8)), 1.0, c, layers, heads, radial_basis=basis, positions=positions)
    model = Potential(made, (0.0,) * 3, 1.0, "direct" if direct else "gradient").double()
    e = batch.edge_index.shape[1]
    expected = potential_flops(sum(sizes), e, c, layers, heads, basis, rotary, direct)
    assert (forward_flops(model, batch), step_flops(model, batch)) == expected


@pytest.mark.parametrize("size", ["3k", "30k", "300k"])
def test_presets_cost_what_the_closed_form_says(size: str) -> None:
    """As `scisci models info` measures them."""
    options = registry.options("transformer", size)
    model, batch = Subject(Transformer, options).example(np.random.default_rng(0))
    n, e = len(batch.batch), batch.edge_index.shape[1]
    expected = potential_flops(n, e, options["channels"], options["layers"], options["heads"], 8, False, False)
    assert (forward_flops(model, batch), step_flops(model, batch)) == expected


@settings(max_examples=15)
@given(
    st.sampled_from(["patch_encoder", "patch_decoder"]),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([4, 12, 32]),
    st.integers(1, 5),
    st.booleans(),
)
def test_patch_transformers_cost_what_their_definition_says(
    name: str, width: int, layers: int, patch: int, components: int, gaps: bool
) -> None:
    batch = time_series(np.random.default_rng(0))
    if gaps:
        batch.past_observed[:, :, :patch] = False  # attention is then masked, which the count takes no notice of
    c, context, horizon = 4 * width, batch.past.shape[-1], batch.future.shape[-1]
    model = registry.build_forecaster(
        name, context, horizon, channels=c, layers=layers, patch=patch, components=components
    ).double()
    torch.manual_seed(0)
    total = -(-context // patch) - (-horizon // patch)
    ahead = predicted(total)
    torch.manual_seed(0)
    found = step_flops(model, batch)
    rows = int(batch.past_observed.any(-1).sum())
    embedded, positions = (total - ahead, total) if name == "patch_encoder" else (total - 1, total - 1)
    linear = layers * positions * (8 * c * c + 6 * c * hidden_width(c)) + ahead * 8 * c * patch * components
    attention = layers * 2 * positions**2 * c
    # Nothing asks for the gradient of the series; attention takes two products forward and five backward.
    assert found == rows * (3 * linear + 2 * 2 * embedded * patch * c + 7 * attention)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_fused_attention_on_a_cpu_is_counted_as_its_products(masked: bool, trained: bool) -> None:
    rows, heads, positions, width = 3, 2, 7, 5
    q, k, v = torch.randn(3, rows, heads, positions, width, requires_grad=trained).unbind()
    mask = torch.ones(rows, 1, positions, positions, dtype=torch.bool) if masked else None
    with flop_counter() as fused:
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        if trained:
            mixed.sum().backward()
    with flop_counter() as plain:
        mixed = (q @ k.mT / math.sqrt(width)).softmax(-1) @ v
        if trained:
            mixed.sum().backward()
    scores = 2 * rows * heads * positions**2 * width
    assert plain.get_total_flops() == scores * (6 if trained else 2)
    assert fused.get_total_flops() == plain.get_total_flops() + scores * trained


class Kernels(TorchDispatchMode):
    """Notes every kernel that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.add(func._overloadpacket)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", registry.architectures())
def test_no_kernel_that_multiplies_matrices_goes_uncounted(name: str) -> None:
    cls = registry.get(name)
    model, batch = Subject(cls, registry.options(name, next(iter(cls.SIZES)))).example(np.random.default_rng(0))
    with Kernels() as kernels:
        step_flops(model, batch)
    uncounted = {str(kernel) for kernel in kernels.called - set(flop_counter().flop_registry)}
    assert kernels.called
    assert not [kernel for kernel in uncounted if not kernel.startswith(("aten.", "prim"))]
    assert not [kernel for kernel in uncounted if PRODUCTS.search(kernel)]
