# To pyright a submodule or a buffer is a Tensor or a Module.
# pyright: reportIncompatibleMethodOverride=false
"""Programs of plain torch calls: a diagram computes the same results bit for bit, and gradients that are close."""

import contextlib
from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from circuits import einsum, trace


class Program(nn.Module):
    """A module that calls a function with a layer and the inputs."""

    def __init__(self, function: Callable[..., Any], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.layer, *args, **kwargs)


PROGRAMS: dict[str, Callable[..., Any]] = {}


def program(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a program to `PROGRAMS`: a function of a linear layer (8 to 8 features) and a tensor of shape (4, 8)."""
    PROGRAMS[function.__name__] = function
    return function


@program
def skips_and_concatenations(layer: nn.Module, x: Tensor) -> Any:
    y = layer(x)
    return torch.cat([x, y, x], 0), torch.cat((y, x + y), dim=-1), torch.stack([x, y]), torch.hstack([x, y])


@program
def in_place(layer: nn.Module, x: Tensor) -> Any:
    y = x.clone()
    y += 1
    y[0] = 3.0
    y[:, 1].mul_(2)
    flat = y.view(-1)
    flat.add_(1)
    y.relu_()
    return y, flat


@program
def in_place_changes_of_views(layer: nn.Module, x: Tensor) -> Any:
    y = x.clone()
    row, halves, columns = y[0], y.view(2, 16), y.t()
    row.add_(1)
    halves[0].mul_(3)
    columns[0] = 2.0
    left = y.narrow(1, 0, 4)
    left.sub_(1)
    y.transpose(0, 1).mul_(2)
    y.unsqueeze(0).add_(x)
    return y, row, halves, columns, left


@program
def two_names_for_one_tensor(layer: nn.Module, x: Tensor) -> Any:
    y = x + 0
    z = y
    z += 1
    return y, z, x


@program
def assignments_by_index(layer: nn.Module, x: Tensor) -> Any:
    y = x.clone()
    y[1:, ::2] = x[1:, ::2] * 3
    y[:, [1, 2]] = 0
    y[x > 0.5] = 1.0
    y[torch.tensor([0, 2]), torch.tensor([1, 3])] += 2
    y.masked_fill_(x < -1, 9)
    y.scatter_(1, torch.zeros(4, 1, dtype=torch.long), 7.0)
    y.index_fill_(0, torch.tensor([1]), 3.0)
    return y, y[..., None, -1], y[None, :, 1:3]


@program
def split_chunk_index_mask(layer: nn.Module, x: Tensor) -> Any:
    a, b = x.chunk(2, -1)
    c, d = torch.split(x, [3, 5], dim=-1)
    chosen = torch.tensor([0, 2])
    late = torch.arange(x.shape[0]) > 1
    masked = x.masked_fill(late[:, None], 0.0), torch.where(late[:, None], x, -x)
    return a * b, c, d, x[chosen], x[:, chosen], masked, x[..., None, :3].squeeze(1), x[[0, 1]], x.tensor_split(3, 1)


@program
def iterating_over_tensors(layer: nn.Module, x: Tensor) -> Any:
    total = torch.zeros(8)
    for row in x:
        total = total + layer(row)
    first, *others = x
    return total, first + sum(others), [row * 2 for row in x], tuple(x[place] for place in range(len(x)))


@program
def a_generator_of_layers(layer: nn.Module, x: Tensor) -> Any:
    return sum(layer(x * scale) for scale in range(3))


@program
def results_with_several_parts(layer: nn.Module, x: Tensor) -> Any:
    values, places = x.topk(3)
    largest, ordered = x.max(1), x.sort(-1)
    return ordered, values, places, largest.values, largest.indices, ordered.values, x.gather(1, places)


@program
def reshaping(layer: nn.Module, x: Tensor) -> Any:
    broadcast = torch.broadcast_tensors(x, torch.ones(3, 4, 8))
    return broadcast, torch.atleast_3d(x), x.expand(2, 4, 8), x.unfold(1, 4, 2), torch.einsum("ij,kj->ik", x, x)


@program
def complex_numbers(layer: nn.Module, x: Tensor) -> Any:
    return torch.fft.rfft(x).abs(), torch.view_as_real(torch.complex(x, x)), torch.fft.ifft(torch.fft.fft(x)).real


@program
def linear_algebra(layer: nn.Module, x: Tensor) -> Any:
    gram = x @ x.mT + 9 * torch.eye(4)
    return torch.linalg.solve(gram, x), torch.linalg.norm(x), torch.linalg.cholesky(gram), torch.trace(gram)


@program
def random_numbers(layer: nn.Module, x: Tensor) -> Any:
    noise = torch.randn_like(x) + torch.rand(8) * F.dropout(x, 0.3) + torch.bernoulli(torch.full_like(x, 0.5))
    return x + noise + torch.randperm(8) + torch.empty(8).normal_()


@program
def constants_and_masks(layer: nn.Module, x: Tensor) -> Any:
    late = torch.full((x.shape[0], x.shape[0]), float("-inf")).triu(1)
    return (x @ x.mT + late).softmax(-1) @ x + torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8])


@program
def without_gradient(layer: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        without = layer(x)
        with torch.enable_grad():
            with_gradient = layer(x)
    return without * x + layer(x.detach()) + with_gradient, (x * 2).detach()


@program
def gradient_switched_off_and_on(layer: nn.Module, x: Tensor) -> Any:
    torch.set_grad_enabled(False)
    without = layer(x)
    torch.set_grad_enabled(True)
    return without * x


@program
def a_gradient_inside(layer: nn.Module, x: Tensor) -> Any:
    point = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(layer(point).square().sum(), point, create_graph=True)
    return slope * 2


@program
def a_gradient_enabled_by_attribute(layer: nn.Module, x: Tensor) -> Any:
    point = x.detach()
    point.requires_grad = True
    return torch.autograd.grad(layer(point).square().sum(), point, create_graph=True)


@program
def functional_gradients(layer: nn.Module, x: Tensor) -> Any:
    return (
        torch.func.grad(lambda a: layer(a).square().sum())(x),
        torch.func.jacrev(lambda a: layer(a).tanh())(x[0]),
        torch.func.jacfwd(lambda a: layer(a).tanh())(x[0]),
        torch.func.hessian(lambda a: layer(a).pow(3).sum())(x[0]),
    )


@program
def a_functional_call_with_other_parameters(layer: nn.Module, x: Tensor) -> Any:
    doubled = {name: value * 2 for name, value in layer.named_parameters()}
    return torch.func.functional_call(layer, doubled, (x,))


@program
def a_gradient_for_each_example(layer: nn.Module, x: Tensor) -> Any:
    def loss(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (example,)).square().sum()

    return torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(dict(layer.named_parameters()), x)


@program
def mapped(layer: nn.Module, x: Tensor) -> Any:
    inner = torch.vmap(lambda a: layer(a).softmax(-1), in_dims=0, out_dims=1)
    twice = torch.vmap(torch.vmap(lambda a: a.cos() * 2))
    return inner(x), twice(x), torch.vmap(lambda a: layer(a).relu(), chunk_size=3)(x)


@program
def mapped_over_nested_values(layer: nn.Module, x: Tensor) -> Any:
    both = torch.vmap(lambda pair: {"product": pair["a"] * pair["b"]}, in_dims=({"a": 0, "b": None},))
    return both({"a": x, "b": x[0]})


@program
def mapped_random_numbers(layer: nn.Module, x: Tensor) -> Any:
    return torch.vmap(lambda a: a + torch.randn(8), randomness="different")(x)


class Own(torch.autograd.Function):
    """Returns 2a and b + 1; the custom gradients are not the derivatives of these formulas."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Any:
        ctx.save_for_backward(a)
        return a * 2, b + 1

    @staticmethod
    def backward(ctx: Any, da: Tensor, db: Tensor) -> Any:
        return da * 7 * ctx.saved_tensors[0], db * 3


class OwnMapped(torch.autograd.Function):
    """A sine with the custom gradient 5; supports vmap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor) -> Tensor:
        return a.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, da: Tensor) -> Tensor:
        return da * 5


@program
def autograd_functions(layer: nn.Module, x: Tensor) -> Any:
    return Own.apply(x, layer(x)), OwnMapped.apply(x), torch.vmap(OwnMapped.apply)(x)


@program
def checkpoints(layer: nn.Module, x: Tensor) -> Any:
    inside = checkpoint(lambda a: layer(a).relu() * a, x, use_reentrant=False)
    return inside + checkpoint(layer, x, use_reentrant=True)


@program
def half_precision(layer: nn.Module, x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        with torch.autocast("cpu", enabled=False):
            z = layer(y.float())
    return y, z, F.softmax(x, -1, dtype=torch.float64)


@program
def einops_functions(layer: nn.Module, x: Tensor) -> Any:
    return (
        einops.rearrange(x, "b (h k) -> b h k", h=2),
        einops.reduce(x, "b k -> b", "mean"),
        einops.repeat(x, "b k -> b r k", r=2),
        einops.einsum(x, x, "a k, b k -> a b"),
        einops.pack([x, x], "b *")[0],
    )


@program
def inputs_parameters_and_constants_returned(layer: nn.Linear, x: Tensor) -> Any:
    return x, layer.weight, None, 3, "three", {"empty": ()}


@program
def an_error_that_is_caught(layer: nn.Module, x: Tensor) -> Any:
    with contextlib.suppress(RuntimeError):
        layer(x[:, :3])
    return layer(x)


@program
def an_error_that_is_caught_under_vmap(layer: nn.Module, x: Tensor) -> Any:
    with contextlib.suppress(RuntimeError):
        torch.vmap(lambda a: a @ torch.ones(3))(x)
    return layer(x)


@program
def a_compiled_function(layer: nn.Module, x: Tensor) -> Any:
    return torch.compile(lambda a: a.sin() + 1, backend="eager")(layer(x))


@pytest.mark.every(7)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_diagram_computes_the_results_of_the_program(agree: Any, name: str) -> None:
    agree(Program(PROGRAMS[name], nn.Linear(8, 8)), torch.randn(4, 8))


def test_the_out_argument(agree: Any) -> None:
    def into(_: Any, x: Tensor) -> Any:
        x = x.detach()
        made = torch.empty_like(x)
        torch.mul(x, 2, out=made)
        return made, torch.add(made, x, out=torch.empty_like(x))

    agree(Program(into), torch.randn(4, 8))


def test_an_input_changed_in_place(agree: Any) -> None:
    def write(_: Any, x: Tensor) -> Tensor:
        x = x.detach()
        x += 1
        x.data.mul_(2)
        return x * 2

    agree(Program(write), torch.randn(4, 8))


def input_numbers(diagram: Any, label: str) -> list[tuple[int, ...]]:
    """Return the value numbers of the inputs of each operation whose label starts with a name."""
    return [tuple(v.number for v in box.inputs) for box in diagram.walk() if box.label.startswith(label)]


def test_the_inputs_of_an_operation_are_the_results_of_others(agree: Any) -> None:
    def both(layer: nn.Module, x: Tensor) -> Tensor:
        y = layer(x)
        return torch.cat([y, x + y], 0)

    diagram = agree(Program(both, nn.Linear(8, 8)), torch.randn(4, 8))
    (x,), (output,) = diagram.inputs, diagram.outputs
    y = next(box for box in diagram.walk() if box.path == "layer").outputs[0]
    ((left, right),), ((first, second),) = input_numbers(diagram, "add"), input_numbers(diagram, "cat")
    assert (left, right) == (x.number, y.number)
    assert first == y.number
    assert second not in (x.number, y.number, output.number)


def test_a_tensor_changed_in_place_is_another_value(agree: Any) -> None:
    def grow(_: Any, x: Tensor) -> Tensor:
        y = x.clone()
        z = y * 2
        y += 1
        return y * z

    diagram = agree(Program(grow), torch.randn(4, 8))
    clone, double, more, last = [box for box in diagram.walk() if box.kind == "operation"]
    assert double.inputs[0].number == clone.outputs[0].number
    assert more.mutates == (clone.outputs[0].number,)
    assert [value.number for value in last.inputs] == [more.outputs[0].number, double.outputs[0].number]


def test_the_mapped_axis_is_shown(agree: Any) -> None:
    inner = Program(lambda layer, x: torch.vmap(lambda a: layer(a) + 1)(x), nn.Linear(8, 3))
    diagram = agree(inner, torch.randn(4, 8))
    linear = next(box for box in diagram.walk() if box.label == "linear")
    assert [(value.mapped, value.sizes) for value in linear.inputs if value.role != "parameter"] == [(1, (4, 8))]
    assert (linear.outputs[0].mapped, linear.outputs[0].sizes) == (1, (4, 3))
    assert diagram.outputs[0].mapped == 0
    twice = agree(Program(lambda _, x: torch.vmap(torch.vmap(torch.sin))(x)), torch.randn(4, 8))
    sine = next(box for box in twice.walk() if box.label == "sin")
    assert (sine.inputs[0].mapped, sine.inputs[0].sizes) == (2, (4, 8))


def test_a_model_mapped_from_outside_is_recorded_with_the_mapped_axis() -> None:
    diagram = trace(torch.vmap(nn.Linear(8, 3)), torch.randn(4, 2, 8))
    linear = next(box for box in diagram.walk() if box.label == "linear")
    assert (linear.outputs[0].mapped, linear.outputs[0].sizes) == (1, (4, 2, 3))


def test_a_parameter_used_only_in_an_einsum(agree: Any) -> None:
    class Project(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return einsum(x, self.weight, "b m, m k h -> b k h")

    diagram = agree(Project(), torch.randn(3, 8))
    assert [(value.name, value.role) for value in diagram.parameters] == [("weight", "parameter")]
    assert diagram.box.parameter_count == 64
    assert diagram.outputs[0].axes == ("b", "k", "h")
