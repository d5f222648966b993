"""Decoder-only patch transformer: every patch from those before it.

In training all patches after the known ones are predicted in one pass, each from what went before; mean and scale are
those of the known ones, as they are of the past in evaluation. A forecast goes patch by patch, the median of each
being what the next one is predicted from. Sizes and settings: Yao et al. (2024), see
`scisci.models.blocks.patch_transformer`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scisci.models.blocks.mixture import StudentMixture
from scisci.models.blocks.patch import Window
from scisci.models.blocks.patch_transformer import PatchTransformer
from scisci.models.registry import register


@register("patch_decoder")
class PatchDecoder(PatchTransformer):
    """Next patches, one after the other. For its arguments see `PatchTransformer`."""

    causal: ClassVar[bool] = True

    def mixture(self, rows: Window) -> dict[str, Float[Tensor, "rows predicted patch components"]]:
        """Of the patches after the known ones, in units of the instance."""
        tokens, seen = rows.tokens, rows.patches_observed
        if self.training:
            return self.following(tokens[:, :-1], seen[:, :-1], rows.known)
        tokens, seen = tokens[:, : rows.known], seen[:, : rows.known]
        found = [self.following(tokens, seen, rows.known)]
        while len(found) < rows.ahead:
            median = StudentMixture.of(found[-1]).quantile([0.5])[..., 0]
            tokens, seen = torch.cat([tokens, median], dim=1), torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
            found.append(self.following(tokens, seen, tokens.shape[1]))
        return {name: torch.cat([part[name] for part in found], dim=1) for name in found[0]}

    def following(
        self, tokens: Float[Tensor, "rows patches patch"], seen: Tensor, known: int
    ) -> dict[str, Float[Tensor, "rows ahead patch components"]]:
        """The patch after each of `tokens` from the last known one on."""
        return self.head(self.body(self.embedding(tokens), seen)[:, known - 1 :])
