"""Decorated functions keep their types. Pyright checks this file, and reports an ignore comment without need."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, assert_type

import pytest
import torch
from torch import Tensor, nn

from circuits import SignatureError, backward_of, circuit, find_circuit, kernel_of
from tests.test_readme import PYTHON


@circuit("y k, x k -> y x")
def scores(query: Tensor, key: Tensor, scale: float = 1.0) -> Tensor:
    return query @ key.mT * scale


@scores.kernel
def fast(query: Tensor, key: Tensor, scale: float = 1.0) -> Tensor:
    return scale * (query @ key.mT)


class Double(nn.Module):
    @circuit("y -> y")
    def forward(self, x: Tensor, times: int = 2) -> Tensor:
        return times * x


class Plain:
    @circuit("y -> y")
    def triple(self, x: Tensor) -> Tensor:
        return 3 * x

    @classmethod
    @circuit("y -> y")
    def double(cls, x: Tensor, times: int = 2) -> Tensor:
        return times * x

    @circuit("y -> y")
    @classmethod
    def negative(cls, x: Tensor) -> Tensor:
        return -x

    @staticmethod
    @circuit("y -> y")
    def same(x: Tensor) -> Tensor:
        return x


def test_a_function_keeps_its_type() -> None:
    assert_type(scores(torch.ones(2, 3), torch.ones(4, 3), scale=2.0), Tensor)
    assert_type(scores.circuit.inputs, tuple[str, ...])


def test_a_method_keeps_its_type() -> None:
    assert_type(Double().forward(torch.ones(2), times=3), Tensor)
    assert_type(Plain().triple(torch.ones(2)), Tensor)
    assert_type(Plain().triple(x=torch.ones(2)), Tensor)


def test_class_methods_and_static_methods_keep_their_types() -> None:
    x = torch.ones(2)
    for owner in (Plain, Plain()):
        assert_type(owner.double(x, times=3), Tensor)
        assert_type(owner.negative(x), Tensor)
        assert owner.double(x).sum() == 4
    assert_type(Plain.same(x), Tensor)


def test_a_module_keeps_its_type() -> None:
    assert_type(circuit("... m -> ... k")(nn.Linear(2, 3)), nn.Linear)


def refused() -> None:
    scores(torch.ones(2), torch.ones(2), scale="2")  # pyright: ignore[reportArgumentType]
    scores(torch.ones(2))  # pyright: ignore[reportCallIssue]
    scores(torch.ones(2), keys=torch.ones(2))  # pyright: ignore[reportCallIssue]
    Double().forward("x")  # pyright: ignore[reportArgumentType]
    Plain().triple(3)  # pyright: ignore[reportArgumentType]
    Plain.double(3)  # pyright: ignore[reportArgumentType]
    Plain.negative()  # pyright: ignore[reportCallIssue]
    circuit(3)  # pyright: ignore[reportArgumentType]


# --- Kernels and backward circuits of methods -------------------------------------------------------------------------


class Scale(nn.Module):
    """As README writes it."""

    def __init__(self, m: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(m))

    @circuit("... m -> ... m")
    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    @kernel_of(forward)
    def _(self, x: Tensor) -> Tensor:
        return self.weight * x

    @backward_of(forward)
    def gradient(self, x: Tensor, dy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return dy * self.weight, {"weight": dy * x}

    @circuit("... m -> ... m")
    def halved(self, x: Tensor) -> Tensor:
        return self(x) / 2

    @kernel_of(halved)
    def halved_kernel(self, x: Tensor) -> Tensor:
        return self(x / 2)


def test_kernels_and_backward_circuits_of_methods_are_registered_and_keep_their_types() -> None:
    x, model = torch.ones(3), Scale(3)
    assert_type(model.halved(x), Tensor)
    assert_type(model.halved_kernel(x), Tensor)
    assert_type(model.gradient(x, x)[1], dict[str, Tensor])
    for name in ("halved", "forward"):
        declared: Any = find_circuit(getattr(Scale, name))
        assert declared.body.kernel is not None
    declared = find_circuit(model)
    assert declared.body.backward is Scale.gradient
    assert kernel_of(scores)(fast) is fast


def test_only_circuits_have_kernels_and_backward_circuits() -> None:
    with pytest.raises(SignatureError, match="kernel_of takes a function or method that `@circuit` decorates"):
        kernel_of(torch.relu)
    with pytest.raises(SignatureError, match="backward_of takes a function or method that `@circuit` decorates"):
        backward_of(nn.Linear(2, 2))


ROOT = Path(__file__).parent.parent
CODE = [block.text for block in PYTHON]
"""The blocks of Python of README, but those for other tools, which tests/test_tools.py runs."""


@pytest.mark.slow
def test_pyright_accepts_the_code_of_readme(tmp_path: Path) -> None:
    """All of it in one file, as a user would have it."""
    (tmp_path / "use.py").write_text("\n".join(CODE), encoding="utf-8")
    venv = f'"venvPath": "{Path(sys.prefix).parent}", "venv": "{Path(sys.prefix).name}"'
    (tmp_path / "pyrightconfig.json").write_text(
        f'{{{venv}, "extraPaths": ["{ROOT}"], "typeCheckingMode": "standard"}}'
    )
    result = subprocess.run([sys.executable, "-m", "pyright", "use.py"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_almost_every_public_symbol_has_a_known_type() -> None:
    """As pyright sees an installed package, whose unannotated attributes it does not infer."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "circuits", "--ignoreexternal"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    score = re.search(r"Type completeness score: ([\d.]+)%", result.stdout)
    assert score is not None, result.stdout + result.stderr
    assert float(score[1]) >= 95, result.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_accepts_this_file_and_the_circuits_of_readme(tmp_path: Path) -> None:
    """Without the functions that are refused: mypy has other names for their errors."""
    readme = tmp_path / "use.py"
    registering = [block for block in CODE if "_of(" in block]
    assert registering
    names = "import torch\nfrom torch import nn\nfrom circuits import laws"
    readme.write_text("\n".join([CODE[0], names, *registering]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--check-untyped-defs", __file__, str(readme)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    found = [line for line in result.stdout.splitlines() if ": error: " in line and "[unused-ignore]" not in line]
    lines = inspect.getsourcelines(refused)
    refusals = [f"test_types.py:{number}:" for number in range(lines[1], lines[1] + len(lines[0]))]
    assert [line for line in found if not any(each in line for each in refusals)] == [], result.stdout + result.stderr
    assert any(each in result.stdout for each in refusals), result.stdout + result.stderr
