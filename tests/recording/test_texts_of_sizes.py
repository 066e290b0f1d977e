"""Code that makes a text of a free size: the size becomes a number, unless the text is for readers."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import CircuitError, ShapeError, trace

TEXTS: dict[str, Callable[[Tensor], Any]] = {
    "str": lambda x: str(x.shape[0]),
    "repr": lambda x: repr(x.shape[0]),
    "an f-string": lambda x: f"{x.shape[0]}",
    "format": lambda x: "{}".format(x.shape[0]),  # noqa: UP032
    "the percent sign": lambda x: "%d" % x.shape[0],  # noqa: UP031
    "several sizes": lambda x: f"{x.shape}",
    "a tuple of sizes": lambda x: str(tuple(x.shape)),
    "an expression": lambda x: f"{x.shape[0] * 2 - 1}",
    "a float": lambda x: f"{x.shape[0] / 2}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_the_code_uses_fixes_the_size(name: str) -> None:
    text = TEXTS[name]

    def code(x: Tensor) -> Tensor:
        return x * len(text(x))

    diagram = trace(code, axes="n m", sizes={"m": 3})
    (fixed,) = diagram.fixed
    assert fixed.where.startswith(__file__)
    same, other = torch.rand(48, 3), torch.rand(7, 3)
    assert torch.equal(diagram(same), code(same))
    with pytest.raises(ShapeError, match=r"n (is|=) 7"):
        diagram(other)


def test_texts_for_readers_leave_a_size_free(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("test")

    def code(x: Tensor) -> Tensor:
        print(f"{x.shape}", x.shape[0])
        logger.info(f"{x.shape[0]}")
        warnings.warn(f"{x.shape[0]}", stacklevel=2)
        if x.shape[0] < 3:
            raise ValueError(f"{x.shape[0]}")
        return x * 2

    with pytest.warns(UserWarning, match=r"s\d+"):
        diagram = trace(code, axes="n m")
    assert not diagram.fixed
    assert capsys.readouterr().out
    assert torch.equal(diagram(torch.ones(5, 2)), torch.full((5, 2), 2.0))


@pytest.mark.slow
def test_an_error_message_has_the_name_of_the_axis() -> None:
    def code(x: Tensor) -> Tensor:
        raise ValueError(
            "too many rows: "
            f"{x.shape[0]}"
        )  # fmt: skip

    with pytest.raises(ValueError, match="too many rows: n"):
        trace(code, axes="n m")


def test_a_format_and_a_hash_of_a_size_are_refused() -> None:
    for code in (lambda x: x * len(f"{x.shape[0]:4d}"), lambda x: x * {48: 2.0}.get(x.shape[0], 1.0)):
        with pytest.raises(CircuitError, match=r"give the axis a size"):
            trace(code, axes="n m")
