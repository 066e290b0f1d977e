from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.scores import ACCURACY, BITS, EXACT, OVERLAP, smoothed_cross_entropy, token_cross_entropy


class Says:
    """A model that returns fixed outputs and records its arguments."""

    vocabulary = 6

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.asked.append(inputs)
        return self.answer

    def generate(self, source: Tensor, start: Tensor, count: int) -> Tensor:
        self.asked.append((source, start, count))
        return torch.cat([start, self.answer], -1)


def test_accuracy() -> None:
    said, right = torch.randn(50, 10), torch.randint(10, (50,))
    tallies = ACCURACY.tally(Says(said), torch.zeros(50), right)
    expected = [float(max(range(10), key=row.__getitem__) == target) for row, target in zip(said, right, strict=True)]
    assert tallies.tolist() == expected
    assert ACCURACY.total(tallies).item() == pytest.approx(sum(expected) / 50)


def test_smoothing_spreads_a_tenth_of_the_target() -> None:
    said, right = torch.randn(7, 10), torch.randint(10, (7,))
    spread = 0.9 * F.one_hot(right, 10) + 0.01
    expected = -(spread * said.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(smoothed_cross_entropy(Says(said), said, right), expected)


@pytest.mark.parametrize("case", range(20))
def test_mean_iou_counts_pixels_over_all_images(case: int) -> None:
    """Compared with a loop; class 4 never occurs, and class 3 is predicted once but is never a target."""
    draw = torch.Generator().manual_seed(case)
    answered, right = torch.randint(3, (2, 6, 5, 4), generator=draw)
    answered[0, 0, 0] = 3
    said = F.one_hot(answered, 5).permute(0, 3, 1, 2).float()
    pairs = list(zip(answered.flatten().tolist(), right.flatten().tolist(), strict=True))
    each = []
    for kind in range(4):
        both = sum(a == kind and b == kind for a, b in pairs)
        either = sum(a == kind or b == kind for a, b in pairs)
        each.append(both / either)
    batches = [OVERLAP.tally(Says(said[some]), said[some], right[some]) for some in (slice(2), slice(2, 6))]
    assert OVERLAP.total(torch.cat(batches).double()).item() == pytest.approx(sum(each) / 4)


def test_bits_are_the_length_of_the_text_as_foreseen() -> None:
    """Probabilities of 1/2, 1/4, 1/8 and 1/8 take 1, 2, 3 and 3 bits."""
    said = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8]).log().expand(2, 3, 4)
    right = torch.tensor([[0, 1, 2], [3, 3, 0]])
    tallies = BITS.tally(Says(said), right, right)
    torch.testing.assert_close(tallies, torch.tensor([6 / 3, 7 / 3]))
    torch.testing.assert_close(BITS.total(tallies), torch.tensor(13 / 6))


def test_a_sequence_is_exact_as_a_whole_or_not_at_all() -> None:
    right = torch.randint(5, (4, 3))
    written = right.clone()
    written[1, 0] += 1
    written[3] += 1
    model, source = Says(written), torch.randint(5, (4, 3))
    assert EXACT.tally(model, source, right).tolist() == [1, 0, 1, 0]
    ((given, start, count),) = model.asked
    assert torch.equal(given, source)
    assert (start.tolist(), count) == ([[5]] * 4, 3)  # generation starts from the start token alone


@pytest.mark.slow
def test_a_token_is_foreseen_from_those_before_it_alone() -> None:
    source, right, said = torch.randint(5, (4, 3)), torch.randint(5, (4, 3)), torch.randn(4, 3, 6)
    model = Says(said)
    loss = token_cross_entropy(model, source, right)
    torch.testing.assert_close(loss, -said.log_softmax(-1).gather(-1, right[..., None]).mean())
    ((given, before),) = model.asked
    assert torch.equal(given, source)
    assert torch.equal(before, torch.cat([torch.full((4, 1), 5), right[:, :-1]], -1))
