"""A module with a signature of its own is in all else what it was: for tools that look at types, and for its copies."""

import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import fuse_modules, quantize_dynamic
from torch.func import functional_call, stack_module_state
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import remove_parametrizations

from circuits import CircuitError, ShapeError, circuit, find_circuit, trace
from circuits.checking.instances import _signed_forward
from models.transformer import Encoder


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Quantization logs a warning about observers."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def signed_linear() -> nn.Linear:
    return circuit("n 3 -> n 4")(nn.Linear(3, 4))


def signature_of(module: nn.Module) -> str:
    found = find_circuit(module)
    return f"{found.signature}" if found is not None else ""


def assert_checked(module: nn.Module, signature: str = "n 3 -> n 4") -> None:
    assert signature_of(module) == signature
    with pytest.raises(ShapeError):
        module(torch.ones(2, 3, 3, 3, 3))


class TestTypes:
    """Tools that look for `type(module) is nn.Linear` find signed modules."""

    def test_the_type_is_the_same_object(self) -> None:
        module = nn.Linear(3, 4)
        assert type(circuit("n 3 -> n 4")(module)) is nn.Linear
        assert_checked(module)

    def test_initialization_by_type(self) -> None:
        def ones(module: nn.Module) -> None:
            if type(module) is nn.Linear:
                nn.init.ones_(module.weight)

        net: Any = nn.Sequential(signed_linear(), nn.Linear(4, 2)).apply(ones)
        assert all(torch.equal(each, torch.ones_like(each)) for each in (net[0].weight, net[1].weight))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_quantize_dynamic(self) -> None:
        net = nn.Sequential(signed_linear(), nn.Linear(4, 2))
        small = quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
        assert ["quantized" in type(each).__module__ for each in small] == [True, True]
        assert [signature_of(each) for each in small] == ["", ""]
        assert_checked(net[0])

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_fuse_modules(self) -> None:
        """The fused convolution is a copy of the signed one with other weights: it computes with its own."""
        signed = circuit("b 3 h w -> b 4 h w")(nn.Conv2d(3, 4, 1))
        norm = nn.BatchNorm2d(4)
        norm.running_mean = torch.randn(4)
        net, image = nn.Sequential(signed, norm).eval(), torch.randn(2, 3, 5, 5)
        fused = fuse_modules(net, [["0", "1"]])
        assert type(fused[1]) is nn.Identity
        torch.testing.assert_close(fused(image), net(image))
        assert_checked(fused[0], "b 3 h w -> b 4 h w")

    def test_from_torch(self) -> None:
        theirs = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
        layer: Any
        for layer in theirs.layers:
            circuit("b y 8 -> b y 8")(layer)
            circuit("b y 8 -> b y 16")(layer.linear1)
        x = torch.randn(1, 5, 8)
        torch.testing.assert_close(Encoder.from_torch(theirs)(x), theirs(x))

    def test_a_lazy_module_keeps_its_signature_when_its_type_changes(self) -> None:
        module = circuit("n 3 -> n 4")(nn.LazyLinear(4))
        module(torch.ones(2, 3))
        assert type(module) is nn.Linear
        assert_checked(module)


class TestNewInstances:
    """Modules that are made by calling the class of a signed module have no signature."""

    @pytest.fixture
    def net(self) -> nn.Sequential:
        return circuit("n 3 -> n 4")(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)))

    @pytest.mark.parametrize(
        "make",
        [lambda net: net[:-1], lambda net: net[0:1], lambda net: net + nn.Sequential(), lambda net: net * 1],
        ids=["without the head", "the first", "a sum", "a product"],
    )
    def test_a_part_of_a_sequential(self, net: nn.Sequential, make: Callable[[nn.Sequential], nn.Module]) -> None:
        assert signature_of(make(net)) == ""
        assert make(net)(torch.ones(2, 3)).ndim == 2
        assert_checked(net)

    def test_a_slice_that_is_signed_leaves_the_whole_as_it_was(self, net: nn.Sequential) -> None:
        backbone = circuit("n 3 -> n 5")(net[:-1])
        assert (signature_of(backbone), signature_of(net)) == ("n 3 -> n 5", "n 3 -> n 4")
        assert backbone(torch.ones(2, 3)).shape == (2, 5)

    def test_a_sequential_changed_in_place_keeps_its_signature(self, net: nn.Sequential) -> None:
        net.append(nn.Linear(4, 2))
        with pytest.raises(ShapeError, match="2 here, but the signature says 4"):
            net(torch.ones(2, 3))


def by_deepcopy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module)


def by_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def by_replica(module: nn.Module) -> nn.Module:
    made: Any = module
    replica = made._replicate_for_data_parallel()
    replica._parameters = {name: each.detach().clone() for name, each in module.named_parameters()}
    return replica


def by_copy(module: nn.Module) -> nn.Module:
    made = copy.copy(module)
    made.__dict__["_parameters"] = {name: each.detach().clone() for name, each in module.named_parameters()}
    return made


COPIES = [by_deepcopy, by_pickle, by_replica, by_copy]


@pytest.mark.parametrize("again", COPIES)
class TestCopies:
    """The signature of a copy checks the copy, which computes with its own parameters and attributes."""

    def test_each_computes_with_its_own_parameters(self, again: Callable[[nn.Module], nn.Module]) -> None:
        module, x = signed_linear(), torch.ones(2, 3)
        before, made = module(x), again(module)
        assert type(made) is nn.Linear
        with torch.no_grad():
            for each in made._parameters.values():
                assert each is not None
                each.zero_()
        assert made(x).count_nonzero() == 0
        assert torch.equal(module(x), before)
        assert_checked(made)
        assert_checked(module)

    def test_each_has_its_own_mode(self, again: Callable[[nn.Module], nn.Module]) -> None:
        module = circuit("n -> n")(nn.Dropout(1.0))
        made = again(module).eval()
        assert made(torch.ones(3)).sum() == 3
        assert module(torch.ones(3)).sum() == 0

    def test_a_copy_of_a_copy(self, again: Callable[[nn.Module], nn.Module]) -> None:
        assert_checked(again(again(signed_linear())))

    def test_another_signature_for_the_copy_leaves_the_original(self, again: Callable[[nn.Module], nn.Module]) -> None:
        module = signed_linear()
        made = circuit("3 -> 4")(again(module))
        assert (signature_of(made), signature_of(module)) == ("3 -> 4", "n 3 -> n 4")

    def test_a_removed_signature_is_not_copied(self, again: Callable[[nn.Module], nn.Module]) -> None:
        module = signed_linear()
        del module.forward
        made = again(module)
        assert (signature_of(module), signature_of(made)) == ("", "")
        assert made(torch.ones(3)).shape == (4,)


def test_a_forward_that_replaced_the_signed_one_stays() -> None:
    module: Any = signed_linear()
    module.forward = torch.relu
    assert copy.deepcopy(module)(torch.tensor(-1.0)) == 0
    with pytest.raises(CircuitError, match="was replaced on the instance"):
        circuit("n -> n")(module)


@pytest.mark.parametrize("again", [by_deepcopy, by_pickle], ids=["deepcopy", "pickle"])
def test_copies_of_a_graph_module(again: Callable[[nn.Module], nn.Module]) -> None:
    """A class with a `__deepcopy__` and a `__reduce__` of its own."""
    graph = circuit("n 3 -> n 4")(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU())))
    made = again(graph)
    torch.testing.assert_close(made(torch.ones(2, 3)), graph(torch.ones(2, 3)))
    assert_checked(made)


class TestParametrizations:
    def test_a_copy_computes_with_its_own_parameters(self) -> None:
        module: Any = parametrizations.weight_norm(signed_linear())
        x = torch.ones(2, 3)
        before, made = module(x), copy.deepcopy(module)
        with torch.no_grad():
            made.parametrizations.weight.original0.zero_()
        torch.testing.assert_close(made(x), made.bias.expand(2, 4))
        torch.testing.assert_close(module(x), before)
        assert_checked(made)

    def test_removing_them_leaves_the_signature(self) -> None:
        module = remove_parametrizations(parametrizations.weight_norm(signed_linear()), "weight")
        assert type(module) is nn.Linear
        assert_checked(module)

    def test_pruned_weights_are_used(self) -> None:
        module = signed_linear()
        prune.l1_unstructured(module, "weight", amount=12)
        torch.testing.assert_close(module(torch.ones(2, 3)), module.bias.expand(2, 4))
        assert_checked(module)


def test_functional_call_uses_the_tensors_that_are_passed() -> None:
    several = [signed_linear() for _ in range(3)]
    parameters, buffers = stack_module_state(several)
    base = copy.deepcopy(several[0]).to("meta")

    def call(own: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(base, (own, buffers), (x,))

    x = torch.ones(2, 3)
    found = torch.vmap(call, (0, 0, None))(parameters, buffers, x)
    torch.testing.assert_close(found, torch.stack([each(x) for each in several]))
    with pytest.raises(ShapeError):
        functional_call(several[0], {}, (torch.ones(2, 5),))


def test_torch_jit_script_is_refused_and_scripts_other_modules_afterwards() -> None:
    """A compilation that fails halfway would leave TorchScript's type of nn.Linear broken for the whole process."""
    with pytest.raises(CircuitError, match=r"torch\.jit\.script cannot compile Linear\.forward: n 3 -> n 4"):
        torch.jit.script(nn.Sequential(signed_linear(), nn.ReLU()))
    module = signed_linear()
    del module.forward
    for each in (nn.Linear(3, 4), module):
        assert torch.jit.script(each)(torch.ones(2, 3)).shape == (2, 4)


def test_a_traced_diagram_runs_on_the_module_itself() -> None:
    module, x = signed_linear(), torch.randn(2, 3)
    diagram = trace(module, x)
    with torch.no_grad():
        module.weight.zero_()
    torch.testing.assert_close(diagram(x), module(x))
    assert_checked(module)


def test_signatures_of_many_texts_take_bounded_memory() -> None:
    limit = _signed_forward.cache_info().maxsize
    assert limit is not None
    for number in range(limit + 10):
        circuit(f"{number} -> {number}")(nn.Identity())
    assert _signed_forward.cache_info().currsize == limit
