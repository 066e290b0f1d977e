"""The diagram of a TARGET: which KEY=VALUE arguments are arguments of the class, sizes of axes, or of the call."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit, trace
from circuits.commands.diagrams import diagram_of
from circuits.commands.reports import UsageError
from circuits.commands.settings import parameters_of, parse_settings
from models.attention import MultiHeadAttention, attention
from models.mlp import MLP


class Base(nn.Module):
    def __init__(self, m: int, *, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(m, m, bias)

    def forward(self, x: Tensor, times: int = 1, *, shift: float = 0.0) -> Tensor:
        return times * self.linear(x) + shift


class Derived(Base):
    def __init__(self, depth: int = 1, **others: Any) -> None:
        super().__init__(**others)
        self.depth = depth


class Open(nn.Module):
    def __init__(self, text: str, /, **sizes: int) -> None:
        super().__init__()
        self.text, self.sizes = text, sizes

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sizes["c"]


class OpenRecurrent(nn.Module):
    """An argument of its own is called as one for the inputs."""

    def __init__(self, input_size: int, **others: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(input_size, **others)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


@circuit("y m -> y m")
def scaled(x: Tensor, factor: float = 2.0) -> Tensor:
    return factor * x


def of_nothing() -> Tensor:
    return torch.ones(3).sum()


class Holder:
    """Not callable."""


HERE = __name__


def table(target: str, *words: str) -> str:
    return diagram_of(target, words).table()


def test_values_are_literals_or_text() -> None:
    found = parse_settings(["a=3", "b=(3, 3)", "c=None", "d=relu", "e=", "f=__import__('os')", "g=x=y", "h='3'"])
    assert found == {
        "a": 3, "b": (3, 3), "c": None, "d": "relu", "e": "", "f": "__import__('os')", "g": "x=y", "h": "3",
    }  # fmt: skip


def test_nothing_is_evaluated() -> None:
    found = parse_settings(["a=print(1)", "b=[1, x]", "c=2 * 3", "d=" + "(" * 10_000])
    assert {type(value) for value in found.values()} == {str}


@pytest.mark.parametrize("word", ["y", "=3", ""])
def test_a_word_without_a_key_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="is not KEY=VALUE"):
        parse_settings([word])


def test_arguments_of_the_class_then_sizes() -> None:
    found = table("models.attention:MultiHeadAttention", "m=128", "k=16", "h=4", "y=20", "bias=True")
    assert found == trace(MultiHeadAttention(m=128, k=16, h=4, bias=True), sizes={"y": 20}).table()


def test_a_size_of_0_is_a_size() -> None:
    assert "axes  y=0" in table(f"{HERE}:scaled", "y=0")


def test_two_spellings_of_a_name_are_one() -> None:
    """As in Python's own names: `ﬁ` is `fi`."""
    assert "3 4 -> 3 4" in table("torch.nn:ReLU", "axes=fi 4", "ﬁ=3")


def test_a_size_is_an_argument_of_the_class_where_it_takes_one() -> None:
    assert table("models.mlp:MLP", "x=2", "y=3").splitlines()[1].startswith("MLP: ... x y -> ... k")
    assert "2 3 -> 10" in table("models.mlp:MLP", "x=2", "y=3")


def test_attributes_of_the_made_model() -> None:
    assert table("models.mlp:MLP.probabilities", "m=4") == trace(MLP(m=4).probabilities).table()
    assert table("torch.nn:Transformer.encoder.layers.0.norm1", "axes=x 512").splitlines()[1].startswith("LayerNorm")


def test_arguments_of_a_base_class() -> None:
    assert parameters_of(Derived) == (("depth", "m", "bias"), (), (), False)
    found = table(f"{HERE}:Derived", "m=4", "bias=False", "axes=y 4")
    assert "parameters   16 (64 B)" in found


def test_a_class_that_takes_any_argument_gets_all_but_those_for_the_inputs() -> None:
    assert parameters_of(Open).open
    assert "y m -> y m" in table(f"{HERE}:Open", "text=a text", "c=3", "axes=y m")
    assert "t b 8 -> t b 4" in table(f"{HERE}:OpenRecurrent", "input_size=8", "hidden_size=4", "axes=t b 8")


@pytest.mark.slow
def test_arguments_of_the_call() -> None:
    assert table("models.attention:attention", "causal=True") == trace(attention, causal=True).table()
    assert table(f"{HERE}:scaled", "factor=3.0", "y=2").splitlines()[-2].startswith("axes         y=2")
    with_shift, without = (
        table(f"{HERE}:Base", "m=4", "axes=y 4", "times=2", f"shift={shift}") for shift in (1.0, 0.0)
    )
    assert "y 4 -> y 4" in without
    assert with_shift.splitlines()[1] == without.splitlines()[1]


WORDS = "input_size=8", "hidden_size=4", "axes=t b 8"


def test_axes_name_the_inputs_of_a_class_without_signature() -> None:
    assert "t b 8 -> t b 4" in table("torch.nn:LSTM", *WORDS)
    assert "axes         t=2, b free from input" in table("torch.nn:LSTM", *WORDS, "t=2")


@pytest.mark.parametrize(
    ("given", "axes"), [("(5, 4)", "5 4"), ("[5, 4]", "5 4"), ("[(5, 4)]", "5 4"), ("4", "4"), ("((4,),)", "4")]
)
def test_sizes_of_the_inputs(given: str, axes: str) -> None:
    found = table("torch.nn:Linear", "in_features=4", "out_features=3", f"input_size={given}")
    assert found == trace(nn.Linear(4, 3), axes=axes).table()


def test_sizes_of_several_inputs() -> None:
    found = table("torch:matmul", "input_size=[(2, 3), (3, 4)]")
    assert "2 3, 3 4 -> 2 4" in found


def test_a_function_without_arguments() -> None:
    assert "ones" in table(f"{HERE}:of_nothing")


MISTAKES = {
    "no such module": ("no.such.place:X",),
    "no such module, with dots": ("nosuch.X",),
    "no module": ("MultiHeadAttention",),
    "no name of a module": ("mod-el:X",),
    "nothing": ("",),
    "no name": ("models.attention:",),
    "a module": ("models.attention",),
    "a file without a name": ("models/attention.py",),
    "no such file": ("nosuch.py:X",),
    "no such class": ("torch.nn:Liner",),
    "no such method": ("models.mlp:MLP.probability", "m=2"),
    "no circuit": ("math:pi",),
    "an object": ("models.attention:MultiHeadAttention.Lq.weight", "m=2", "k=1", "h=2"),
    "no arguments of the class": ("models.attention:MultiHeadAttention",),
    "an argument of the class is missing": ("torch.nn:Linear", "in_features=3"),
    "another key": ("models.attention:MultiHeadAttention", "m=128", "k=16", "h=4", "q=3"),
    "another key of a circuit": ("models.attention:attention", "q=3"),
    "a size that is no number": ("models.attention:attention", "y=many"),
    "a size below 0": ("models.attention:attention", "y=-1"),
    "no value": ("models.attention:attention", "y"),
    "a key twice": ("models.attention:attention", "y=3", "y=4"),
    "no shapes": ("torch.nn:Linear", "in_features=3", "out_features=4"),
    "axes and sizes": ("torch.nn:ReLU", "axes=b", "input_size=3"),
    "sizes that are none": ("torch.nn:ReLU", "input_size=(3, x)"),
    "axes that are none": ("torch.nn:ReLU", "axes=b-"),
    "a value that the class refuses": ("models.attention:MultiHeadAttention", "m=0", "k=16", "h=4"),
    "a type that the class refuses": ("torch.nn:Linear", "in_features=x", "out_features=4"),
    "sizes that do not fit": ("torch.nn:Linear", "in_features=3", "out_features=4", "axes=b 5"),
    "too few tensors": ("torch.nn:Bilinear", "in1_features=3", "in2_features=3", "out_features=4", "axes=b 3"),
}


@pytest.mark.slow
def test_every_mistake_is_one_message(golden: Any) -> None:
    lines = []
    for name, (target, *words) in MISTAKES.items():
        with pytest.raises(CircuitError) as caught:
            diagram_of(target, words)
        code = 2 if isinstance(caught.value, UsageError) else 1
        lines.append(f"--- {name}: {' '.join([target, *words])}\n{caught.value}\nexit code {code}\n")
    golden("commands/mistakes.txt", "\n".join(lines))
