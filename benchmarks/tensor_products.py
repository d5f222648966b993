"""The Gaunt tensor product against Clebsch-Gordan ones: full products of features, and messages along edges.

Both factors and the output hold every degree up to L once, with parity (-1)^l; products are channel by channel. All
contenders are timed in turn in one process, on one thread, in float32. Times are medians over the rounds of CPU time,
which other processes of the machine disturb less than wall time. Contenders that compute the same function (marked =)
are first compared with each other; e3nn's full products keep the paths apart instead. The power of L is fitted to the
medians from L = 4, 6 and 8 on, with its 95 % interval: at low degrees, fixed costs of calls flatten it.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from scisci.models.blocks.fourier import SphereTransform, legendre_functions
from scisci.models.blocks.gaunt import GauntEdgeProduct, GauntTensorProduct
from scisci.models.blocks.irreps import EdgeTensorProduct
from scisci.scaling import difference, fit

ROWS, CHANNELS, DEGREES, FIT_FROM = 64, 32, (*range(1, 11), 12, 14), (4, 6, 8)
EDGES, EDGE_DEGREES = 1024, range(1, 7)  # about a batch of 16 small molecules
BURST, SECONDS, ROUNDS = 0.03, 1.0, (5, 15)  # a burst at least, the slowest contender in all, fewest and most rounds

Call = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


class FourierProduct:
    """The Gaunt product as published: 2D Fourier coefficients on the torus, convolved by zero-padded FFTs."""

    def __init__(self, top: int) -> None:
        size = 4 * top + 1
        angles = 2 * np.pi * np.arange(size) / size
        orders = np.arange(top + 1)[:, None, None]
        torus = legendre_functions(top, np.cos(angles)) * np.sign(np.sin(angles) + 1e-9) ** orders
        nodes, weights = np.polynomial.legendre.leggauss(8 * top + 40)
        polar = np.pi * (nodes + 1) / 2
        waves = np.exp(1j * np.fft.fftfreq(size, 1 / size)[:, None] * polar)
        back = (legendre_functions(top, np.cos(polar)) * weights * np.sin(polar)) @ waves.T * np.pi / 2
        halves = np.where(orders > 0, 0.5, 1)  # a real function holds e^{imα} and its conjugate
        self.size, self.top = size, top
        self.synthesis = torch.from_numpy(np.fft.fft(torus).swapaxes(1, 2) / size * halves).to(torch.complex64)
        self.analysis = torch.from_numpy(2 * np.pi * back).to(torch.complex64)
        m, degree = np.meshgrid(np.arange(top + 1), np.arange(top + 1), indexing="ij")
        kept = m <= degree
        self.cosines, self.sines = (np.where(kept, degree**2 + degree + s * m, 0).ravel() for s in (1, -1))
        self.place = torch.tensor(
            [2 * (abs(k) * (top + 1) + n) + (k < 0) for n in range(top + 1) for k in range(-n, n + 1)]
        )

    def torus_values(self, x: Tensor) -> Tensor:
        """[N, J] → values on the torus [N, size, size]"""
        sines = x[:, self.sines].view(-1, self.top + 1, self.top + 1) * (torch.arange(self.top + 1) > 0)[:, None]
        by_order = torch.complex(x[:, self.cosines].view_as(sines), -sines)
        coefficients = self.synthesis @ by_order.permute(1, 2, 0)  # [m, frequency, N]
        return torch.fft.irfft2(coefficients.permute(2, 1, 0), s=(self.size, self.size), norm="forward")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.torus_values(x) * self.torus_values(y), norm="forward")
        integrals = self.analysis @ spectrum[:, :, : self.top + 1].permute(2, 1, 0)  # [m, degree, N]
        parts = torch.stack([integrals.real, -integrals.imag], 2).flatten(0, 2)  # cosines and sines in turn
        return parts.index_select(0, self.place).T


def gaunt_paths(top: int) -> list[tuple[int, int, int]]:
    """All (l₁, l₂, l₃) up to `top` with even sum within the triangle."""
    triples = product(range(top + 1), repeat=3)
    return [(a, b, c) for a, b, c in triples if abs(a - b) <= c <= a + b and (a + b + c) % 2 == 0]


def full_products(top: int) -> dict[str, Call]:
    """Every contender with its inputs; those named "=" compute the same function."""
    irreps, generator = o3.Irreps.spherical_harmonics(top), torch.Generator().manual_seed(top)
    x, y = (torch.randn(ROWS, irreps.dim, CHANNELS, generator=generator) for _ in range(2))
    dense = [t.clone().requires_grad_() for t in (x, y)]
    flat = [t.transpose(1, 2).flatten(0, 1).clone().requires_grad_() for t in (x, y)]
    wide = o3.Irreps([(CHANNELS, ir) for _, ir in irreps])
    grouped = [
        torch.cat([t[:, rows].transpose(1, 2).flatten(1) for rows in irreps.slices()], 1).requires_grad_()
        for t in (x, y)
    ]
    ours = GauntTensorProduct(top, top, top)
    table, factors = ours.coefficients(), []
    for a, b, c in gaunt_paths(top):
        wigner = o3.wigner_3j(a, b, c, dtype=torch.float64)
        factors.append(torch.sum(table[tuple(irreps.slices()[degree] for degree in (a, b, c))] * wigner))
    matrix = table.flatten(0, 1).float()
    instructions = [(a, b, c, "uuu", True, 1.0) for a, b, c in gaunt_paths(top)]
    summed = o3.TensorProduct(
        wide, wide, wide, instructions, irrep_normalization="none", path_normalization="none", internal_weights=True
    )
    with torch.no_grad():
        summed.weight.copy_(torch.stack(factors).repeat_interleave(CHANNELS))
    return {
        "e3nn full, all paths": (o3.FullTensorProduct(irreps, irreps), tuple(flat)),
        "e3nn full, our paths": (o3.FullTensorProduct(irreps, irreps, [ir for _, ir in irreps]), tuple(flat)),
        "= e3nn uuu, summed": (summed, tuple(grouped)),
        "= one dense matrix": (lambda x, y: (x[:, :, None] * y[:, None]).flatten(1) @ matrix, tuple(flat)),
        "= Gaunt, FFT": (FourierProduct(top), tuple(flat)),
        "= Gaunt, ours": (ours, tuple(dense)),
    }


def edge_products(top: int) -> dict[str, Call]:
    """Messages with weights per edge and channel: for each path, or for degrees in and out (on the grid, and ours)."""
    irreps = o3.Irreps.spherical_harmonics(top)
    all_paths, ours = EdgeTensorProduct(irreps, irreps, irreps), GauntEdgeProduct(irreps, irreps, irreps)
    grid = GauntTensorProduct(top, top, top)

    def on_grid(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        before, after = (weights.index_select(1, index) for index in (ours.weight_before, ours.weight_after))
        return grid(x * before, y[:, :, None]) * after

    calls: dict[str, Call] = {}
    x, y = torch.randn(EDGES, irreps.dim, CHANNELS), torch.randn(EDGES, irreps.dim)
    contenders = (("Clebsch-Gordan", all_paths, all_paths), ("Gaunt, grid", on_grid, ours), ("Gaunt, ours", ours, ours))
    for name, call, layout in contenders:
        weights = torch.randn(EDGES, len(layout.paths), CHANNELS)
        calls[name] = (call, tuple(t.clone().requires_grad_() for t in (x, y, weights)))
    return calls


def check_equal(calls: dict[str, Call], top: int) -> None:
    """All contenders named "=" must agree with ours to float32 accuracy."""
    call, inputs = calls["= Gaunt, ours"]
    expected = call(*inputs).detach()
    slices = o3.Irreps.spherical_harmonics(top).slices()
    for name in (n for n in calls if n.startswith("=")):
        call, inputs = calls[name]
        result = call(*inputs).detach()
        if "uuu" in name:
            parts = [result[:, s.start * CHANNELS : s.stop * CHANNELS].unflatten(1, (CHANNELS, -1)) for s in slices]
            result = torch.cat(parts, 2).transpose(1, 2)
        elif result.dim() == 2:
            result = result.view(ROWS, CHANNELS, -1).transpose(1, 2)
        error = float((result - expected).norm() / expected.norm())
        if error > 1e-5:
            raise RuntimeError(f"{name} is off by {error:.1e} at L = {top}")


def forward(call: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    """One call without gradients."""
    with torch.no_grad():
        call(*inputs)


def training(call: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    """One call and the gradients of all its inputs."""
    torch.autograd.grad(call(*inputs).sum(), inputs)


def medians(calls: dict[str, Call], work: Callable[..., None]) -> dict[str, float]:
    """Median milliseconds of every contender over interleaved rounds, each a burst of calls so that none is a blink."""

    def burst(call: Call, count: int) -> float:
        start = time.process_time()
        for _ in range(count):
            work(*call)
        return (time.process_time() - start) / count

    for call in calls.values():
        burst(call, 2)  # TorchScript optimises at the second call
    once = {name: burst(call, 1) for name, call in calls.items()}
    counts = {name: math.ceil(BURST / seconds) for name, seconds in once.items()}
    rounds = int(np.clip(SECONDS / max(once.values()), *ROUNDS))
    samples = [{name: burst(call, counts[name]) for name, call in calls.items()} for _ in range(rounds)]
    return {name: 1e3 * statistics.median(sample[name] for sample in samples) for name in calls}


def show(title: str, rows: dict[int, dict[str, float]], number: str = "{:.2f}") -> None:
    """Costs of each contender by L, and how many times less the last one, ours, costs."""
    names = list(rows[min(rows)])
    print(f"\n{title}, and times the last column's")
    print(f"{'L':>3} " + " ".join(f"{name.removeprefix('= '):>22}" for name in names))
    for top, row in rows.items():
        ratios = [f" {row[name] / row[names[-1]]:8.1f}x" for name in names[:-1]] + [""]
        cells = [f"{number.format(row[name]) + ratio:>22}" for name, ratio in zip(names, ratios, strict=True)]
        print(f"{top:3d} " + " ".join(cells), flush=True)


def multiplications(top: int) -> dict[str, float]:
    """Multiplications of one pair of features, counted: blocks of paths as dense, and our padded transforms."""
    paths = sum((2 * a + 1) * (2 * b + 1) * (2 * c + 1) for a, b, c in gaunt_paths(top))
    transform = SphereTransform(top, 3 * top)
    by_grid = 3 * (transform.synthesis.numel() + transform.azimuth.numel() * transform.synthesis.shape[1])
    return {
        "e3nn full, all paths": sum((2 * degree + 1) ** 2 for degree in range(top + 1)) ** 2,
        "e3nn full, our paths": paths,
        "= one dense matrix": (top + 1) ** 6,
        "= Gaunt, ours": by_grid + len(transform.azimuth) * transform.synthesis.shape[1],
    }


def show_powers(rows: dict[int, dict[str, float]]) -> None:
    """Fit cost ∝ L^p from each of `FIT_FROM` on; the difference to ours is paired by L."""
    for start in FIT_FROM:
        large = [top for top in rows if top >= start]
        fits = {
            name: fit("power", {"L": large, "cost": [rows[top][name] for top in large]}, x={"N": "L"}, y="cost")
            for name in rows[start]
        }
        ours = fits["= Gaunt, ours"]
        print(f"power of L over {start}..{large[-1]}, and how much it exceeds ours, with 95 % intervals")
        for name, law in fits.items():
            low, high = law.intervals["alpha"]
            over = difference(ours, law)
            excess = "" if law is ours else f"   {over.value:+.2f} ({over.low:.2f} to {over.high:.2f})"
            print(f"{name.removeprefix('= '):>22} {-law.parameters['alpha']:5.2f} ({-high:.2f} to {-low:.2f}){excess}")


def main() -> None:
    """Print times and powers of full products, then times of messages."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*torch.jit.*")
    rounds = {"forward": forward, "forward and backward": training}
    full: dict[str, dict[int, dict[str, float]]] = {name: {} for name in rounds}
    for top in DEGREES:
        calls = full_products(top)
        check_equal(calls, top)
        for name, work in rounds.items():
            full[name][top] = medians(calls, work)
    counted = {top: multiplications(top) for top in DEGREES}
    show("multiplications of one pair of features, counted", counted, "{:.0f}")
    show_powers(counted)
    for name, rows in full.items():
        show(f"full product of {ROWS * CHANNELS} pairs of features, {name}: milliseconds", rows)
        show_powers(rows)
    for name, work in rounds.items():
        rows = {top: medians(edge_products(top), work) for top in EDGE_DEGREES}
        show(f"messages on {EDGES} edges, {CHANNELS} channels, {name}: milliseconds", rows)


if __name__ == "__main__":
    main()
