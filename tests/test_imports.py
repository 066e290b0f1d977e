"""`import circuits` and checked calls load little beside torch; what needs Dynamo and sympy loads at first use."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import circuits
from circuits import moved

ROOT = Path(__file__).parent.parent

LIGHT = """
import sys
import torch

before = {*sys.modules}
import circuits, models
from circuits import ShapeError, broadcast, circuit, einsum

@circuit("y m, x m -> y x")
def scores(query, key):
    return einsum(query, key, "y m, x m -> y x")

query, key = torch.rand(2, 3, requires_grad=True), torch.rand(4, 3)
scores(query, key).sum().backward()
broadcast(scores, "i y m, x m -> i y x")(torch.rand(5, 2, 3), key)
models.MultiHeadAttention(m=8, k=4, h=2)(torch.rand(3, 8), torch.rand(3, 8), causal=True)
try:
    scores(query, torch.rand(4, 2))
except ShapeError:
    pass
assert {*circuits.__all__} <= {*dir(circuits)}
for name in [name for name in sys.modules if name.startswith("circuits")]:
    assert not hasattr(sys.modules[name], "__wrapped__")  # doctest and inspect ask this of all modules
loaded = {*sys.modules} - before
print(*sorted(loaded))
"""
HEAVY = ("sympy", "mpmath", "rich", "torch._dynamo", "torch._inductor", "torch._subclasses", "torch.fx.experimental")
"""What takes time to load, and is not needed to check a call."""

USES = """
import pickle, sys, threading
import torch, circuits

start, failures = threading.Barrier(6), []

def use(number):
    start.wait()
    try:
        if number < 3:
            assert "linear" in str(circuits.trace(torch.nn.Linear(3, 4), torch.rand(2, 3)))
        for name in circuits.__all__[number:] + circuits.__all__[:number]:
            getattr(circuits, name)
        assert pickle.loads(b"ccircuits.tracing\\ntrace\\n.") is circuits.trace
    except BaseException as error:
        failures.append(error)

assert "circuits.diagram" not in sys.modules
threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
[each.start() for each in threads], [each.join() for each in threads]
assert not failures, failures
"""


def python(code: str) -> str:
    """Run code in a new process and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_checked_calls_and_models_load_little_beside_torch() -> None:
    loaded = python(LIGHT).split()
    assert "circuits.checking" in loaded
    heavy = [name for name in loaded if any(f"{name}.".startswith(f"{each}.") for each in HEAVY)]
    assert not heavy, heavy
    ours = {name.split(".")[1] for name in loaded if name.startswith("circuits.")}
    assert not ours & {*circuits._AT_FIRST_USE}


@pytest.mark.slow
def test_threads_may_use_everything_first_at_once() -> None:
    python(USES)


def test_names_are_found_where_type_checkers_find_them() -> None:
    """What is loaded at first use is what `if TYPE_CHECKING` imports."""
    tree = ast.parse((ROOT / "circuits" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [each for each in tree.body if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING"]
    seen = [
        ((line.module or "").removesuffix(f".{name.name}"), name.name)  # a function may be imported from its own file
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    ]
    lazy = [(f"circuits.{folder}", name) for folder, names in circuits._AT_FIRST_USE.items() for name in names]
    assert sorted(seen) == sorted([*lazy, ("circuits", "laws")])
    for module, name in lazy:
        assert getattr(circuits, name) is getattr(sys.modules[module], name)
    for folder in circuits._AT_FIRST_USE:
        assert getattr(circuits, folder) is sys.modules[f"circuits.{folder}"]
    assert {*circuits.__all__} <= {*vars(circuits)}


def test_a_name_that_does_not_exist_is_refused_with_a_near_one() -> None:
    with pytest.raises(AttributeError, match="module 'circuits' has no attribute 'traec'") as caught:
        circuits.traec  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("traec", circuits)


@pytest.mark.parametrize("former", moved.MODULES)
def test_a_former_module_has_what_the_present_one_has(former: str) -> None:
    old = sys.modules[f"circuits.{former}"]
    now = import_module(f"circuits.{moved.MODULES[former]}")
    own = [name for name, each in vars(now).items() if getattr(each, "__module__", "") == now.__name__]
    assert own
    for name in own:
        assert getattr(old, name) is getattr(now, name)
    assert not hasattr(old, "__file__")
