"""The product by cuEquivariance against the dense one, and what is said where the library is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from e3nn import o3
from torch._subclasses.fake_tensor import FakeTensorMode

from scisci import cli
from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.cue import CueEdgeProduct
from scisci.models.blocks.graph import Inputs
from scisci.models.blocks.irreps import EdgeTensorProduct, hidden_irreps
from scisci.models.conformance import CHECKS, Subject, checks_for
from scisci.models.conformance.systems import ELEMENTS, molecules

needs_library = pytest.mark.skipif(
    find_spec("cuequivariance_torch") is None, reason="cuequivariance-torch is not installed"
)
needs_kernels = pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("cuequivariance_ops_torch") is None,
    reason="no CUDA device, or its kernels (cuequivariance-ops-torch) are not installed",
)
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_kernels])]
IRREPS = {
    "scalars": ("0e", "0e", "0e"),
    "l_max 1": (*["0e+1o"] * 3,),
    "l_max 2, both parities": (str(hidden_irreps(2, True)), "0e+1o+2e", str(hidden_irreps(2, True))),
    "l_max 3": (*["0e+1o+2e+3o"] * 3,),
    "any order": ("2e+0e+1o+1e", "0e+1o+2e", "1e+0o+2e+1o+3o"),
}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).norm() / expected.norm()).detach())


@needs_library
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [3, 32])
@pytest.mark.parametrize("irreps", IRREPS.values(), ids=IRREPS)
def test_values_and_two_derivatives_are_those_of_the_dense_product(
    irreps: tuple[str, str, str], channels: int, device: str
) -> None:
    inputs, sphere, outputs = map(o3.Irreps, irreps)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(device)

    dense = EdgeTensorProduct(inputs, sphere, outputs).to(device)
    fused = CueEdgeProduct(inputs, sphere, outputs, channels).to(device)
    assert (fused.paths, fused.copies) == (dense.paths, dense.copies)
    operands = random(7, inputs.dim, channels), random(7, sphere.dim), random(7, len(dense.paths), channels)
    directions = [random(*operand.shape) for operand in operands]
    results = []
    for product in (dense, fused):
        leaves = [operand.clone().requires_grad_() for operand in operands]
        messages = product(*leaves)
        slopes = torch.autograd.grad(messages.sin().sum(), leaves, create_graph=True)
        # As in training with forces: a function of the first derivatives, differentiated by everything.
        along = sum((slope * direction).sum() for slope, direction in zip(slopes, directions, strict=True))
        results.append([messages, *slopes, *torch.autograd.grad(along, leaves)])
    for expected, found in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert relative(found, expected) < 1e-10


@needs_library
def test_checkpoints_move_between_products() -> None:
    """Same names and shapes of weights, and the same energies and forces from them in float64, also after float32."""
    dense, fused = (
        Subject(registry.get("nequip"), {"channels": 8, "l_max": 2, "tensor_product": product}).potential()
        for product in ("clebsch_gordan", "cuequivariance")
    )
    for weight in dense.parameters():
        weight.data.mul_(1.1)
    fused.load_state_dict(dense.state_dict())
    batch = molecules(np.random.default_rng(0))
    expected, found = dense(batch), fused(batch)
    for name in ("energy", "forces"):
        assert relative(found[name], expected[name]) < 1e-10


@needs_library
@pytest.mark.parametrize("check", sorted({*checks_for(registry.get("nequip"))} - {"claims", "clouds", "sizes"}))
def test_model_with_this_product_passes_every_check(check: str) -> None:
    options = registry.options("nequip", "3k", {"l_max": 2, "parity": True, "tensor_product": "cuequivariance"})
    failed = [outcome for outcome in CHECKS[check](Subject(registry.get("nequip"), options)) if not outcome.passed]
    assert not failed, failed


@needs_library
def test_missing_kernels_are_named_where_tensors_are_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuequivariance_ops_torch", None)
    irreps = o3.Irreps("0e+1o")
    product = CueEdgeProduct(irreps, irreps, irreps, 4)
    with FakeTensorMode(), pytest.raises(UserError, match=r"pip install cuequivariance-ops-torch-cu\d\d$"):
        product(*(torch.empty(2, *shape, device="cuda") for shape in ((4, 4), (4,), (len(product.paths), 4))))


def test_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuequivariance_torch", None)
    with pytest.raises(UserError, match=r"needs cuequivariance-torch; install it with pip install 'scisci\[cuda\]'$"):
        registry.build("nequip", Inputs(ELEMENTS), 7.0, tensor_product="cuequivariance")
    for product in ("clebsch_gordan", "so2", "gaunt"):
        registry.build("nequip", Inputs(ELEMENTS), 7.0, tensor_product=product)


def test_fit_without_the_library_stops_before_anything_is_written(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cuequivariance_torch", None)
    monkeypatch.chdir(tmp_path)
    arguments = [f"--data.dataset={small_store}", f"--runs={tmp_path / 'runs'}", "--trainer.max_steps=1"]
    model = ["--model.architecture=nequip", "--model.overrides={tensor_product: cuequivariance}"]
    monkeypatch.setattr(sys, "argv", ["scisci", "fit", *arguments, *model])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("scisci: error: tensor_product cuequivariance needs cuequivariance-torch; install it with")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
