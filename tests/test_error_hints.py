"""What an error adds where the mistake is known, and errors of einops and torch in our words: golden texts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from circuits import (
    CircuitError,
    DtypeError,
    ShapeError,
    Tracker,
    backward,
    broadcast,
    check,
    circuit,
    count,
    einsum,
    jacobian,
    laws,
    listing,
    rearrange,
    reduce,
    repeat,
    shard,
    summary,
    trace,
    track,
)

X = torch.ones(20, 65)


@circuit("n, v c -> n c", dtypes={"tokens": torch.long})
def embed(tokens: Any, table: Any) -> Any:
    return table[tokens]


@circuit("y m, x m -> y x")
def scores(query: Any, key: Any) -> Any:
    return query @ key.mT


CASES: dict[str, Callable[[], Any]] = {
    "letters of an einsum": lambda: einsum(X, X, "bi,ij->bj"),
    "letters of an image": lambda: einsum(torch.ones(2, 3, 4, 5), "bchw->bc"),
    "letters that all come back": lambda: einsum(torch.ones(2, 3, 4, 5), "bchw->bchw"),
    "letters of a circuit": lambda: circuit("bchw->bc")(lambda x: x)(torch.ones(2, 3, 4, 5)),
    "letters of a rearrange": lambda: rearrange(X, "yx->xy"),
    "jaxtyping's rest": lambda: circuit("*rest c -> c")(lambda x: x),
    "jaxtyping's broadcasting": lambda: circuit("#b c -> c")(lambda x: x),
    "jaxtyping's size": lambda: circuit("b c=3 -> b")(lambda x: x),
    "sizes of trace": lambda: trace(scores, sizes={"mm": 3}),
    "sizes of check": lambda: check(X, "b channels", channel=3),
    "sizes of a law": lambda: laws.linear(circuit("key -> key")(lambda x: x), sizes={"keys": 3}),
    "sizes of a rearrange": lambda: rearrange(X, "y (head k) -> y head k", heads=5),
    "fixed": lambda: circuit("b width -> b", fixed={"widht": 3})(lambda x: x),
    "h of a vision transformer": lambda: models.VisionTransformer.from_timm(
        models.VisionTransformer(8, 4, m=6, k=3, h=2, f=8, depth=1, classes=2).to_timm(), k=3, h=3
    ),
    "einsum: size 1": lambda: einsum(torch.ones(5, 8), torch.ones(5, 1), "y m, x m -> y x"),
    "einsum: rest of size 1": lambda: einsum(torch.ones(4, 2), torch.ones(1, 2), "... m, ... m -> ..."),
    "einsum: rest of other sizes": lambda: einsum(torch.ones(4, 3, 2), torch.ones(5, 3, 2), "... m, ... m -> ..."),
    "einsum: no rest": lambda: einsum(torch.ones(4, 2), torch.ones(2), "... m, ... m -> ..."),
    "einsum: dtypes": lambda: einsum(torch.ones(2, 3), torch.ones(3).double(), "y k, k -> y"),
    "einsum: devices": lambda: einsum(
        torch.ones(2, 3, device="meta"), torch.ones(3).double(), X[:3, 0], "y k, k, k -> y"
    ),
    "circuit: dtype": lambda: embed(torch.ones(5), torch.ones(10, 4)),
    "circuit: dtype and size": lambda: embed(torch.ones(5, 2), torch.ones(10, 4)),
    "a group that does not divide": lambda: rearrange(X, "y (h k) -> h y k", k=16),
    "a group of unknown sizes": lambda: rearrange(X, "y (h k) -> h y k"),
    "too few axes": lambda: rearrange(X, "y h k -> h y k"),
    "too few axes for the rest": lambda: reduce(X, "... y h k -> ... y", "sum"),
    "a number": lambda: rearrange(X, "y 1 -> y"),
    "a size that is given": lambda: rearrange(X, "y m -> m y", m=64),
    "a product of given sizes": lambda: rearrange(X, "y (h k) -> y h k", h=4, k=16),
    "a prime": lambda: rearrange(X, "y h' -> h y"),
    "a new axis": lambda: repeat(X, "y m -> y h m"),
    "a lost axis": lambda: repeat(X, "y m -> y"),
    "a new axis of reduce": lambda: reduce(X, "y m -> y h", "sum"),
    "an unknown reduction": lambda: reduce(X, "y m -> y", "summ"),
    "the mean of integers": lambda: reduce(X.long(), "y m -> y", "mean"),
    "no pattern": lambda: rearrange(X, 3),  # type: ignore[arg-type]
    "no tensor": lambda: rearrange(3, "y x -> x y"),  # type: ignore[arg-type]
    "two tensors": lambda: rearrange(X, "y x, y x -> x y"),
    "a list": lambda: rearrange([X, X], "n y -> y n"),
    "rest in the middle": lambda: rearrange(X, "y ... 3 -> y ... "),
    "a pattern before its tensor": lambda: rearrange("y m -> m y", X),  # type: ignore[arg-type]
    "axes before their tensor": lambda: check("y m", X),  # type: ignore[arg-type]
    "a list of numbers": lambda: scores([[1.0, 2.0]], torch.ones(3, 2)),
    "tensors in a list": lambda: scores([torch.ones(2)], torch.ones(3, 2)),
    "a track of a result": lambda: track(X),
    "a track of a list": lambda: track([nn.ReLU()]),
    "a track of a class": lambda: track(nn.ReLU),
    "a track of a function": lambda: track(torch.relu),
    "a trace of a class": lambda: trace(nn.ReLU, X),
    "a trace of a result": lambda: trace(X),
    "a count of a class": lambda: count(nn.ReLU, X),
    "a backward of a loss": lambda: backward(X.sum()),
    "a jacobian of a number": lambda: jacobian(3.5, torch.ones(2)),
    "a listing of a class": lambda: listing(nn.ReLU),
    "a summary of nothing": lambda: summary(nn.ReLU()),
    "arguments of a trace": lambda: trace(nn.Bilinear(2, 2, 3), torch.ones(2)),
    "arguments of a model": lambda: models.MLP(hidden=3),  # type: ignore[call-arg]
    "a tracker of a name": lambda: Tracker("head", nn.ReLU()),  # type: ignore[arg-type]
    "a tracker's signature": lambda: Tracker(nn.ReLU(), "relu", "b c m -> b c m")(X),
    "a broadcast of a function": lambda: broadcast(torch.relu, "b m -> b m"),
    "a law of a module": lambda: laws.shapes(nn.ReLU()),
    "a mesh of sizes": lambda: shard(nn.ReLU(), {"tensor": 2}, {"m": "tensor"}),  # type: ignore[arg-type]
}


def test_messages(golden: Any) -> None:
    texts = []
    for name, call in CASES.items():
        with pytest.raises(CircuitError) as caught:
            call()
        texts.append(f"--- {name}\n{type(caught.value).__name__}: {caught.value}\n")
    golden("errors/hints.txt", "\n".join(texts).replace(f"{__file__}", "use.py"))


def test_a_wrong_dtype_is_no_clash_of_shapes() -> None:
    with pytest.raises(DtypeError):
        CASES["circuit: dtype"]()
    with pytest.raises(ShapeError) as caught:
        CASES["circuit: dtype and size"]()
    assert type(caught.value) is ShapeError
    with pytest.raises(CircuitError) as mixed:
        CASES["einsum: dtypes"]()
    assert isinstance(mixed.value, RuntimeError)  # as torch's: code that tries another dtype catches it
    assert not isinstance(mixed.value, ShapeError)
    with pytest.raises(Exception, match=r"torch.float32 here, but torch.int64 is expected"):
        torch.compile(embed, fullgraph=True, backend="eager")(torch.ones(5), torch.ones(10, 4))


@pytest.mark.slow
def test_a_trace_with_a_wrong_dtype_says_nothing_of_sizes() -> None:
    def refuses(x: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 must have the same dtype, but got Float and Double")

    with pytest.raises(RuntimeError, match="dtype") as caught:
        trace(refuses, axes="b 3")
    assert not any("free axes" in note for note in getattr(caught.value, "__notes__", ()))


def test_errors_of_torch_pass_a_verb_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="stack expects each tensor"):
        rearrange([torch.ones(2), torch.ones(3)], "n y -> y n")


@pytest.mark.parametrize(
    ("call", "note"),
    [
        (lambda: trace(nn.Linear(3, 2), (5, 3)), "inputs of given sizes are made by summary(model, input_size=(5, 3))"),
        (
            lambda: trace(nn.Embedding(3, 2), axes="b"),
            "the inputs that are made are floating: pass tensors, or summary(..., input_size=, dtypes=) makes others",
        ),
    ],
    ids=["sizes", "dtype"],
)
def test_a_trace_that_fails_by_its_inputs_says_how_to_make_others(call: Callable[[], Any], note: str) -> None:
    with pytest.raises((TypeError, RuntimeError)) as caught:
        call()
    assert note in caught.value.__notes__
    with pytest.raises(RuntimeError) as other:
        trace(nn.Linear(3, 2), X)
    assert note not in other.value.__notes__
