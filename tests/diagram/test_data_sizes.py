"""Sizes that depend on data in a tracked run: where the code read one, the diagram refuses another size."""

import io
from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from circuits import circuit, rearrange, simplify, track
from circuits.diagram import size_rule
from circuits.errors import CircuitError
from tests.recorded import Runs, tracked

FIRST, SECOND = torch.tensor([1.0, -2, 3, 4, -5]), torch.tensor([-1.0, -2, 3, -4, -5])
"""Three positive numbers of five, and one."""


def positive(x: Tensor) -> Tensor:
    return x[x > 0]


class Positive(torch.autograd.Function):
    """Selects by data, in code that is not recorded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x[x > 0]


@torch.jit.script
def scripted_positive(x: Tensor) -> Tensor:
    return x[x > 0]


class ScriptedPositive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


SCRIPTED = torch.jit.script(ScriptedPositive())


@torch.library.custom_op("circuits_tests::positive", mutates_args=())
def custom_positive(x: Tensor) -> Tensor:
    return x[x > 0].clone()


READ: dict[str, Callable[[Tensor], Any]] = {
    "len": lambda x: positive(x).sum() / len(positive(x)),
    "shape": lambda x: positive(x).sum() / positive(x).shape[0],
    "size": lambda x: positive(x).sum() / positive(x).size(0),
    "numel": lambda x: x * 2 if positive(x).numel() > 2 else x * 3,
    "iteration": lambda x: sum(value * 2 for value in positive(x)),
    "parts": lambda x: list(positive(x).split(1)),
    "zeros": lambda x: torch.zeros(positive(x).shape),
    "another value": lambda x: (positive(x).unsqueeze(1) * 2)[:, 0].shape[0] * x,
    "concatenation": lambda x: torch.cat([positive(x), x]).shape[0] * x,
    "squeeze": lambda x: x * 2 if (x > 0).nonzero().squeeze().dim() == 0 else x * 3,
    "rank after squeeze": lambda x: x * ((x > 0).nonzero().squeeze() * 2).ndim,
    "a mask of bytes": lambda x: len(x[(x > 0).to(torch.uint8)]) * x,
    "a numbered operation": lambda x: len(torch.ops.aten._unique2(x.clamp(min=0))[0]) * x,
    "nonzero": lambda x: len((x > 0).nonzero()) * x,
    "where": lambda x: len(torch.where(x > 0)[0]) * x,
    "argwhere": lambda x: len(torch.argwhere(x > 0)) * x,
    "unique": lambda x: len(x.clamp(min=0).unique()) * x,
    "unique_consecutive": lambda x: len(torch.unique_consecutive(x > 0)) * x,
    "masked_select": lambda x: len(x.masked_select(x > 0)) * x,
    "repeat_interleave": lambda x: len(x.repeat_interleave((x > 0).long())) * x,
    "bincount": lambda x: len((x.abs().long() * (x > 0)).bincount()) * x,
    "one_hot": lambda x: F.one_hot(x.abs().long() * (x > 0)).shape[1] * x,
    "a slice to a tensor": lambda x: len(x[: (x > 0).sum()]) * x,
    "an axis of a tensor's size": lambda x: torch.zeros((x > 0).sum()).numel() * x,  # type: ignore[call-overload]
    "arange": lambda x: len(torch.arange((x > 0).sum())) * x,  # type: ignore[call-overload]
    "narrow": lambda x: len(x.narrow(0, 0, (x > 0).sum())) * x,  # type: ignore[arg-type]
    "tensor_split": lambda x: [part * len(part) for part in x.tensor_split((x > 0).sum()[None])],
    "sparse": lambda x: len(x.relu().to_sparse().values()) * x,
    "an overload": lambda x: len(torch.ops.aten.nonzero.default(x)) * len(torch.ops.aten.nonzero(x > 0)) * x,
    "einops": lambda x: einops.rearrange(positive(x), "n -> n 1") * 2,
    "autograd.Function": lambda x: len(Positive.apply(x)) * x,
    "a custom operator": lambda x: len(custom_positive(x)) * x,
    "TorchScript": lambda x: len(SCRIPTED(x)) * x,
    "returned": lambda x: (x, len(positive(x)), positive(x).shape),
}
"""Functions that read a size, or use it as a number; each has another size for the second input."""

UNREAD: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: positive(x).mean() * x,
    "ones_like": lambda x: torch.ones_like(positive(x)),
    "index": lambda x: x[(x > 0).nonzero().squeeze(1)] * 2,
    "outer product": lambda x: positive(x)[:, None] @ positive(x)[None],
    "rank": lambda x: positive(x) * positive(x).dim(),
    "padding": lambda x: F.pad(x, (0, (x > 0).sum())),  # type: ignore[arg-type]
    "sizes of tensors": lambda x: torch.full(((x > 0).sum(),), 2.0) + torch.ones((x > 0).sum()),  # type: ignore
    "the size of a scalar": lambda x: positive(x).max().shape,
    "the size of the input": lambda x: positive(x) * x.shape[0],
    "rearrange": lambda x: rearrange(positive(x), "n -> n 1"),
    "a model that is called as a whole": lambda x: len(torch.vmap(torch.sin)(positive(x))) * x,
    "a check": lambda x: doubled(positive(x)),
}
"""Functions that select by data, and read no size of what they select, or are called again as a whole."""


@circuit("n -> n")
def doubled(x: Tensor) -> Tensor:
    return x * 2


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
@pytest.mark.parametrize("name", READ)
def test_another_size_is_refused_where_the_code_read_it(name: str) -> None:
    diagram = tracked(READ[name], FIRST)
    torch.testing.assert_close(diagram(FIRST), READ[name](FIRST), rtol=0, atol=0)
    message = rf"the recorded run read .* from data, by shape at {__file__}:\d+, and now it is"
    for run in (diagram, diagram.function(), simplify(diagram)):
        with pytest.raises(CircuitError, match=message):
            run(SECOND)


@pytest.mark.parametrize("name", UNREAD)
def test_another_size_is_computed_where_the_code_read_none(name: str) -> None:
    diagram = tracked(UNREAD[name], FIRST)
    torch.testing.assert_close(diagram(SECOND), UNREAD[name](SECOND), rtol=0, atol=0)


def test_each_size_is_read_once_and_the_table_shows_where() -> None:
    def code(x: Tensor) -> Tensor:
        chosen = positive(x)
        return chosen.sum() / len(chosen) * chosen.shape[0] + (chosen * 2).shape[0]

    diagram = tracked(code, FIRST)
    assert [row.split()[-2:] for row in str(diagram).splitlines() if "read" in row] == [["read", "(3,)"]]

    def one_axis(x: Tensor) -> Tensor:
        chosen = positive(x)
        return x * chosen.size(0) * chosen.size(0)

    assert str(tracked(one_axis, FIRST)).count("read 3") == 1
    stream = io.StringIO()
    model = Runs(code)
    with track(model, to=stream):
        model(FIRST)
    assert stream.getvalue().count("read (3,)") == 1


def test_packed_sequences() -> None:
    """torch's own layers read the sizes of packed sequences."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 3, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]

    model, x = Packed().requires_grad_(False), torch.rand(2, 5, 4)
    with track(model, to=None) as seen:
        model(x, torch.tensor([5, 2]))
    for lengths in (torch.tensor([5, 2]), torch.tensor([5, 3])):
        assert torch.equal(seen.diagram(x, lengths), model(x, lengths))
    with pytest.raises(CircuitError, match="read 5 from data"):
        seen.diagram(x, torch.tensor([3, 2]))


def test_a_box_that_is_called_as_a_whole_does_not_compare() -> None:
    """The diagram calls a module with a transform inside, so that its code reads the sizes again."""

    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            chosen = positive(x)
            return torch.vmap(torch.sin)(chosen) / len(chosen)

    class Outer(nn.Module):
        def __init__(self, counts: bool) -> None:
            super().__init__()
            self.inner, self.counts = Whole(), counts

        def forward(self, x: Tensor) -> Tensor:
            found = self.inner(x)
            return found / len(found) if self.counts else found * 2

    for counts in (False, True):
        model = Outer(counts)
        with track(model, to=None) as seen:
            model(FIRST)
        if counts:
            with pytest.raises(CircuitError, match="by shape"):
                seen.diagram(SECOND)
        else:
            assert torch.equal(seen.diagram(SECOND), model(SECOND))


def test_a_box_with_a_backward_hook_does_not_compare_either() -> None:
    """The diagram calls the module, so its reading is not run again, and the size is compared outside."""

    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            chosen = positive(x)
            return chosen * len(chosen)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()
            self.inner.register_full_backward_hook(lambda *_: None)

        def forward(self, x: Tensor) -> Tensor:
            return x * len(self.inner(x))

    with pytest.raises(CircuitError, match="by shape"):
        tracked(Outer(), FIRST)(SECOND)


def test_a_number_that_the_code_formats_is_read() -> None:
    diagram = tracked(lambda x: x * float(f"{x[0]:.1f}") + len(f"{x[:0]}"), FIRST)
    assert torch.equal(diagram(FIRST), FIRST + 10)
    with pytest.raises(CircuitError, match=r"read '1\.0' from data, by format"):
        diagram(SECOND)


def test_the_users_functions_are_not_kept() -> None:
    """A rule is stored for each function of torch, which lives as long as the process."""
    assert size_rule(Positive.apply) is size_rule(custom_positive._opoverload) is size_rule(scripted_positive)
    assert size_rule(torch.sin) is None


def test_other_sizes_are_not_recorded() -> None:
    def code(x: Tensor) -> Tensor:
        chosen = x[1:, None][torch.tensor([0, 2])].repeat_interleave(2, 0).view(x.shape[0] - 1, -1)
        chosen = torch.where(chosen > 0, chosen, 0) + F.one_hot(torch.zeros(len(chosen)).long(), chosen.shape[1])
        return torch.vmap(torch.sin)(chosen).reshape(len(chosen) * chosen.numel() // 4)

    assert "read" not in str(tracked(code, FIRST))
