"""Encoder-only patch transformer: patches that are masked, by a learned embedding, from those that are known.

Every position sees all others, and all masked ones are predicted at once. Sizes and settings: Yao et al. (2024), see
`scisci.models.blocks.patch_transformer`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scisci.models.blocks.patch import Window
from scisci.models.blocks.patch_transformer import PatchTransformer
from scisci.models.registry import register


@register("patch_encoder")
class PatchEncoder(PatchTransformer):
    """Masked patches at once, from all that are known. For its arguments see `PatchTransformer`."""

    causal: ClassVar[bool] = False

    def mixture(self, rows: Window) -> dict[str, Float[Tensor, "rows predicted patch components"]]:
        """Of the masked patches, in units of the instance."""
        tokens = self.embedding(rows.tokens[:, : rows.known])
        masked = self.masked.expand(len(tokens), rows.ahead, -1)
        seen = rows.patches_observed[:, : rows.known]
        seen = torch.cat([seen, seen.new_ones(len(seen), rows.ahead)], dim=1)
        return self.head(self.body(torch.cat([tokens, masked], dim=1), seen)[:, rows.known :])
