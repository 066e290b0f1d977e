# Lambdas stand for functions and modules alike, and pyright takes them for modules.
# pyright: reportCallIssue=false, reportFunctionMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportOptionalOperand=false
"""Tests of the laws: they hold for every circuit in `models`; their arguments, side effects and counterexamples.

test_defects tests which mistakes the laws detect, and test_mutants what share of small changes.
"""

import copy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from circuits import CircuitError, LinearMap, ShapeError, broadcast, circuit, definitions, einsum, laws
from tests.laws.subjects import CIRCUITS, Entry

ROOT = Path(__file__).parents[2]

each = pytest.mark.parametrize("entry", CIRCUITS.values(), ids=CIRCUITS)

# --- Every circuit ----------------------------------------------------------------------------------------------------


def check_law(law: Callable[..., None], entry: Entry) -> None:
    """Check one law of one entry; skip with the reason if it does not apply."""
    name = getattr(law, "__name__", "")
    if name in entry.without:
        pytest.skip(entry.without[name])
    try:
        law(entry.make(), **entry.arguments)
    except laws.DoesNotApply as reason:
        pytest.skip(f"{reason}")


quick = {name: entry for name, entry in CIRCUITS.items() if not entry.slow}


@pytest.mark.every(49, 2)
@pytest.mark.parametrize("entry", quick.values(), ids=quick)
@pytest.mark.parametrize("law", [laws.shapes, laws.independent, laws.kernel], ids=lambda law: law.__name__)
def test_laws_that_signatures_imply(entry: Entry, law: Callable[..., None]) -> None:
    check_law(law, entry)


@pytest.mark.every(15)
@pytest.mark.parametrize("entry", quick.values(), ids=quick)
def test_claims(entry: Entry) -> None:
    for law in entry.also:
        check_law(law, entry)


@pytest.mark.every(1, 2)
@pytest.mark.slow
@each
def test_the_suite_holds(entry: Entry) -> None:
    """The whole suite, made as a user makes it, except `compiles`, because test_zoo compiles each model."""
    without = {**entry.without, "compiles": "test_zoo compiles the models"}
    test: Any = laws.suite(entry.make(), also=entry.also, without=without, **entry.arguments)
    skipped = []
    for name, law in cases(test).items():
        try:
            test(law)
        except pytest.skip.Exception as reason:
            skipped.append(f"{name}: {reason}")
    assert all(": " in reason and len(reason) > len("laws: ") for reason in skipped)
    assert len(skipped) < len(cases(test)) - 2


@pytest.mark.parametrize("name", ["attention", "convolution 2d", "grouped attention", "max pool 2d", "slid"])
def test_kernels_hold_in_each_dtype(name: str) -> None:
    entry = CIRCUITS[name]
    claimed = [torch.float64, torch.float32, *([torch.bfloat16] if name != "slid" else [])]
    laws.kernel(entry.make(), dtypes=claimed, **entry.arguments)


def cases(test: Any) -> dict[str, Any]:
    """Return the cases of a suite by name."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return dict(zip(mark.kwargs["ids"], mark.args[1], strict=True))


# --- The suite --------------------------------------------------------------------------------------------------------

test_multi_head_attention = laws.suite(
    models.MultiHeadAttention,
    also=[partial(laws.equivariant, axis="y")],
    without={"compiles": "test_attention compiles it"},
    m=6,
    k=5,
    h=2,
)

FILE = """
from functools import partial
import torch
from torch import nn
from circuits import circuit, laws

class Centred(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m
        self.linear = nn.Linear(m, m)

    @circuit("... x m -> ... x m", fixed="m")
    def forward(self, data):
        return self.linear(data - data.mean(WHERE, keepdim=True))

test_centred = laws.suite(Centred, also=[partial(laws.equivariant, axis="x")], without={"compiles": "slow"}, m=4)
"""


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize(("where", "fails"), [("0", ["broadcasting", "independent"]), ("-1", [])])
def test_a_suite_is_a_test_with_a_case_for_each_law(where: str, fails: list[str], tmp_path: Path) -> None:
    """Laws that do not apply are skipped with their reason; those that are not listed have no case."""
    (tmp_path / "test_it.py").write_text(FILE.replace("WHERE", where))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vrs", "--tb=line", "test_it.py"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    for name in ("shapes", "broadcasting", "independent", "gradcheck", "equivariant(x)"):
        assert f"test_centred[{name}] {'FAILED' if name in fails else 'PASSED'}" in output, output
    for name in ("kernel", "compiles"):
        assert f"test_centred[{name}] SKIPPED" in output, output
    for name in ("linear", "multilinear", "causal", "shifting", "equals"):
        assert f"test_centred[{name}]" not in output, output
    assert "laws.kernel: no circuit with a kernel runs in" in output


@pytest.mark.slow
def test_without_pytest_laws_work_and_suite_is_refused() -> None:
    program = """
import sys
sys.modules["pytest"] = None
from circuits import circuit, laws, CircuitError
f = circuit("a -> a")(lambda x: 2 * x)
laws.shapes(f)
try:
    laws.suite(f)
except CircuitError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "laws.suite makes tests for pytest, which is not installed" in result.stdout, result.stderr


def test_an_unknown_case_of_without_is_refused() -> None:
    with pytest.raises(CircuitError, match="without has the key kernels; possible keys are shapes, broadcasting"):
        laws.suite(models.MLP, without={"kernels": "none here"})
    with pytest.raises(CircuitError, match="takes a circuit or a function that returns one, not 3"):
        laws.suite(3)


# --- Arguments of a law -----------------------------------------------------------------------------------------------

double = circuit("... a -> ... a")(lambda x: 2 * x)
embed = circuit("x -> x", dtypes={"tokens": torch.long})(lambda tokens: torch.arange(5.0)[tokens])
HELD = torch.tensor(0.5)
wrong_at_size_one = circuit("a b -> b")(lambda x: x.cumsum(0)[-1].exp() if x.shape[1] > 1 else x.sum(0))
IMPLIED = (laws.shapes, laws.broadcasting, laws.independent, laws.gradcheck)


@pytest.mark.parametrize("law", IMPLIED, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "f",
    [
        double,
        broadcast(circuit("a -> ")(lambda x: x.sum()), "... a c -> ... c"),
        broadcast(circuit("m -> k", fixed={"m": 3, "k": 2})(nn.Linear(3, 2)), "... m -> ... k"),
        LinearMap(torch.rand(2, 3, 4), "a -> b c"),
        circuit("... a -> ... a")(lambda x: einsum(x, HELD, "... a, -> ... a")),
        models.MLP(3, 4, 5, 2).probabilities,
    ],
    ids=["function", "broadcast", "broadcast module", "LinearMap", "function that holds float32", "method"],
)
def test_laws_take_any_circuit(f: Any, law: Callable[..., None]) -> None:
    """`gradcheck` does not apply to a function that holds a float32 tensor, because it needs double precision."""
    try:
        law(f)
    except laws.DoesNotApply:
        assert law is laws.gradcheck


@pytest.mark.smoke
def test_a_linear_map_is_linear() -> None:
    laws.multilinear(LinearMap(torch.rand(2, 3, 4), "a -> b c"))


def test_sizes_are_distinct_primes_by_default() -> None:
    seen: list[tuple[int, ...]] = []

    def note(x: Tensor, y: Tensor) -> Tensor:
        seen.append((*x.shape, *y.shape))
        return x.sum((-1, -2)) * y.sum()

    f = circuit("... a 3 -> ...")(lambda x: note(x, torch.zeros(())))
    laws.independent(f)
    assert {len({*sizes}) == len(sizes) for sizes in seen} == {True}
    assert seen[0] == (2, 5, 3)
    laws.independent(f, sizes={"...": (4, 6), "a": 8})
    assert seen[-1] == (4, 6, 8, 3)


def test_sizes_that_follow_are_whole() -> None:
    laws.shapes(circuit("h -> h/6", fixed={})(lambda x: x.reshape(-1, 6).sum(-1)))
    laws.shapes(circuit("a -> a-4")(lambda x: x[4:]))
    laws.shapes(circuit("(i p) -> i", fixed={"p": 3})(lambda x: x.reshape(-1, 3).sum(-1)))
    laws.shapes(circuit("16*h -> h")(lambda x: x[::16]))
    with pytest.raises(CircuitError, match=r"found no primes for which every axis of .* has a positive whole size"):
        laws.shapes(circuit("a -> 3-a")(lambda x: x[:1]), sizes={"a": 5})


def test_inputs_are_made_as_the_caller_says() -> None:
    laws.shapes(embed, inputs={"tokens": range(5)})
    laws.independent(embed, "x", inputs={"tokens": lambda shape: torch.randint(5, tuple(shape))})
    with pytest.raises(
        CircuitError, match=r"tokens is torch.int64; pass the values .* inputs=\{'tokens': range\(10\)\}"
    ):
        laws.independent(embed, "x")
    with pytest.raises(CircuitError, match="inputs has the key token; possible keys are tokens"):
        laws.independent(embed, "x", inputs={"token": range(5)})
    with pytest.raises(CircuitError, match=r"sizes has the key y; possible keys are x"):
        laws.independent(embed, "x", inputs={"tokens": range(5)}, sizes={"y": 3})


def test_an_optional_tensor_with_source_none_is_never_passed() -> None:
    def masked(x: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is None
        return x + x

    f = circuit("a -> a", optional={"mask": "a"})(masked)
    for law in (laws.shapes, laws.broadcasting, laws.gradcheck, laws.multilinear):
        law(f, inputs={"mask": None})
    with pytest.raises(AssertionError, match="is None"):
        laws.shapes(f)


def test_unsuitable_circuits_and_axes_are_refused() -> None:
    with pytest.raises(CircuitError, match=r"laws.shapes takes a circuit, and .* give it one"):
        laws.shapes(nn.Linear(2, 3))
    with pytest.raises(CircuitError, match=r"h is part of \(h k\) in .*; pass '\(h k\)' instead"):
        laws.independent(circuit("(h k) -> (h k)", fixed={"h": 2, "k": 3})(lambda x: x + 1), "h")
    with pytest.raises(CircuitError, match="y is not a tensor"):
        laws.linear(double, "y")


@pytest.mark.parametrize(
    ("law", "f"),
    [
        (laws.kernel, double),
        (laws.gradcheck, circuit("a -> ")(lambda x: x.argmax())),
        (laws.independent, circuit("a -> a")(lambda x: x)),
        (partial(laws.causal, axis="b"), circuit("a -> a")(lambda x: x)),
        (partial(laws.equivariant, axis="b"), circuit("a -> a")(lambda x: x)),
        (laws.broadcasting, circuit("b 3 h w -> b 3 h w")(nn.BatchNorm2d(3))),
    ],
    ids=["kernel", "gradcheck", "independent", "causal", "equivariant", "broadcasting"],
)
def test_a_law_that_does_not_apply_does_not_pass(law: Callable[..., None], f: Any) -> None:
    with pytest.raises(laws.DoesNotApply):
        law(f)


def test_a_dtype_in_which_a_circuit_cannot_compute_is_left_out() -> None:
    """A function that holds numbers in float32, and an operation that torch does not have in half precision."""
    weight = torch.randn(3)
    weighted = circuit("a 3 -> a")(lambda x: x @ weight)
    weighted.kernel(lambda x: torch.mv(x, weight))
    laws.kernel(weighted)
    inverse = circuit("3 3 -> 3 3")(lambda x: torch.linalg.inv(x))
    inverse.kernel(lambda x: torch.linalg.solve(x, torch.eye(3, dtype=x.dtype)))
    laws.kernel(inverse)


def test_kernels_are_compared_in_half_precision_unless_dtypes_are_given() -> None:
    f = circuit("a -> a")(lambda x: x + x)
    f.kernel(lambda x: x + x if x.dtype != torch.bfloat16 else 2.2 * x)
    laws.kernel(f, dtypes=[torch.float64, torch.float32, torch.float16])
    with pytest.raises(AssertionError, match="bfloat16, contiguous"):
        laws.kernel(f)


def test_a_gradient_of_nan_is_no_leak() -> None:
    """The slope of a branch that is not taken is infinite, and 0 times infinity is NaN at every index."""
    guarded = circuit("b x -> b x")(lambda x: torch.where(x.abs() < 9, x, x / 0))
    for axis in ("b", "x"):
        laws.independent(guarded, axis)
    leaking = circuit("b x -> b x")(lambda x: torch.where(x.abs() < 9, x + x.sum(0), x / 0))
    with pytest.raises(AssertionError, match="output at b=0 depends on x at b=1"):
        laws.independent(leaking, "b")


# --- No side effects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [*IMPLIED, laws.kernel], ids=lambda law: law.__name__)
def test_model_and_random_state_do_not_change(law: Callable[..., None]) -> None:
    model = models.MultiHeadAttention(m=6, k=4, h=2)
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    law(model)
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype
    assert all(each.grad is None for each in model.parameters())


def test_parameters_initialized_to_zero_are_randomized() -> None:
    model = nn.Linear(3, 3)
    nn.init.zeros_(model.bias)
    with pytest.raises(AssertionError, match=r"where input is zero, 0 for a linear map"):
        laws.linear(circuit("m -> m", fixed={"m": 3})(model))


def test_a_failure_is_reproduced_by_its_seed() -> None:
    def message(seed: int) -> str:
        with pytest.raises(AssertionError) as caught:
            laws.linear(circuit("a -> a")(lambda x: x.exp()), seed=seed)
        return f"{caught.value}"

    assert message(3) == message(3)
    assert message(3) != message(4)
    assert "seed 3" in message(3)


def sizes_of_counterexample(f: Any, law: Callable[..., None] = laws.linear, **arguments: Any) -> str:
    """Return the sizes of a counterexample, as its message writes them."""
    with pytest.raises(AssertionError) as caught:
        law(f, **arguments)
    (line,) = [line for line in f"{caught.value}".splitlines() if line.startswith("  sizes")]
    return line.removeprefix("  sizes ").removesuffix(", seed 0")


@pytest.mark.smoke
def test_a_counterexample_is_small() -> None:
    squared = circuit("... a b -> ... b")(lambda x: x.square().sum(-2))
    assert sizes_of_counterexample(squared) == "a=1 b=1"
    assert sizes_of_counterexample(squared, sizes={"b": 4, "...": (2, 2)}) == "...=2 2 b=4 a=1"
    assert sizes_of_counterexample(circuit("a 3 -> a")(lambda x: x.exp().sum(-1))) == "a=1"
    assert sizes_of_counterexample(circuit("m -> m", fixed={"m": 4})(lambda x: x.exp())) == "m=4"
    assert sizes_of_counterexample(circuit("h -> h/6")(lambda x: x.exp()[::6])) == "h=6"
    assert sizes_of_counterexample(circuit("a -> a")(lambda x: x.cumsum(0)), laws.equivariant, axis="a") == "a=2"


def test_a_counterexample_is_as_small_as_the_mistake_allows() -> None:
    long = circuit("a b -> a b")(lambda x: x.exp() if len(x) > 3 else x)
    assert sizes_of_counterexample(long, sizes={"a": 11}) == "a=11 b=1"
    assert sizes_of_counterexample(circuit("b a -> b a")(lambda x: x.exp() if x.shape[1] > 2 else x)) == "b=1 a=3"


def test_a_smaller_counterexample_is_of_the_same_error() -> None:
    """A smaller size is rejected if the circuit raises an error at it, or if the law finds another error."""
    spread = circuit("a -> a")(lambda x: x / (x - x.mean()).square().sum())
    assert sizes_of_counterexample(spread) == "a=2"

    def picky(x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError
        return x.exp()

    assert sizes_of_counterexample(circuit("a -> a")(picky)) == "a=2"


def test_a_counterexample_is_reproduced_by_its_sizes() -> None:
    with pytest.raises(AssertionError) as caught:
        laws.linear(wrong_at_size_one, seed=3)
    again = dict(word.split("=") for word in f"{caught.value}".splitlines()[-2].split(",")[0].split()[1:])
    with pytest.raises(AssertionError) as repeated:
        laws.linear(wrong_at_size_one, sizes={name: int(size) for name, size in again.items()}, seed=3)
    assert f"{repeated.value}" == f"{caught.value}"


def test_an_error_of_the_circuit_gets_a_note_with_the_sizes() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        laws.shapes(circuit("a -> a")(fail))
    assert any("sizes a=2, seed 0; sizes= and inputs= change them" in note for note in caught.value.__notes__)


# --- Details of single laws -------------------------------------------------------------------------------------------


def test_shapes_expects_contradicting_sizes_to_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    f = circuit("a k, b k -> a b")(lambda x, y: x.sum(-1)[:, None] + y.sum(-1))
    laws.shapes(f)
    monkeypatch.setattr("circuits.laws.output_shapes.ShapeError", ZeroDivisionError)
    with pytest.raises(ShapeError):
        laws.shapes(f)


def test_broadcasting_takes_a_target() -> None:
    inner = circuit("a, d -> b")(lambda x, y: x[:2] * y.sum())
    laws.broadcasting(inner, "c a, d -> c b")
    laws.broadcasting(inner, "a c, d e -> c b e")
    laws.broadcasting(inner, "... a, ... d -> ... b")
    laws.broadcasting(CIRCUITS["attention"].make(), "y k h, x k h, x k h -> y k h")
    with pytest.raises(CircuitError, match="axis c of the output is on no input"):
        laws.broadcasting(inner, "a, d -> c b")


def test_independence_without_a_gradient_is_tested_by_changes() -> None:
    laws.independent(circuit("x -> x")(lambda x: x.sign()), "x")
    with pytest.raises(AssertionError, match="output at x=0 depends on x at x=1"):
        laws.independent(circuit("x -> x")(lambda x: (10 * (x.sum() - x)).round()), "x")
    with pytest.raises(AssertionError, match="output at x=1 depends on tokens at x=0"):
        laws.independent(
            circuit("x -> x", dtypes={"tokens": torch.long})(lambda tokens: tokens.cumsum(0)),
            "x",
            inputs={"tokens": range(5)},
        )


def test_an_infinite_dependence_that_is_allowed_hides_no_other() -> None:
    steep = lambda x: x * 1e200 * 1e200  # noqa: E731
    laws.independent(circuit("b -> b")(lambda x: steep(x) + x), "b")
    laws.causal(circuit("b -> b")(lambda x: steep(x) + x.cumsum(0)), "b")
    leak = circuit("b -> b")(lambda x: steep(x) + x.sum())
    with pytest.raises(AssertionError, match="output at b=0 depends on x at b=1"):
        laws.independent(leak, "b")
    with pytest.raises(AssertionError, match="output at b=0 depends on x at b=1"):
        laws.causal(leak, "b")
    with pytest.raises(AssertionError, match="does not depend on b=0"):
        laws.causal(circuit("b -> b")(steep), "b")


def test_an_infinity_that_stays_is_no_change() -> None:
    rounded = lambda x: torch.where(x.round() > -9, torch.inf, x.round())  # noqa: E731
    laws.independent(circuit("b m -> b m")(lambda x: rounded(x) + x.round()), "b")
    with pytest.raises(AssertionError, match="depends on x"):
        laws.independent(circuit("b -> b")(lambda x: torch.where(x.sum() > x, torch.inf, torch.nan)), "b")


def test_axes_of_several_sizes_are_permuted_together() -> None:
    laws.equivariant(circuit("... m -> ... m")(lambda x: x * 2), sizes={"...": (3, 2)})
    laws.equivariant(circuit("... m, ... m -> ... m")(lambda x, y: x + y), sizes={"...": (3, 2, 3)})
    masked = circuit("... m -> ... m", optional={"mask": "... m"})(lambda x, mask=None: x if mask is None else x * mask)
    laws.equivariant(masked, sizes={"...": (3, 1)})
    for dim in (0, 1):
        with pytest.raises(AssertionError, match=r"the order of \.\.\. is"):
            laws.equivariant(circuit("... m -> ... m")(lambda x, dim=dim: x.cumsum(dim)), sizes={"...": (3, 2)})


def test_second_derivatives_are_those_of_the_definition() -> None:
    """The fused kernel has no second derivatives."""
    attention = CIRCUITS["attention"].make()
    tensors = [torch.rand(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    with pytest.raises(RuntimeError):
        torch.autograd.gradgradcheck(attention, tensors, fast_mode=True)
    with definitions():
        assert torch.autograd.gradgradcheck(attention, tensors, fast_mode=True)
    laws.gradcheck(attention)


@pytest.mark.smoke
def test_equals_compares_gradients_too() -> None:
    f = circuit("a -> a")(lambda x: x * 2)
    laws.equals(f, lambda x: x + x)
    with pytest.raises(AssertionError, match="the gradient of x"):
        laws.equals(f, lambda x: x + x.detach())


@pytest.mark.slow
def test_a_graph_with_dynamic_sizes_must_hold_for_other_sizes() -> None:
    laws.compiles(double)
    with pytest.raises(AssertionError, match="dynamic sizes, and sizes other than it was compiled for"):
        laws.compiles(circuit("a b -> b")(lambda x: torch.stack([row * 1 for row in x]).sum(0)))


@pytest.mark.parametrize("name", ["\u00b5", "\u03bc"], ids=["micro sign", "mu"])
def test_names_of_axes_are_spelled_as_python_spells_them(name: str) -> None:
    turned = circuit("\u00b5 m -> m \u00b5")(lambda x: x.mT)
    laws.shapes(turned, sizes={name: 3})
    laws.equivariant(turned, name)
    with pytest.raises(AssertionError):
        laws.equivariant(circuit("\u00b5 m -> m \u00b5")(lambda x: x.mT.cumsum(1)), name)
