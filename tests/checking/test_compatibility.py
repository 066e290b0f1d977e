"""Checked circuits equal the unchecked function under torch.compile, export, vmap, grad, FX, autocast and copies."""

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, export
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from circuits import ShapeError, check, checks, circuit, definitions


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    score = query @ key.mT * key.shape[-1] ** -0.5
    if mask is not None:
        score = score + mask
    return score.softmax(-1) @ value


@circuit("... y k, ... x k, ... x k -> ... y k", optional={"mask": "... y x"})
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend(query, key, value, mask)


class Mix(nn.Module):
    """A module whose signature has a group, arithmetic and a fixed size, which the check has to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.k = 6, 3
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        score = (target @ self.weight @ source.mT).softmax(-1)
        return (score @ source).unflatten(-1, (-1, self.k)).tanh().flatten(-2).unflatten(-2, (-1, 2)).mean(-2)


class CheckedMix(Mix):
    @circuit("... y m, ... x (h k) -> ... y/2 m", fixed="m k", multiples={"y": 2})
    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        return super().forward(target, source)


@dataclass(frozen=True)
class Subject:
    """A circuit, the same function without a check, arguments that fit, and arguments that do not.

    `message` is a part of the error message for the latter.
    """

    checked: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    good: Callable[..., tuple[Tensor, ...]]
    bad: tuple[Tensor, ...]
    message: str

    def assert_agrees(self, *sizes: int) -> None:
        arguments = self.good(*sizes)
        torch.testing.assert_close(self.checked(*arguments), self.plain(*arguments))


def three(*rest: int, y: int = 4, x: int = 5) -> tuple[Tensor, ...]:
    return torch.randn(*rest, y, 6), torch.randn(*rest, x, 6), torch.randn(*rest, x, 6)


def two(*rest: int, y: int = 4, x: int = 5) -> tuple[Tensor, ...]:
    return three(*rest, y=y, x=x)[:2]


def one(*rest: int, y: int = 4, x: int = 5) -> tuple[Tensor, ...]:
    return three(*rest, y=y, x=x)[:1]


def function() -> Subject:
    bad = (torch.randn(4, 6), torch.randn(5, 7), torch.randn(5, 6))
    return Subject(attention, attend, three, bad, "k is 7 here, but 6 (from query)")


def module() -> Subject:
    checked, plain = CheckedMix(), Mix()
    plain.load_state_dict(checked.state_dict())
    return Subject(
        checked, plain, two, (torch.randn(4, 6), torch.randn(5, 7)), "(h k) is 7 here, so h is not a whole number"
    )


def instance() -> Subject:
    plain = nn.Linear(6, 3)
    fixed = {"m": "in_features", "k": "out_features"}
    checked = circuit("... m -> ... k", fixed=fixed)(copy.deepcopy(plain))
    return Subject(checked, plain, one, (torch.randn(4, 7),), "m is 7 here, but 6 (fixed by Linear.in_features)")


@pytest.fixture(params=[function, module, instance], ids=lambda make: make.__name__)
def subject(request: pytest.FixtureRequest) -> Subject:
    torch._dynamo.reset()
    return request.param()


@pytest.fixture(params=[module, instance], ids=lambda make: make.__name__)
def module_and_subject(request: pytest.FixtureRequest) -> tuple[nn.Module, Subject]:
    subject = request.param()
    return subject.checked, subject


class Graphs:
    """A backend of torch.compile that counts the graphs it receives and runs them unchanged."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


def test_eager(subject: Subject) -> None:
    subject.assert_agrees()
    subject.assert_agrees(2, 3)
    with pytest.raises(ShapeError) as caught:
        subject.checked(*subject.bad)
    assert subject.message in str(caught.value)


def test_compile_in_one_graph(subject: Subject) -> None:
    graphs = Graphs()
    compiled = torch.compile(subject.checked, fullgraph=True, backend=graphs)
    for _ in range(3):
        arguments = subject.good(2)
        torch.testing.assert_close(compiled(*arguments), subject.plain(*arguments))
    assert graphs.count == 1


def test_compile_with_dynamic_shapes_in_one_graph(subject: Subject) -> None:
    graphs = Graphs()
    compiled = torch.compile(subject.checked, fullgraph=True, dynamic=True, backend=graphs)
    for rest, y, x in ((2, 4, 5), (3, 6, 7), (5, 8, 9)):
        arguments = subject.good(rest, y=y, x=x)
        torch.testing.assert_close(compiled(*arguments), subject.plain(*arguments))
    assert graphs.count == 1


def test_compile_with_one_axis_marked_dynamic(subject: Subject) -> None:
    graphs = Graphs()
    compiled = torch.compile(subject.checked, fullgraph=True, backend=graphs)
    for rest in (2, 3, 7):
        arguments = subject.good(rest)
        for each in arguments:
            torch._dynamo.mark_dynamic(each, 0)
        torch.testing.assert_close(compiled(*arguments), subject.plain(*arguments))
    assert graphs.count == 1


def test_compile_adds_no_operation(subject: Subject) -> None:
    """The graph of the circuit has the same nodes as the graph of the unchecked function: the check adds none."""
    nodes: list[list[str]] = []

    def note(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        nodes.append([f"{node.op} {node.target}" for node in graph.graph.nodes if node.op.startswith("call")])
        return graph.forward

    for f in (subject.checked, subject.plain):
        torch._dynamo.reset()
        torch.compile(f, fullgraph=True, backend=note)(*subject.good(2))
    assert nodes[0] == nodes[1]


def test_compile_trains(subject: Subject) -> None:
    arguments = [each.requires_grad_() for each in subject.good(2)]
    compiled = torch.compile(subject.checked, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*arguments).square().sum(), arguments)
    expected = torch.autograd.grad(subject.plain(*arguments).square().sum(), arguments)
    torch.testing.assert_close(found, expected)


@pytest.mark.every(3)
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_bad_call_under_compile(subject: Subject, dynamic: bool) -> None:
    """The message is the same as without compilation, also after a call that fits."""
    with pytest.raises(ShapeError) as eager:
        subject.checked(*subject.bad)
    compiled = torch.compile(subject.checked, backend="eager", dynamic=dynamic)
    for _ in range(2):
        with pytest.raises(ShapeError) as caught:
            compiled(*subject.bad)
        assert str(caught.value) == str(eager.value)
        compiled(*subject.good())


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_bad_call_under_compile_as_one_graph(subject: Subject, dynamic: bool) -> None:
    """Dynamo raises its own error, which contains the whole message."""
    with pytest.raises(ShapeError) as eager:
        subject.checked(*subject.bad)
    compiled = torch.compile(subject.checked, backend="eager", fullgraph=True, dynamic=dynamic)
    with pytest.raises(Unsupported) as caught:
        compiled(*subject.bad)
    assert str(eager.value) in str(caught.value).replace("\\n", "\n")


def same(x: Tensor) -> Tensor:
    return x


def more(x: Tensor) -> Tensor:
    return x + 1


def test_a_bad_result_under_compile() -> None:
    f = circuit("y -> 2*y")(same)
    with pytest.raises(ShapeError) as eager:
        f(torch.ones(3))
    torch._dynamo.reset()
    with pytest.raises(Unsupported) as caught:
        torch.compile(f, backend="eager", fullgraph=True)(torch.ones(3))
    assert str(eager.value) in str(caught.value).replace("\\n", "\n")


def test_masks_under_compile() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    arguments = three(2)
    for mask in (None, torch.randn(4, 5), torch.randn(1, 4, 5), torch.randn(2, 4, 5)):
        torch.testing.assert_close(compiled(*arguments, mask=mask), attend(*arguments, mask=mask))


def test_check_under_compile() -> None:
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def f(x: Tensor) -> Tensor:
        return x * check(x, "b (h w) c", w=2)["h"]

    assert torch.equal(f(torch.ones(2, 6, 5)), 3 * torch.ones(2, 6, 5))


def test_switches_under_compile() -> None:
    torch._dynamo.reset()
    f = circuit("y -> y")(same)
    f.kernel(more)
    compiled = torch.compile(f, fullgraph=True, backend="eager")
    assert compiled(torch.ones(1)).item() == 2
    with definitions():
        assert compiled(torch.ones(1)).item() == 1
    with checks(False):
        assert compiled(torch.ones(1, 1)).item() == 2
    assert compiled(torch.ones(1)).item() == 2


class Scale:
    """An object, not a module, that compiled code creates and calls."""

    def __init__(self, size: int) -> None:
        self.size = size

    @circuit("y m -> y m", fixed={"m": "size"}, multiples={"m": 2})
    def apply(self, x: Tensor) -> Tensor:
        return x / self.size


def test_an_object_made_inside_compiled_code() -> None:
    torch._dynamo.reset()

    def f(x: Tensor) -> Tensor:
        return Scale(x.shape[-1]).apply(x)

    assert torch.equal(torch.compile(f, fullgraph=True, backend="eager")(torch.ones(2, 4)), torch.ones(2, 4) / 4)
    torch._dynamo.reset()
    with pytest.raises(ShapeError, match="not a multiple of 2"):
        torch.compile(f, backend="eager")(torch.ones(2, 3))


def test_a_kernel_registered_after_compiling() -> None:
    torch._dynamo.reset()
    f = circuit("y -> y")(same)
    compiled = torch.compile(f, fullgraph=True, backend="eager")
    assert compiled(torch.ones(1)).item() == 1
    f.kernel(more)
    assert compiled(torch.ones(1)).item() == 2


def test_vmap(subject: Subject) -> None:
    arguments = subject.good(3)
    torch.testing.assert_close(vmap(subject.checked)(*arguments), subject.plain(*arguments))


def test_nested_vmap(subject: Subject) -> None:
    arguments = subject.good(3, 2)
    torch.testing.assert_close(vmap(vmap(subject.checked))(*arguments), subject.plain(*arguments))


def test_a_signature_holds_unchanged_under_vmap() -> None:
    @circuit("y k, x k -> y x")
    def f(query: Tensor, key: Tensor) -> Tensor:
        return query @ key.mT

    query, key = torch.randn(7, 3, 4, 2), torch.randn(7, 3, 5, 2)
    torch.testing.assert_close(vmap(vmap(f))(query, key), query @ key.mT)
    with pytest.raises(ShapeError, match=r"2 3    k is 3 here, but 2 \(from query\)"):
        vmap(f)(torch.randn(7, 4, 2), torch.randn(7, 2, 3))


def total(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda first, *others: f(first, *others).square().sum()


def test_grad(subject: Subject) -> None:
    arguments = subject.good()
    torch.testing.assert_close(grad(total(subject.checked))(*arguments), grad(total(subject.plain))(*arguments))


def test_grad_of_each_example(subject: Subject) -> None:
    arguments = subject.good(3)
    found, expected = (vmap(grad(total(f)))(*arguments) for f in (subject.checked, subject.plain))
    torch.testing.assert_close(found, expected)


def test_vjp(subject: Subject) -> None:
    arguments = subject.good()
    found, expected = (vjp(f, *arguments) for f in (subject.checked, subject.plain))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1](torch.ones_like(found[0])), expected[1](torch.ones_like(found[0])))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd], ids=["jacrev", "jacfwd"])
def test_jacobian(subject: Subject, jacobian: Callable[..., Any]) -> None:
    arguments = subject.good()
    torch.testing.assert_close(jacobian(subject.checked)(*arguments), jacobian(subject.plain)(*arguments))


def test_hessian(subject: Subject) -> None:
    arguments = subject.good(y=2, x=2)
    found, expected = (hessian(total(f))(*arguments) for f in (subject.checked, subject.plain))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(subject: Subject, mode: Literal["real", "fake", "symbolic"]) -> None:
    arguments = subject.good(2)
    f, fake = subject.checked, mode != "real"
    graph = make_fx(lambda *given: f(*given), tracing_mode=mode, _allow_non_fake_inputs=fake)(*arguments)
    torch.testing.assert_close(graph(*arguments), subject.plain(*arguments))
    if mode == "symbolic":
        arguments = subject.good(3, y=6, x=7)
        torch.testing.assert_close(graph(*arguments), subject.plain(*arguments))


def test_meta(subject: Subject) -> None:
    arguments = [each.to("meta") for each in subject.good(2)]
    f = subject.checked
    if isinstance(f, nn.Module):
        f.to("meta")
    assert f(*arguments).shape == subject.plain(*subject.good(2)).shape
    with pytest.raises(ShapeError):
        f(*(each.to("meta") for each in subject.bad))


def test_fake_tensors(subject: Subject) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        result = subject.checked(*(fake.from_tensor(each) for each in subject.good(2)))
        with pytest.raises(ShapeError):
            subject.checked(*(fake.from_tensor(each) for each in subject.bad))
    assert result.shape == subject.plain(*subject.good(2)).shape


def test_autocast(subject: Subject) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        arguments = subject.good(2)
        found, expected = subject.checked(*arguments), subject.plain(*arguments)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


def test_inference_mode(subject: Subject) -> None:
    with torch.inference_mode():
        subject.assert_agrees(2)


def test_deepcopy(subject: Subject) -> None:
    arguments = subject.good(2)
    again = copy.deepcopy(subject.checked)
    torch.testing.assert_close(again(*arguments), subject.plain(*arguments))
    with pytest.raises(ShapeError):
        again(*subject.bad)


def test_pickle(subject: Subject) -> None:
    arguments = subject.good(2)
    again = pickle.loads(pickle.dumps(subject.checked))
    torch.testing.assert_close(again(*arguments), subject.plain(*arguments))
    with pytest.raises(ShapeError):
        again(*subject.bad)


def test_pickle_of_a_function_is_its_name() -> None:
    assert pickle.loads(pickle.dumps(attention)) is attention


def test_torch_save(subject: Subject) -> None:
    file = io.BytesIO()
    torch.save(subject.checked, file)
    file.seek(0)
    again, arguments = torch.load(file, weights_only=False), subject.good(2)
    torch.testing.assert_close(again(*arguments), subject.plain(*arguments))
    with pytest.raises(ShapeError):
        again(*subject.bad)


def test_state_dict(module_and_subject: tuple[nn.Module, Subject]) -> None:
    module, subject = module_and_subject
    assert isinstance(subject.plain, nn.Module)
    assert list(module.state_dict()) == list(subject.plain.state_dict())
    subject.plain.load_state_dict(module.state_dict(), strict=True)
    subject.assert_agrees(2)


def test_functional_call(module_and_subject: tuple[nn.Module, Subject]) -> None:
    module, subject = module_and_subject
    weights = {name: torch.zeros_like(each) for name, each in module.named_parameters()}
    found = functional_call(module, weights, subject.good(2))
    assert isinstance(subject.plain, nn.Module)
    torch.manual_seed(0)
    arguments = subject.good(2)
    expected = functional_call(subject.plain, weights, arguments)
    torch.testing.assert_close(functional_call(module, weights, arguments), expected)
    assert found.shape == expected.shape
    with pytest.raises(ShapeError):
        functional_call(module, weights, subject.bad)


class Caller(nn.Module):
    """A module that calls a function, since torch.export needs a module."""

    def __init__(self, f: Callable[..., Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.f(*arguments)


def exported(subject: Subject, arguments: tuple[Tensor, ...], **options: Any) -> Callable[..., Tensor]:
    f = subject.checked
    return export(f if isinstance(f, nn.Module) else Caller(f), arguments, **options).module()


def test_export(subject: Subject) -> None:
    arguments = subject.good(2)
    torch.testing.assert_close(exported(subject, arguments)(*arguments), subject.plain(*arguments))


def test_export_strict(subject: Subject) -> None:
    arguments = subject.good(2)
    torch.testing.assert_close(exported(subject, arguments, strict=True)(*arguments), subject.plain(*arguments))


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_dynamic_axis(subject: Subject, strict: bool) -> None:
    arguments = subject.good(2)
    every: Any = tuple({0: Dim("b", min=2, max=64)} for _ in arguments)
    shapes = every if isinstance(subject.checked, nn.Module) else (every,)
    graph = exported(subject, arguments, dynamic_shapes=shapes, strict=strict)
    for rest in (2, 9):
        arguments = subject.good(rest)
        torch.testing.assert_close(graph(*arguments), subject.plain(*arguments))


def test_export_with_an_axis_that_must_divide() -> None:
    """`y/2` needs an even size; `2 * half` makes every size of the dynamic axis even."""
    subject = module()
    half = Dim("half", min=2, max=32)
    graph = exported(subject, subject.good(y=4, x=5), dynamic_shapes=({0: 2 * half}, {}))
    for y in (4, 12):
        arguments = subject.good(y=y, x=5)
        torch.testing.assert_close(graph(*arguments), subject.plain(*arguments))


def test_data_parallel_copies() -> None:
    """A replica has a shallow copy of the module's `__dict__` and must run with the parameters set on the replica."""
    subject = instance()
    assert isinstance(subject.checked, nn.Module)
    replica = subject.checked._replicate_for_data_parallel()
    replica.weight, replica.bias = torch.zeros(3, 6), torch.zeros(3)
    assert replica(torch.ones(2, 6)).count_nonzero() == 0
    with pytest.raises(ShapeError):
        replica(torch.ones(2, 7))
