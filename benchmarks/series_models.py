"""Training tokens a second of the patch transformers, against bodies of the same size from PyTorch and from uni2ts.

A step is forward, the loss of a mixture of four Student t distributions, backward and AdamW, of 32 series with a
context of 512 steps and a horizon of 64: 18 patches each, on one thread, in float32. The three have the same patch
embedding and head. PyTorch's `TransformerEncoder` (pre-norm, GELU, no positions) gets the hidden width that matches
the parameters; uni2ts, where it can be imported (`pip install --no-deps uni2ts einops`), is the published body: norm of
queries and keys, rotary positions, SwiGLU. Both predict every patch, as uni2ts does, where ours predicts those that
are scored; the second table is of the bodies alone, without this difference.

All sides are timed in turn, so that other work on the machine meets all alike. Times are of the processor; a side's is
the median over rounds, a ratio the median of the rounds' ratios with the 95 % bootstrap interval of that median.

Run: python -m benchmarks series_models, or python -m benchmarks.series_models [--rounds 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models import ratio
from scisci.data.ragged import Ragged
from scisci.data.series import series_batch
from scisci.models import registry
from scisci.models.blocks.mixture import StudentMixture
from scisci.models.blocks.patch import MixtureHead, restored, window
from scisci.models.blocks.sequence import Transformer

SERIES, CONTEXT, HORIZON, PATCH = 32, 512, 64, 32
SIZES = ("7k", "100k", "1.8M")
Step = Callable[[], None]


def batch_of() -> Any:
    """Random walks of one channel."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(SERIES, CONTEXT + HORIZON)).cumsum(axis=1).astype("f4")
    columns = {"channels": 1, "known": 0, "start": 0, "group": 0}
    ragged = Ragged(
        np.arange(SERIES + 1) * values.shape[1],
        {"values": values.ravel()},
        {name: np.full(SERIES, value) for name, value in columns.items()},
    )
    return series_batch(ragged, ["h"] * SERIES, CONTEXT, HORIZON)


def matched(ours: nn.Module, channels: int, layers: int) -> nn.TransformerEncoder:
    """PyTorch's encoder with as many parameters as our body."""
    parameters = sum(p.numel() for p in ours.parameters())
    hidden = round((parameters / layers - 4 * channels**2) / (2 * channels))
    layer = nn.TransformerEncoderLayer(
        channels, max(1, channels // 64), hidden, 0.0, nn.functional.gelu, batch_first=True, norm_first=True, bias=False
    )
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(channels, bias=False), enable_nested_tensor=False)


def published(channels: int, layers: int) -> nn.Module:
    """The body as uni2ts builds it."""
    from uni2ts.module.norm import RMSNorm
    from uni2ts.module.position import QueryKeyProjection, RotaryProjection
    from uni2ts.module.transformer import TransformerEncoder

    rotary = partial(
        QueryKeyProjection, proj_layer=RotaryProjection, kwargs={"max_len": 512}, partial_factor=(0.0, 0.5)
    )
    return TransformerEncoder(
        channels,
        layers,
        num_heads=max(1, channels // 64),
        dropout_p=0.0,
        norm_layer=RMSNorm,
        time_qk_proj_layer=rotary,
        shared_time_qk_proj=True,
    )


def bodies(channels: int, layers: int, causal: bool) -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """By side: the body, and what runs it on tokens [R, N, C] of which all are observed."""
    ours = Transformer(channels, layers, causal)
    plain = matched(ours, channels, layers)

    def run_plain(x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if causal else None
        return plain(x, mask, is_causal=causal)

    found: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
        "scisci": (ours, lambda x: ours(x, torch.ones(x.shape[:2], dtype=torch.bool))),
        "TransformerEncoder": (plain, run_plain),
    }
    if find_spec("uni2ts") and find_spec("einops"):
        theirs = published(channels, layers)
        if (sizes := [sum(p.numel() for p in body.parameters()) for body in (ours, theirs)])[0] != sizes[1]:
            raise RuntimeError(f"the bodies have {sizes} parameters")

        def run_theirs(x: Tensor) -> Tensor:
            seen = torch.ones(x.shape[0], x.shape[1], x.shape[1], dtype=torch.bool)
            ids = torch.arange(x.shape[1]).expand(x.shape[:2])
            return theirs(x, seen.tril() if causal else seen, time_id=ids, var_id=torch.zeros_like(ids))

        found["uni2ts"] = theirs, run_theirs
    return found


def stepping(parameters: list[nn.Parameter], loss: Callable[[], Tensor]) -> Step:
    """A training step on a loss."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def likelihood(outputs: dict[str, Tensor], values: Tensor, weights: Tensor) -> Tensor:
    """The mean negative log-likelihood."""
    return -(StudentMixture.of(outputs).log_prob(values) * weights).sum() / weights.sum()


def whole(name: str, size: str) -> dict[str, Step]:
    """Training steps of whole models, by side."""
    batch, options = batch_of(), registry.preset(name, size)
    ours = registry.build_forecaster(name, CONTEXT, HORIZON, **options)
    ours.train()

    def our_loss() -> Tensor:
        outputs = ours(batch)
        return likelihood(outputs, outputs["values"], outputs["weights"])

    found = {"scisci": stepping(list(ours.parameters()), our_loss)}
    for side, (body, run) in bodies(**options, causal=ours.causal).items():
        if side != "scisci":
            found[side] = _all_patches(batch, body, run, options["channels"], ours.causal)
    return found


def _all_patches(batch: Any, body: nn.Module, run: Callable[[Tensor], Tensor], channels: int, causal: bool) -> Step:
    embedding, head = nn.Linear(PATCH, channels), MixtureHead(channels, PATCH, 4)
    masked = nn.Parameter(torch.randn(channels))

    def loss() -> Tensor:
        of = window(batch, HORIZON, PATCH, training=True)
        tokens = embedding(of.tokens[:, 0])
        known = of.known
        if causal:
            tokens, known = tokens[:, :-1], known - 1
        else:
            tokens = torch.where((torch.arange(tokens.shape[1]) >= known)[:, None], masked, tokens)
        flat = {key: part.flatten(1, 2)[:, None] for key, part in head(run(tokens)).items()}
        values = of.values.flatten(2)[..., PATCH * causal :]
        scored = torch.arange(values.shape[-1]) >= known * PATCH
        return likelihood(restored(flat, of.instance), values, scored.expand(values.shape))

    return stepping([*embedding.parameters(), *body.parameters(), *head.parameters(), masked], loss)


def alone(name: str, size: str) -> dict[str, Step]:
    """Training steps of the bodies on random tokens, by side."""
    options = registry.preset(name, size)
    tokens = torch.randn(SERIES, (CONTEXT + HORIZON) // PATCH, options["channels"])
    found = {}
    for side, (body, run) in bodies(**options, causal=registry.get(name).causal).items():
        found[side] = stepping(list(body.parameters()), lambda run=run: run(tokens).square().mean())
    return found


def seconds(steps: dict[str, Step], rounds: int) -> dict[str, np.ndarray]:
    """Processor time [rounds] of a step of each side, asked in changing order."""
    rng, found = np.random.default_rng(0), {side: np.empty(rounds) for side in steps}
    for r in range(-3, rounds):
        for side in rng.permutation(list(steps)):
            torch.manual_seed(r)
            begin = time.process_time()
            steps[side]()
            found[side][max(r, 0)] = time.process_time() - begin
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens, figures = SERIES * (CONTEXT + HORIZON) // PATCH, []
    for title, make in (("whole models", whole), ("bodies alone", alone)):
        print(f"\n{title}: tokens a second, and how many times as many as the others")
        for name in ("patch_encoder", "patch_decoder"):
            for size in SIZES:
                times = seconds(make(name, size), options.rounds)
                ratios = {side: ratio(t, times["scisci"]) for side, t in times.items() if side != "scisci"}
                cells = "".join(
                    f"   {side} {r:.2f} ({low:.2f} to {high:.2f})" for side, (r, low, high) in ratios.items()
                )
                rate = {side: tokens / float(np.median(t)) for side, t in times.items()}
                print(f"{name:15}{size:>6}{rate['scisci']:10,.0f}{cells}", flush=True)
                figures.append({"of": title, "name": name, "size": size, "tokens per second": rate, "ratios": ratios})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"rounds": options.rounds, "figures": figures}, file, indent=1)


if __name__ == "__main__":
    main()
