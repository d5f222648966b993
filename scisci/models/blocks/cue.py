"""The messages of `EdgeTensorProduct` by cuEquivariance, NVIDIA's library of fused equivariant kernels for CUDA.

Everything about the product is stated here as a segmented polynomial (which components of which operands multiply,
with which coefficient); the library turns that into one kernel per pass, derivatives of every order included.

Tested with cuequivariance-torch 0.10 and 0.13 on a CPU, where the library evaluates the same polynomial with
`torch.einsum`: values, first and second derivatives equal those of `EdgeTensorProduct`. The CUDA kernels have not been
run: neither their numbers nor their speed are known here.

FLOPs of a run are counted on a CPU, so those recorded are of the einsums, which multiply in another order than
`EdgeTensorProduct`: 0.90 and 0.70 of its count in a training step of the NequIP class at `l_max` 1 and 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from scisci.contracts.errors import UserError
from scisci.models.blocks.irreps import coupling_paths, path_blocks


class CueEdgeProduct(nn.Module):
    """`EdgeTensorProduct` for CUDA: fused kernels there, and on a CPU the library's einsums, which are slower.

    The same function of the same arguments in the same layout, without parameters or buffers, so that a model can be
    trained with one product and evaluated with the other. Kernels are made for one number of `channels`; the library
    advises multiples of 32.

    Errors: `UserError` if the library is missing, or its kernels where tensors are on a CUDA device.
    """

    def __init__(self, features: o3.Irreps, harmonics: o3.Irreps, outputs: o3.Irreps, channels: int) -> None:
        super().__init__()
        cue, cue_torch = _libraries()
        self.paths = coupling_paths(features, harmonics, outputs)
        self.copies = [paths for paths, _ in path_blocks(self.paths, outputs)]
        product = cue.SegmentedTensorProduct.from_subscripts("u,iu,j,ku+ijk")  # weights, features, harmonics, messages
        for _, ir in features:
            product.add_segment(1, (ir.dim, channels))
        for _, ir in harmonics:
            product.add_segment(2, (ir.dim,))
        for path in self.paths:
            output = outputs[path.output]
            degrees = features[path.feature].ir.l, harmonics[path.harmonic].ir.l, output.ir.l
            coupling = o3.wigner_3j(*degrees, dtype=torch.float64) * math.sqrt(output.dim)
            # A segment of weights and one of messages of its own for every path, in the order of paths.
            product.add_path(None, path.feature, path.harmonic, None, c=coupling.numpy(), dims={"u": channels})
        polynomial = cue.SegmentedPolynomial.eval_last_operand(product)
        # In tuples the module does not see them: their coefficients stay in float64 and out of the state dict.
        self.einsums = (cue_torch.SegmentedPolynomial(polynomial, method="naive"),)
        self.kernels: tuple[Any, ...] = ()
        if _has_kernels():
            self.kernels = (cue_torch.SegmentedPolynomial(polynomial, method="uniform_1d"),)

    def forward(
        self,
        features: Float[Tensor, "edges j channels"],
        harmonics: Float[Tensor, "edges h"],
        weights: Float[Tensor, "edges paths channels"],
    ) -> Float[Tensor, "edges rows channels"]:
        """Messages [E, rows, C]: the components of all paths one after the other, in the order of `paths`."""
        cuda = features.device.type == "cuda"
        if cuda and not self.kernels:
            raise UserError(
                "tensor_product cuequivariance lacks its CUDA kernels; install them with "
                f"pip install cuequivariance-ops-torch-cu{(torch.version.cuda or '13').split('.')[0]}"
            )
        evaluate = self.kernels[0] if cuda else self.einsums[0]
        (messages,) = evaluate([weights.flatten(1), features.flatten(1), harmonics])
        return messages.unflatten(1, (-1, features.shape[2]))


def _libraries() -> tuple[Any, Any]:
    """The modules `cuequivariance` and `cuequivariance_torch`, which are optional."""
    try:
        import cuequivariance
        import cuequivariance_torch
    except ImportError as error:
        raise UserError(
            "tensor_product cuequivariance needs cuequivariance-torch; install it with pip install 'scisci[cuda]'"
        ) from error
    return cuequivariance, cuequivariance_torch


def _has_kernels() -> bool:
    """Whether the library's CUDA kernels can be loaded; without them it would fall back to einsums on a GPU."""
    try:
        import cuequivariance_ops_torch  # noqa: F401
    except ImportError:
        return False
    return True
