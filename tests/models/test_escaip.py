from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from ase.lattice.cubic import BodyCenteredCubic, FaceCenteredCubic, SimpleCubic
from e3nn import o3
from scipy.special import eval_legendre
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.blocks.neighborhood import ROUNDING, SHORT, BondOrder, SlotAttention, in_slots, token_orders
from scisci.models.blocks.radial import Envelope
from scisci.models.escaip import EScAIP
from scisci.models.potential import Geometry, Potential

CUTOFF = 3.0


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def graph_of(positions: Tensor, vectors: int = 0) -> Graph:
    """All ordered pairs within the cutoff, in random order."""
    pairs = torch.tensor(list(itertools.permutations(range(len(positions)), 2)))
    edges = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    chosen = torch.randperm(len(pairs))
    chosen = chosen[edges[chosen].norm(dim=1) < CUTOFF]
    return Graph(
        torch.arange(len(positions)) % 2 * 5 + 1,
        pairs[chosen, 0],
        pairs[chosen, 1],
        edges[chosen],
        edges[chosen].norm(dim=1),
        None,
        torch.randn(len(positions), 3, vectors) if vectors else None,
    )


def scattered(nodes: int = 9) -> Tensor:
    """Points with one to several neighbours each, and a last one without any."""
    return torch.cat([1.6 * torch.randn(nodes - 1, 3), torch.tensor([[50.0, 0, 0]])])


def made(inputs: Inputs | None = None, **options: Any) -> EScAIP:
    sizes = {
        "channels": 6,
        "edge_channels": 8,
        "layers": 3,
        "heads": 2,
        "l_max": 2,
        "cutoff": CUTOFF,
        "radial_basis": 4,
    }
    return EScAIP(inputs or Inputs((1, 6)), 4.0, **(sizes | options)).double().requires_grad_(False)


def neighbors_of(graph: Graph, node: int) -> list[int]:
    return [edge for edge in range(len(graph.receivers)) if graph.receivers[edge] == node]


@pytest.mark.parametrize("cap", [0, 2, 40])
def test_slots_hold_every_neighbour_of_their_node_once(cap: int) -> None:
    graph = graph_of(scattered())
    slots, filled = in_slots(graph, CUTOFF, cap)
    nodes, width = filled.shape
    assert width == 1 + max(len(neighbors_of(graph, node)[: cap or None]) for node in range(nodes))
    vectors, lengths, senders = slots.vectors.view(nodes, width, 3), slots.lengths.view(nodes, -1), slots.senders
    assert slots.receivers.tolist() == [node for node in range(nodes) for _ in range(width)]
    for node in range(nodes):
        mine = sorted(neighbors_of(graph, node), key=lambda edge: float(graph.lengths[edge]))[: cap or None]
        held = [
            (int(senders.view(nodes, -1)[node, s]), *vectors[node, s].tolist()) for s in filled[node].nonzero()[:, 0]
        ]
        assert sorted(held) == sorted((int(graph.senders[edge]), *graph.vectors[edge].tolist()) for edge in mine)
        assert not filled[node, 0]
        assert (senders.view(nodes, -1)[node, ~filled[node]] == node).all()
        assert (lengths[node, ~filled[node]] == CUTOFF).all()


@pytest.mark.parametrize(
    ("lattice", "shell", "four", "six"),
    [
        (FaceCenteredCubic, 12, 0.19094, 0.57452),
        (BodyCenteredCubic, 8, 0.50918, 0.62854),
        (SimpleCubic, 6, 0.76376, 0.35355),
    ],
)
def test_bond_orders_of_cubic_lattices_are_the_published_ones(
    lattice: Any, shell: int, four: float, six: float
) -> None:
    """Steinhardt, Nelson & Ronchetti (1983), table I; for bcc of the nearest shell, as Mickel et al. (2013) list it."""
    atoms = lattice("Cu", size=(3, 3, 3), latticeconstant=1.0)
    vectors = torch.from_numpy(atoms.get_distances(0, range(1, len(atoms)), mic=True, vector=True))
    order = vectors.norm(dim=1).argsort()[:shell]
    harmonics = o3.spherical_harmonics([0, 1, 2, 3], vectors[order], normalize=True, normalization="norm")
    found = BondOrder(3)(harmonics[None], torch.ones(1, shell))[0]
    # Undo the rounding, and the node itself in the mean.
    found = (found.square() - ROUNDING).clamp(min=0).sqrt() * (shell + 1) / shell
    expected = torch.tensor([1.0, 0, 0, 0, four, 0, six])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def slow_bond_order(vectors: Tensor, envelope: Tensor, l_max: int) -> Tensor:
    """One harmonic of one neighbour at a time."""
    found = []
    for degree in range(2 * l_max + 1):
        mean = torch.zeros(2 * degree + 1)
        for vector, weight in zip(vectors, envelope, strict=True):
            mean += weight * o3.spherical_harmonics(degree, vector, normalize=True, normalization="norm")
        found.append(torch.sqrt((mean / (1 + envelope.sum())).square().sum() + ROUNDING))
    return torch.stack(found)


@pytest.mark.parametrize("l_max", [0, 1, 2, 3])
def test_bond_orders_equal_a_slow_sum_and_do_not_turn(l_max: int) -> None:
    vectors, envelope = torch.randn(2, 7, 3), torch.rand(2, 7)
    degrees = list(range(l_max + 1))

    def order(by: Tensor) -> Tensor:
        harmonics = o3.spherical_harmonics(degrees, vectors @ by.T, normalize=True, normalization="norm")
        return BondOrder(l_max)(harmonics, envelope)

    found, rotation = order(torch.eye(3)), o3.rand_matrix()
    expected = torch.stack([slow_bond_order(v, w, l_max) for v, w in zip(vectors, envelope, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(order(rotation), found, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(order(-rotation), found, rtol=1e-12, atol=1e-12)


def slow_token_orders(tokens: Tensor, vectors: Tensor, l_max: int) -> Tensor:
    """One channel, one harmonic and one neighbour at a time."""
    found = []
    for degree, channel in itertools.product(range(l_max + 1), range(tokens.shape[1])):
        sum_ = torch.zeros(2 * degree + 1)
        for token, vector in zip(tokens, vectors, strict=True):
            sum_ += token[channel] * o3.spherical_harmonics(degree, vector, normalize=True, normalization="norm")
        found.append(torch.sqrt(sum_.square().sum() + SHORT) if degree else sum_[0])
    return torch.stack(found)


@pytest.mark.parametrize("l_max", [0, 1, 3])
def test_orders_of_tokens_equal_a_slow_sum_and_do_not_turn(l_max: int) -> None:
    tokens, vectors = torch.randn(2, 5, 4), torch.randn(2, 5, 3)

    def orders(by: Tensor) -> Tensor:
        of = o3.spherical_harmonics(list(range(l_max + 1)), vectors @ by.T, normalize=True, normalization="norm")
        return token_orders(of, tokens)

    found, rotation = orders(torch.eye(3)), o3.rand_matrix()
    expected = [slow_token_orders(*each, l_max) for each in zip(tokens, vectors, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(orders(rotation), found, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(orders(-rotation), found, rtol=1e-12, atol=1e-12)


def slow_attention(layer: SlotAttention, tokens: Tensor, weights: Tensor, directions: list[Tensor | None]) -> Tensor:
    """Slot by slot, channel by channel, with Legendre polynomials of the angle; a slot without direction has none."""
    query, key, value = (linear.weight for linear in (layer.query, layer.key, layer.value))
    each, out = max(1, layer.width // 8), torch.zeros_like(tokens)
    degrees = round(math.sqrt(len(layer.spread))) if layer.angular else 1
    for head, one in itertools.product(range(layer.heads), range(len(tokens))):
        numerator, denominator = torch.zeros(layer.width), torch.tensor(0.0)
        for other in range(len(tokens)):
            logit = torch.tensor(0.0)
            for channel in range(layer.width):
                row = head * layer.width + channel
                degree = 1 + channel // each if channel < each * (degrees - 1) else 0
                polynomial = 1.0
                if degree:
                    u, v = directions[one], directions[other]
                    cosine = None if u is None or v is None else float(u @ v / (u.norm() * v.norm()))
                    polynomial = 0.0 if cosine is None else float(eval_legendre(degree, cosine))
                logit += (query[row] @ tokens[one]) * (key[row] @ tokens[other]) * polynomial
            weight = torch.exp(logit / math.sqrt(layer.width)) * weights[other]
            part = slice(head * layer.width, (head + 1) * layer.width)
            numerator, denominator = numerator + weight * (value[part] @ tokens[other]), denominator + weight
        out[one, head * layer.width : (head + 1) * layer.width] = numerator / denominator
    return out


@pytest.mark.parametrize(("heads", "l_max"), [(1, 0), (2, 0), (1, 2), (2, 3), (1, 4)])
def test_attention_equals_a_slow_loop_with_legendre_polynomials(heads: int, l_max: int) -> None:
    layer, slots = SlotAttention(16, heads, l_max).double().requires_grad_(False), 5
    tokens, weights, vectors = torch.randn(1, slots, 16) * 2, torch.rand(1, slots), torch.randn(slots, 3)
    harmonics = o3.spherical_harmonics(list(range(l_max + 1)), vectors, normalize=True, normalization="norm")[None]
    expected = slow_attention(layer, tokens[0], weights[0], list(vectors))
    torch.testing.assert_close(layer(tokens, weights, harmonics)[0], expected, rtol=1e-10, atol=1e-12)
    first = layer(tokens, weights, harmonics, queries=1)
    torch.testing.assert_close(first[0], expected[:1], rtol=1e-10, atol=1e-12)


def slow_model(model: EScAIP, graph: Graph) -> tuple[Tensor, Tensor]:
    """Lists of neighbours in place of slots, one node after the other: scalars and vectors."""
    envelope, edges, nodes = Envelope(CUTOFF), {}, range(len(graph.numbers))
    mine = {node: neighbors_of(graph, node) for node in nodes}
    l_max = model.bond_order.degrees // 2
    x = list(model.embedding(graph))
    for node in nodes:
        vectors = graph.vectors[mine[node]]
        x[node] = x[node] + model.order(slow_bond_order(vectors, envelope(vectors.norm(dim=1)), l_max))

    def ends(module: Any, node: int) -> list[Tensor]:
        """Of the node itself, then of its neighbours."""
        width, said = model.token.in_features, [module.ends(module.norm(one)) for one in x]
        senders = [node, *graph.senders[mine[node]].tolist()]
        return [said[sender][:width] + said[node][width:] for sender in senders]

    for node in nodes:
        radial = [torch.zeros(model.basis.count), *model.basis(graph.lengths[mine[node]])]
        along = [torch.zeros(0)] * len(radial)
        if graph.node_vectors is not None:
            units = [edge / edge.norm() for edge in graph.vectors[mine[node]]]
            both = [graph.node_vectors[[int(graph.senders[edge]), node]] for edge in mine[node]]
            products = [torch.cat([u @ pair[0], u @ pair[1]]) for u, pair in zip(units, both, strict=True)]
            along = [torch.zeros(2 * graph.node_vectors.shape[2]), *products]
        inner = [model.length(torch.cat([r, a])) for r, a in zip(radial, along, strict=True)]
        heard = [torch.nn.functional.gelu(i + e) for i, e in zip(inner, ends(model.ends, node), strict=True)]
        edges[node] = [model.token(one) for one in heard]
    atoms, kept = [[model.norms[0](one) for one in x]], []
    for block, norm in zip(model.blocks, model.norms[1:], strict=True):
        kept.append(dict(edges))
        gathered, orders = {}, {}
        for node in nodes:
            tokens = [block.norm(e + h) for e, h in zip(edges[node], ends(block.ends, node), strict=True)]
            weights = torch.cat([torch.ones(1), envelope(graph.lengths[mine[node]])])
            directions = [None, *graph.vectors[mine[node]]]
            gathered[node] = slow_attention(block.attention, torch.stack(tokens), weights, directions)
            filters = block.filter(model.basis(graph.lengths[mine[node]])) / 2.0
            orders[node] = slow_token_orders(torch.stack(tokens)[1:] * filters, graph.vectors[mine[node]], l_max)
        for node in nodes:
            x[node] = x[node] + block.to_atom(torch.cat([gathered[node][0], orders[node]]))
            x[node] = x[node] + block.of_atom(x[node])
            if block.to_slots is not None:
                edges[node] = [e + block.to_slots(g) for e, g in zip(edges[node], gathered[node], strict=True)]
                edges[node] = [e + block.of_slots(e) for e in edges[node]]
        atoms.append([norm(one) for one in x])
    scalars = torch.stack([model.readout(torch.cat([level[node] for level in atoms])) for node in nodes])
    vectors = torch.zeros(len(nodes), 3, model.vector_channels)
    assert model.vectors is not None
    for node in nodes:
        for k, edge in enumerate(mine[node]):
            weights = model.vectors.edge(torch.cat([level[node][k + 1] for level in kept])).view(-1, vectors.shape[2])
            unit = graph.vectors[edge] / graph.lengths[edge]
            vectors[node] += envelope(graph.lengths[edge : edge + 1]) / 2.0 * unit[:, None] * weights
        vectors[node] *= model.vectors.node(scalars[node])
        if model.vectors.gate is not None:
            assert graph.node_vectors is not None
            vectors[node] += (graph.node_vectors[node] @ model.vectors.own.weight) * model.vectors.gate(scalars[node])
    return scalars, vectors


@pytest.mark.parametrize(
    "options", [{}, {"angular": False}, {"components": True}, {"l_max": 1, "heads": 1}, {"l_max": 0}, {"vectors": 2}]
)
def test_the_model_equals_a_slow_loop_over_atoms_and_neighbours(options: dict[str, Any]) -> None:
    vectors = options.get("vectors", 0)
    graph = graph_of(scattered(), vectors)
    model = made(Inputs((1, 6), vectors=vectors), **{k: v for k, v in options.items() if k != "vectors"})
    found, expected = model(graph), slow_model(model, graph)
    torch.testing.assert_close(found.scalars, expected[0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.vectors, expected[1], rtol=1e-9, atol=1e-11)


def test_an_angle_reaches_the_logits_where_bond_orders_are_made_blind() -> None:
    """Two bonds of fixed length, and what the atom between them learns of their angle."""

    def middle(angle: float, angular: bool) -> Tensor:
        torch.manual_seed(1)
        model = made(angular=angular)
        model.order.weight.zero_()
        for block in model.blocks:
            block.to_atom.weight[:, 2 * 8 :].zero_()
        ends = 2.0 * torch.tensor([[1.0, 0.0, 0.0], [math.cos(angle), math.sin(angle), 0.0]])
        edges = torch.cat([ends, -ends])
        indices = torch.tensor([1, 2, 0, 0]), torch.tensor([0, 0, 1, 2])
        return model(Graph(torch.tensor([6, 1, 1]), *indices, edges, edges.norm(dim=1))).scalars[0]

    assert (middle(1.8, True) - middle(2.5, True)).abs().max() > 1e-6
    torch.testing.assert_close(middle(1.8, False), middle(2.5, False), rtol=1e-12, atol=1e-12)


def test_direct_forces_are_equivariant_unless_components_are_weighed_apart() -> None:
    graph, matrix = graph_of(scattered()), o3.rand_matrix()
    turned = graph._replace(vectors=graph.vectors @ matrix.T)

    def error(**options: Any) -> float:
        model = made(**options)
        plain, moved = model(graph).vectors, model(turned).vectors
        assert plain is not None
        assert moved is not None
        return float((moved - matrix @ plain).norm() / plain.norm())

    assert error() < 1e-12
    assert error(components=True) > 0.1
    assert made(components=True).symmetry["rotation"] == "none"
    assert made(components=True, vector_output=False).symmetry["rotation"] == "exact"


def test_a_cap_keeps_the_closest_and_a_wide_one_changes_nothing() -> None:
    graph = graph_of(scattered())
    closest = [
        edge
        for node in range(len(graph.numbers))
        for edge in sorted(neighbors_of(graph, node), key=lambda e: float(graph.lengths[e]))[:3]
    ]
    few = graph._replace(
        **{name: getattr(graph, name)[closest] for name in ("senders", "receivers", "vectors", "lengths")}
    )
    assert len(closest) < len(graph.senders)

    def scalars(graph: Graph, cap: int) -> Tensor:
        torch.manual_seed(2)
        return made(max_neighbors=cap)(graph).scalars

    torch.testing.assert_close(scalars(graph, 3), scalars(few, 0), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(scalars(graph, 50), scalars(graph, 0), rtol=1e-10, atol=1e-12)
    assert (scalars(graph, 3) - scalars(graph, 0)).abs().max() > 1e-3


def test_a_close_pair_in_a_cloud_does_not_rule_the_outputs() -> None:
    """The basis peaks at distance zero, at 32 times its first function; what follows it is normalised."""
    far = 0.5 * torch.randn(8, 3)
    close = torch.cat([far[:1], far[:1] + 1e-3 * (far[1:2] - far[:1]), far[2:]])
    model = made(Inputs((1, 6), vectors=1), radial_basis=32)
    torch.manual_seed(1)
    before = graph_of(far, vectors=1)
    after = graph_of(close)._replace(node_vectors=before.node_vectors)
    assert after.lengths.min() < 0.01
    for one, other in zip(model(before), model(after), strict=True):
        assert 1 / 3 < (other.square().mean() / one.square().mean()).sqrt() < 3


def test_gradients_of_a_loss_on_forces_are_those_of_finite_differences() -> None:
    """Forces take one derivative and training another, through every kernel."""
    positions = scattered()
    graph = graph_of(positions)
    model = Potential(made(vector_output=False), (0.0, 0.0), 1.0).double().train().requires_grad_(True)
    system, ptr = torch.zeros_like(graph.numbers), torch.tensor([0, len(positions)])
    shift = torch.zeros_like(graph.vectors)
    geometry = Geometry(graph.numbers, positions, graph.senders, graph.receivers, shift, system, ptr)

    def loss() -> Tensor:
        return model.evaluate(geometry).forces.square().sum()

    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), weights, materialize_grads=True)
    along = [torch.randn_like(weight) for weight in weights]
    expected = sum(float((g * a).sum()) for g, a in zip(gradients, along, strict=True))
    step, values = 1e-5, []
    for k in (1, -2):
        with torch.no_grad():
            for weight, a in zip(weights, along, strict=True):
                weight += k * step * a
        values.append(float(loss().detach()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3, "edge_channels": 16}, "edge_channels (16) must be a multiple of heads (3)"),
        ({"l_max": 4, "edge_channels": 4}, "heads of 4 channels are too narrow for l_max 4"),
    ],
)
def test_widths_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        registry.build("escaip", Inputs((1, 6)), 4.0, **options)
    assert message in str(caught.value)


def test_no_cap_is_an_option_by_name() -> None:
    assert registry.options("escaip", "3k", {"max_neighbors": 0})["max_neighbors"] == 0
    with pytest.raises(UserError, match="max_neighbors of escaip is -1"):
        registry.options("escaip", "3k", {"max_neighbors": -1})
