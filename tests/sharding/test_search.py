"""`search_shardings`: memory, bytes and least times by hand formulas, by plans and by runs of torch; refusals."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import sympy
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

import models
from circuits import MACHINES, CircuitError, Search, count, definitions, plan_sharding, search_shardings, shard, trace
from circuits.cost import duration
from circuits.diagram import bytes_text
from circuits.sharding.alternatives import Alternatives
from circuits.sharding.amounts import largest_of_rank, of_rank
from circuits.sharding.estimate import Estimate
from circuits.sharding.links import least_seconds
from circuits.sharding.search import Cases, meshes

H100 = MACHINES["H100 SXM"]
V, M, K, H, F, B, X = 24, 16, 4, 4, 32, 8, 5
NAMES = {"L1.weight": "f m"}
SPLIT = {"b": "data", "h": "tensor", "f": "tensor"}
MESH = {"data": 2, "tensor": 4}
LAYER = 4 * M * K * H + 2 * M * F  # the linear maps of a layer
VECTORS = 4 * M + F + M  # its norms and biases of the feed-forward network
ATTENTION = M * K * H


def language_model(depth: int = 2) -> nn.Module:
    return models.LanguageModel(V, M, K, H, F, depth, qkv_bias=False)


TOKENS = torch.zeros(B, X, dtype=torch.long)


def search(mesh: Any, model: nn.Module | None = None, tokens: Tensor = TOKENS, **options: Any) -> Search:
    return search_shardings(model or language_model(), mesh, H100, tokens, axes="b x", **{"names": NAMES, **options})


@cache
def recorded() -> Cases:
    """The passes of one model, of which most tests estimate splits."""
    cases: Any = search(MESH, only=SPLIT).cases
    return cases


def among(axes: str, machine: Any = H100, **options: Any) -> Cases:
    """The splits of some axes of this model."""
    training = replace(recorded().training, **options)
    return Cases(training, Alternatives(training.diagram, NAMES, axes.split()), machine)


@cache
def both() -> Estimate:
    """The estimate over both mesh axes."""
    return recorded().estimate(SPLIT, MESH)


def parameters_of_rank(data: int, tensor: int, depth: int = 2) -> int:
    """The elements of one rank, each parameter split along its first axis over data, rounding up."""
    shapes = [(V, M), (M,), (M,)]  # the table, and the last norm
    for _ in range(depth):
        heads = K * H // tensor
        shapes += [(heads, M)] * 3 + [(M, heads), (M,)]  # queries, keys, values, output
        shapes += [(F // tensor, M), (F // tensor,), (M, F // tensor), (M,)] + [(M,)] * 4
    return sum([-(-shape[0] // data) * (shape[1] if len(shape) > 1 else 1) for shape in shapes])


@pytest.mark.smoke
def test_memory_of_parameters_is_that_of_a_hand_formula() -> None:
    found = both()
    assert found.parameters == 4 * parameters_of_rank(2, 4)
    assert found.gradients == found.parameters
    assert found.optimizer == 2 * found.parameters
    assert found.peak == 4 * found.parameters + found.gathered + found.working
    assert found.parameters == plan_sharding(language_model(), MESH, SPLIT, TOKENS, axes="b x", names=NAMES).bytes


def test_flops_are_divided_by_the_ranks_that_share_them() -> None:
    tokens = B * X
    linear = 6 * tokens * (2 * LAYER / 4 + V * M)  # the head is on every rank of tensor
    scores = 2 * 3 * 4 * B * H * X * X * K / 4  # two products in two layers, forward once and backward twice
    assert both().compute == pytest.approx((linear + scores) / 2 / H100.flops[torch.float32].value)


@pytest.mark.slow
def test_flops_on_one_rank_are_those_of_count() -> None:
    found = recorded().estimate({"b": "data"}, {"data": 1})
    counted = count(recorded().training.diagram, backward=True)
    assert found.compute * H100.flops[torch.float32].value == pytest.approx(counted.total.flops)
    assert found.saved == counted.total.saved


@pytest.mark.slow
def test_bytes_by_collective_are_those_that_the_plan_says() -> None:
    plan = plan_sharding(language_model(), MESH, SPLIT, TOKENS, axes="b x", names=NAMES)
    assert both().sent("all-reduce", "tensor") == sum([int(each.bytes) for each in plan.moves])
    assert both().sent("all-reduce", "tensor") == 8 * (B // 2) * X * M * 4


class Sent(TorchDispatchMode):
    """Adds up what one rank puts into each kind of collective, and how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = KINDS.get(func._schema.name.partition("::")[2])
        if name is not None:
            tensors = [each for each in _pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
            given = tensors[-1]
            self.found[name] += 1
            self.bytes[name] += given.numel() * given.element_size()
        return func(*args, **(kwargs or {}))


KINDS = {
    "all_reduce": "all-reduce", "_allgather_base_": "all-gather", "_reduce_scatter_base_": "reduce-scatter",
    "all_gather_into_tensor": "all-gather", "reduce_scatter_tensor": "reduce-scatter",
}  # fmt: skip


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("between", [{}, {"x": "tensor"}], ids=["whole between modules", "split between modules"])
def test_what_a_rank_really_sends_is_what_the_estimate_says(between: dict[str, str], process_group: None) -> None:
    model, tokens = language_model(), torch.zeros(B, 8, dtype=torch.long)
    mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("data", "tensor"))
    found = search(MESH, tokens=tokens, only=SPLIT, between=between).best
    shard(model, mesh, SPLIT, tokens, axes="b x", names=NAMES, between=between)
    with Sent() as sent:
        model(tokens[: B // 2]).sum().backward()
    assert set(sent.found) == {each.collective for each in found.traffic}
    for kind in sent.found:
        assert sent.found[kind] == sum([each.count for each in found.traffic if each.collective == kind]), kind
        assert sent.bytes[kind] == sum([each.bytes for each in found.traffic if each.collective == kind]), kind


@pytest.mark.slow
@pytest.mark.parametrize("between", [{}, {"x": "tensor"}], ids=["whole between modules", "split between modules"])
def test_what_a_rank_really_saves_is_near_to_the_estimate(between: dict[str, str], process_group: None) -> None:
    model, tokens = models.LanguageModel(V, M, K, 8, F, 3), torch.zeros(B, 16, dtype=torch.long)
    split = {"h": "tensor", "f": "tensor", "v": "tensor"}
    found = search({"tensor": 8}, model, tokens, only=split, between=between).best
    mesh = init_device_mesh("cpu", (8,), mesh_dim_names=("tensor",))
    shard(model, mesh, split, tokens, axes="b x", names=NAMES, between=between)
    parameters = {part(each).untyped_storage().data_ptr() for each in model.parameters()}
    saved: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        memory = part(tensor).untyped_storage()
        if memory.data_ptr() not in parameters:
            saved[memory.data_ptr()] = memory
        return tensor

    with definitions(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _ = model(tokens)
    assert 0.9 < found.saved / sum([each.nbytes() for each in saved.values()]) < 1.1


def part(tensor: Any) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@pytest.mark.slow
def test_splits_are_tried_with_axes_between_modules_and_without() -> None:
    model = models.LanguageModel(V, M, K, H, F, 1)
    tokens = torch.zeros(B, 8, dtype=torch.long)
    found = search({"data": 2, "tensor": 4}, model, tokens, among="b h f", between={"x": "tensor"}, top=20)
    tried = {(*each.split.items(), *each.between.items()) for each in found.found}
    split = tuple({"b": "data", "h": "tensor"}.items())
    assert {split, (*split, ("x", "tensor"))} <= tried
    assert not any("between" in text and "b over tensor" in text for text in found.refused)
    whole, parts = (
        next(e for e in found.found if e.split == dict(split) and bool(e.between) is kind) for kind in (False, True)
    )
    assert parts.saved < whole.saved
    assert "x over tensor between modules" in str(found)


@pytest.mark.slow
def test_memory_is_near_to_what_torch_tracks() -> None:
    """torch's tracker frees what a kernel frees; here attention is its definition, and its largest tensors small."""
    model = models.LanguageModel(64, 32, 8, 4, 128, 1)
    tokens = torch.zeros(4, 8, dtype=torch.long)
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        model(tokens).square().mean().backward()
    peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
    real = sum([size for kind, size in peak.items() if str(kind).endswith(("ACT", "TEMP"))])
    found = search_shardings(model, {"data": 1}, H100, tokens, axes="b x", only={"b": "data"}).best
    assert 0.8 < found.working / real < 1.25


DATA, TENSOR = (sympy.Symbol(name, integer=True, positive=True) for name in MESH)


@cache
def free() -> Any:
    return recorded().estimate(SPLIT, {"data": DATA, "tensor": TENSOR})


@pytest.mark.every(5)
@pytest.mark.parametrize(("data", "tensor"), [(1, 1), (2, 4), (8, 2), (4, 4), (8, 1)])
def test_formulas_in_the_sizes_of_the_mesh_are_right_at_all_sizes(data: int, tensor: int) -> None:
    numbers = {DATA: data, TENSOR: tensor}
    exact = recorded().estimate(SPLIT, {"data": data, "tensor": tensor})
    for name in ("parameters", "gradients", "optimizer", "saved", "gathered", "working", "peak"):
        assert float(getattr(free(), name).subs(numbers)) == pytest.approx(getattr(exact, name), abs=4), name
    for name in ("compute", "waits", "overlapped", "seconds"):
        assert float(getattr(free(), name).subs(numbers)) == pytest.approx(float(getattr(exact, name))), name
    for one, other in zip(free().traffic, exact.traffic, strict=True):
        assert float(sympy.sympify(one.bytes).subs(numbers)) == pytest.approx(other.bytes)


def test_free_sizes_are_given_later() -> None:
    found = recorded().search([(SPLIT, {"data": DATA, "tensor": 4}, {})], 5)
    assert found.best.fits is None
    assert found.at(data=2).best == both()
    with pytest.raises(CircuitError, match="at: no mesh axis tensor is free; free are data"):
        found.at(tensor=2)
    with pytest.raises(CircuitError, match="data has to be a positive number, not 0"):
        found.at(data=0)


def test_a_shell_shows_the_first_estimate_in_one_line() -> None:
    found = recorded().search([(SPLIT, {"data": DATA, "tensor": 4}, {})], 5)
    plan = "tensor 4, b over data, h f over tensor: peak"
    assert repr(found) == f"Search(1 estimate, the first: data × {plan} f(data) B, at least f(data))"
    least = f"{bytes_text(both().peak)}, at least {duration(both().seconds)}"
    assert repr(found.at(data=2)) == f"Search(1 estimate, the first: data 2 × {plan} {least})"
    assert repr(both()) == f"Estimate(data 2 × {plan} {least})"
    small = replace(H100, memory=replace(H100.memory, value=1))
    assert repr(replace(both(), machine=small)) == f"Estimate(data 2 × {plan} {least} (does not fit))"


@pytest.mark.slow
def test_a_module_that_counts_twice_is_two_modules() -> None:
    one = search(MESH, language_model(1), only=SPLIT, repeat={"layers.0": 2}).best
    two = both()
    for name in ("parameters", "gradients", "optimizer", "saved", "gathered"):
        assert getattr(one, name) == getattr(two, name), name
    for name in ("compute", "waits", "overlapped"):
        assert getattr(one, name) == pytest.approx(getattr(two, name)), name
    assert [(each.count, each.bytes) for each in one.traffic] == [(each.count, each.bytes) for each in two.traffic]
    assert two.working <= one.working < 1.1 * two.working


@pytest.mark.slow
def test_inputs_of_one_rank_are_a_part_of_the_whole() -> None:
    part = search(MESH, tokens=TOKENS[: B // 2], only=SPLIT, per_rank="b").best
    assert part == replace(both(), inputs=2)


@pytest.mark.slow
def test_parameters_in_another_dtype_than_they_are_computed_with() -> None:
    model = language_model().to(torch.bfloat16)
    found = search(MESH, model, only=SPLIT, stored=torch.float32).best
    assert found.parameters == both().parameters
    assert found.sent("all-gather", "data") == both().sent("all-gather", "data") / 2
    assert found.sent("reduce-scatter", "data") == both().sent("reduce-scatter", "data")


@pytest.mark.slow
def test_frozen_parameters_have_no_gradients() -> None:
    model = language_model()
    model.layers[0].requires_grad_(False)  # type: ignore[index]
    found = search(MESH, model, only=SPLIT).best
    assert found.parameters == both().parameters
    assert found.gradients == 4 * parameters_of_rank(2, 4, depth=1)


@pytest.mark.slow
def test_a_kernel_keeps_no_scores() -> None:
    tokens = torch.zeros(1, 64, dtype=torch.long)

    def found(**options: Any) -> Estimate:
        model = language_model(1)
        return search({"data": 1}, model, tokens, only={"b": "data"}, **options).best

    scores = H * 64 * 64 * 4
    plain, kernel = found(), found(recompute="y x", kernels={"attention": 0.5})
    assert plain.saved - kernel.saved >= scores
    assert kernel.working < plain.working - 2 * scores
    product = 2 * H * 64 * 64 * K  # two forward, of which one is recomputed, and four backward
    assert plain.compute - kernel.compute == pytest.approx((6 - 7 / 2) * product / H100.flops[torch.float32].value)


@pytest.mark.slow
def test_which_axes_can_be_split_together() -> None:
    model = models.LanguageModel(V, M, K, H, F, 1, groups=2)
    found = search({"tensor": 2}, model, among="b h g f m v", top=4)
    splits = {frozenset(each.split) for each in found.found}
    kinds = [frozenset("".join(part)) for size in (1, 2, 3) for part in itertools.combinations(["hg", "f", "v"], size)]
    assert splits == {frozenset("b"), *kinds}
    assert list(found.unsplit) == ["m"]
    assert "norm" in found.unsplit["m"]
    assert "4 more" in str(found)


def test_a_number_of_devices_is_every_mesh_with_tensor_in_a_node() -> None:
    every = [*meshes(64, H100)]
    assert every == [{"data": 64 // tensor, "tensor": tensor} for tensor in (1, 2, 4, 8)]
    cases = among("b h f")
    tried = [*cases.tried(every, None, "data")]
    splits = {(*split.items(), mesh["tensor"]) for split, mesh, _ in tried}
    assert ((("b", "data"), 1)) in splits
    assert {axis for split, _, _ in tried for axis, name in split.items() if name == "data"} == {"b"}
    found = cases.search(tried, 5)
    assert [(each.split, each.mesh) for each in found.found] == [  # a batch of 8 has 8 parts, and 4 heads have not
        ({"b": "data", "f": "tensor"}, {"data": 8, "tensor": 8})
    ]
    assert any("b has size 8" in why for why in found.refused.values())
    assert any("h has size 4" in why for why in found.refused.values())


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 256, 16384])
def test_from_2_to_16384_devices(devices: int) -> None:
    cases = among("b h f", per_rank=frozenset("b"))
    found = cases.search(cases.tried(meshes(devices, H100), None, "data"), 5)
    assert found.best.mesh["data"] * found.best.mesh["tensor"] == devices
    assert [each.order for each in found.found] == sorted([each.order for each in found.found])
    assert found.best.inputs == found.best.mesh["data"]


@pytest.mark.slow
def test_what_fits_comes_first() -> None:
    whole = among("b h f").search([*among("b h f").tried([MESH], None, "")], 5)
    small = replace(H100, memory=replace(H100.memory, value=whole.found[0].peak - 1))
    cases = among("b h f", small)
    other = cases.search(cases.tried([MESH], None, ""), 5)
    fitting = [bool(each.fits) for each in other.found]
    assert fitting == sorted(fitting, reverse=True)
    assert fitting.count(True) == len([each for each in whole.found if each.peak <= small.memory.value])
    assert 0 < fitting.count(True) < len(fitting)


# Links ----------------------------------------------------------------------------------------------------------------


def ring_seconds(bytes: int, ranks: list[int], rounds: int) -> float:
    """The time of a ring on which every rank sends a part to the next in each of some rounds, link by link."""
    links = {(one, other) for one, other in zip(ranks, [*ranks[1:], ranks[0]], strict=True)}
    rate = {True: 450e9, False: 50e9}
    slowest = max([bytes / len(ranks) / rate[one // 8 == other // 8] for one, other in links])
    return rounds * slowest


@pytest.mark.parametrize(("mesh", "over"), [
    ({"data": 8}, "data"), ({"data": 32}, "data"), ({"data": 4, "tensor": 8}, "data"),
    ({"data": 4, "tensor": 8}, "tensor"), ({"data": 16, "tensor": 2}, "data"), ({"data": 2, "tensor": 4}, "tensor"),
])  # fmt: skip
def test_a_ring_takes_no_less_time(mesh: dict[str, int], over: str) -> None:
    places = {name: number for number, name in enumerate(mesh)}
    every = itertools.product(*[range(size) for size in mesh.values()])
    ranks = [number for number, place in enumerate(every) if all(
        at == 0 for name, at in zip(mesh, place, strict=True) if name != over
    )]  # fmt: skip
    assert len(ranks) == list(mesh.values())[places[over]]
    n, size = len(ranks), 1 << 20
    inside = all(rank // 8 == ranks[0] // 8 for rank in ranks)
    for collective, rounds in (("all-gather", n - 1), ("reduce-scatter", n - 1), ("all-reduce", 2 * (n - 1))):
        sent = size / n if collective == "all-gather" else size
        bound = least_seconds(collective, sent, [over], mesh, H100)
        ring = ring_seconds(size, ranks, rounds)
        assert bound == pytest.approx(ring) if inside else 0 < bound <= ring * (1 + 1e-9)


def test_ranks_of_a_node_share_its_network() -> None:
    """One group of a rank in each node has the network of one device; a group of whole nodes that of eight."""
    alone = least_seconds("all-gather", 1e9, ["data"], {"data": 4, "tensor": 8}, H100)
    assert alone == pytest.approx(3 * 1e9 / 50e9)
    whole = least_seconds("all-gather", 1e9, ["data"], {"data": 32}, H100)
    assert whole == pytest.approx(max(24 * 1e9 / (8 * 50e9), 31e9 / 500e9))
    assert least_seconds("all-reduce", 1e9, ["data"], {"data": 1}, H100) == 0


@pytest.mark.slow
def test_a_sequence_round_the_ranks() -> None:
    """Attention sends what its plan says, and each rank saves a part of all that has positions."""
    tokens, mesh, split = torch.zeros(B, 16, dtype=torch.long), {"data": 2, "sequence": 4}, {"x": "sequence"}
    found = search(mesh, tokens=tokens, only={"b": "data", **split}).best
    moves = plan_sharding(language_model(), mesh, {"b": "data", **split}, tokens, axes="b x").moves
    for collective in ("ring", "all-to-all"):
        (part,) = [each for each in found.traffic if each.collective == collective]
        assert part.bytes == sum([each.bytes for each in moves if each.collective == collective]) > 0
        assert part.seconds == pytest.approx(part.bytes / 450e9)
    far = search({"sequence": 4, "tensor": 8}, tokens=tokens, only=split).best
    assert [each.seconds for each in far.traffic if each.collective == "ring"] == [
        pytest.approx(far.sent("ring", "sequence") / 50e9)
    ]
    whole = search({"data": 2, "sequence": 1}, tokens=tokens, only={"b": "data"}).best
    assert whole.saved / 4 <= found.saved <= whole.saved / 4 * 1.05
    with pytest.raises(CircuitError, match="x over sequence: how often blocks are sent round the ranks depends"):
        search({"sequence": None}, tokens=tokens, only=split).best  # noqa: B018


def test_amounts_are_compared_for_all_meshes() -> None:
    a, b = sympy.symbols("a b", integer=True, positive=True)
    one = {frozenset("ab"): 8, frozenset("a"): 2}
    other = {frozenset("a"): 10}
    assert largest_of_rank([one, other], {"a": a, "b": b}) == 10 / a
    third = {frozenset("b"): 100}
    assert largest_of_rank([one, other, third], {"a": a, "b": b}) == sympy.Max(10 / a, 100 / b)
    assert largest_of_rank([one, other, third], {"a": 2, "b": 50}) == 5
    assert of_rank({frozenset("a"): 7}, {"a": 2}) == 4


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mesh", "message"), [
    (1, "a number of devices from 2 to 16,384, not 1"),
    (16385, "a number of devices from 2 to 16,384, not 16385"),
    ({"data": 0}, "mesh axis data: its size has to be a positive number, or None, not 0"),
    ({}, "the mesh has to be sizes by name"),
])  # fmt: skip
def test_what_is_no_mesh(mesh: Any, message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        search_shardings(recorded().training.diagram, mesh, H100)


@pytest.mark.parametrize(("axes", "options", "message"), [
    ("b q", {}, "among: no tensor of LanguageModel has an axis q"),
    ("b", {"repeat": {"layers.7": 2}}, "repeat: nothing that runs in LanguageModel is called layers.7"),
    ("b", {"kernels": {"flash": 0.5}}, "kernels: nothing that runs in LanguageModel is called flash"),
])  # fmt: skip
def test_unknown_names(axes: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        among(axes, **options)


def test_an_unknown_machine_is_refused_by_name() -> None:
    with pytest.raises(CircuitError, match="a Machine or the name of one is expected, not 'H1000'; there are H100 SXM"):
        search_shardings(recorded().training.diagram, MESH, "H1000")


@pytest.mark.slow
def test_free_axes_of_the_model_are_refused_by_name() -> None:
    diagram = trace(models.MultiHeadAttention(16, 4, 4))
    with pytest.raises(CircuitError, match=r"x, y are free: give sizes, sizes=\{'x': ..., 'y': ...\}"):
        search_shardings(diagram, {"tensor": 2}, H100)


def test_a_machine_without_a_network_is_one_node() -> None:
    cases = among("b", replace(H100, network=None))
    assert cases.estimate({"b": "data"}, {"data": 8}).seconds > 0
    cases = among("b", replace(H100, network=None), per_rank=frozenset("b"))
    found = cases.search([({"b": "data"}, {"data": 16}, {})], 5)
    assert not found.found
    assert "no rate between nodes" in next(iter(found.refused.values()))
    with pytest.raises(CircuitError, match="no rate between nodes"):
        found.best  # noqa: B018


@pytest.mark.slow
def test_a_mesh_axis_for_the_part_of_a_rank_splits_nothing_else() -> None:
    with pytest.raises(CircuitError, match="data splits h, whose size is that of the whole, and axes of `per_rank`"):
        among("b h", per_rank=frozenset("b")).estimate({"b": "data", "h": "data"}, {"data": 2})
