"""Decorated functions keep their types. Pyright checks this file, and reports an ignore comment without need."""

from typing import assert_type

import torch
from torch import Tensor, nn

from circuits import circuit


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
