import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scripts import data
from scripts.data import (
    SEQUENCES,
    Examples,
    MissingData,
    cluttered,
    digits,
    kinds,
    mnist,
    shifted,
    split,
    topics,
    warped,
)

# Read once, for the tests below read them only.
images, text, canvases = cache(mnist), cache(topics), cache(lambda: kinds(400))


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "mnist", images)


# --- The splits -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(sizes=st.lists(st.integers(1, 40), max_size=60), seed=st.integers(0, 2**32))
def test_parts_lose_nothing_and_share_no_source(sizes: list[int], seed: int) -> None:
    names = torch.randperm(1000)[: len(sizes)]
    sources = names.repeat_interleave(torch.tensor(sizes, dtype=torch.long))
    sources = sources[torch.randperm(len(sources))]
    found = split(sources, seed)
    assert sorted(torch.cat(found).tolist()) == list(range(len(sources)))
    held = [{*sources[part].tolist()} for part in found]
    assert sum(map(len, held)) == len(set().union(*held)) == len(sizes)
    for part in (found.validation, found.test):
        assert abs(len(part) - len(sources) // 5) <= max(sizes, default=0)


@given(count=st.integers(0, 300), seed=st.integers(0, 2**32))
def test_where_each_example_is_a_source_parts_are_fifths(count: int, seed: int) -> None:
    found = split(torch.arange(count), seed)
    assert len(found.validation) == len(found.test) == count // 5
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.cat([found.test, found.validation, found.train]), order)


def test_parts_depend_on_the_seed_alone() -> None:
    one, same, other = (split(torch.arange(100) % 30, seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, one, same))
    assert not torch.equal(one.test, other.test)


# --- Images -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("load", "count", "side"), [(images, 5000, 28), (digits, 1797, 8)])
def test_the_images_are_real(load: Callable[[], Examples], count: int, side: int) -> None:
    examples = load()
    assert examples.inputs.shape == (count, side, side)
    assert examples.inputs.dtype == torch.float32
    assert (examples.inputs.min(), examples.inputs.max()) == (0, 1)
    assert examples.targets.shape == (len(examples),)
    assert examples.targets.unique().tolist() == list(range(10))
    assert torch.equal(examples.sources, torch.arange(count))
    # An ink that a person would know: the mean 1 is dark in its middle column and light at its sides.
    one = examples.inputs[examples.targets == 1].mean(0)
    assert one[side // 4 : -side // 4, side // 2].mean() > 4 * one[:, [0, -1]].mean()


@pytest.mark.slow
def test_a_picture_is_an_image_with_a_channel() -> None:
    picture, image = data.PICTURES["digits"](), digits()
    assert torch.equal(picture.inputs.squeeze(1), image.inputs)
    assert torch.equal(picture.targets, image.targets)


@pytest.mark.slow
def test_canvases_are_the_same_every_time() -> None:
    assert torch.equal(kinds(400).inputs, canvases().inputs)
    assert torch.equal(kinds(400).targets, canvases().targets)


def cropped(mask: Tensor) -> Tensor:
    """A mask cropped to its bounding box."""
    rows, columns = (mask.any(axis).nonzero().squeeze(1) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.slow
def test_a_canvas_shows_two_digits_of_its_own_source() -> None:
    """Each digit is one of the 5,000 images, complete; no image occurs on canvases of two sources."""
    known: dict[tuple[int, bytes], int] = {}
    for number, (image, kind) in enumerate(zip(images().inputs, images().targets.tolist(), strict=True)):
        known[kind, _name(image > 0.5)] = number
    source_of: dict[int, int] = {}
    for target, source in zip(canvases().targets, canvases().sources.tolist(), strict=True):
        kinds = [kind for kind in target.unique().tolist() if kind]
        assert len(kinds) in (1, 2)
        for kind in kinds if len(kinds) == 2 else []:  # two digits of a kind are one mask
            image = known[kind - 1, _name(target == kind)]
            assert source_of.setdefault(image, source) == source
    assert len(source_of) > 600


def _name(mask: Tensor) -> bytes:
    mask = cropped(mask)
    return bytes(mask.shape) + bytes(mask.flatten().tolist())


def test_ink_alone_does_not_find_the_digits() -> None:
    examples = cluttered(400)
    ink, digit = examples.inputs[:, 0] > 0.5, examples.targets == 1
    assert torch.equal(digit, canvases().targets > 0)
    assert ink[digit].all()
    assert ((ink & digit).sum() / (ink | digit).sum()).item() == pytest.approx(0.67, abs=0.02)


# --- Text and sequences -----------------------------------------------------------------------------------------------


def test_text_is_read_on_from_window_to_window() -> None:
    examples = text()
    assert torch.equal(examples.inputs[:, 1:], examples.targets[:, :-1])
    follows = [one == other for one, other in pairwise(examples.sources.tolist())]
    assert torch.equal(examples.inputs[1:, 0][follows], examples.targets[:-1, -1][follows])
    assert examples.inputs.max() < examples.classes
    assert len(examples.sources.unique()) > 50


@pytest.mark.slow
def test_what_is_held_out_is_not_also_learned() -> None:
    """Topics quote each other: with repeated paragraphs, an eighth of the test pieces would occur in training."""
    examples = text()
    train, *held = (
        {tuple(row[start : start + 60]) for row in examples.inputs[part].tolist() for start in range(196)}
        for part in split(examples.sources, seed=0)
    )
    for pieces in held:
        assert len(pieces & train) < 0.005 * len(pieces)


@pytest.mark.parametrize(("name", "target_of"), [("reversing", lambda row: row[::-1]), ("sorting", sorted)])
def test_targets_of_sequences_are_right_and_rows_are_distinct(
    name: str, target_of: Callable[[list[int]], list[int]]
) -> None:
    examples = SEQUENCES[name]()
    rows = examples.inputs.tolist()
    assert examples.targets.tolist() == [target_of(row) for row in rows]
    assert len({tuple(row) for row in rows}) == len(rows) > 19_900
    assert {number for row in rows for number in row} == set(range(examples.classes))


# --- Changes that leave the target true -------------------------------------------------------------------------------


@pytest.mark.slow
@given(most=st.integers(0, 3), seed=st.integers(0, 1000))
def test_shifting_moves_each_image_whole(most: int, seed: int) -> None:
    torch.manual_seed(seed)
    whole = torch.zeros(6, 7, 9)
    whole[:, 3, 4] = torch.arange(1.0, 7)
    moved = shifted(whole, most)
    for number, image in enumerate(moved):
        ((row, column),) = image.nonzero().tolist()
        assert image[row, column] == number + 1
        assert abs(row - 3) <= most
        assert abs(column - 4) <= most


def test_shifting_brings_in_black() -> None:
    moved = shifted(torch.ones(200, 3, 3), 1)
    assert {int(image.sum()) for image in moved} == {4, 6, 9}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"turn": 0, "stretch": 0, "move": 0}, lambda image: image),
        ({"turn": 0, "stretch": 0, "move": 2 / 8}, lambda image: torch.roll(image, (-2, -2), (-2, -1))),
        ({"turn": torch.pi / 2, "stretch": 0, "move": 0}, lambda image: image.rot90(1, (-2, -1))),
        ({"turn": 0, "stretch": 1, "move": 0}, lambda image: torch.nn.functional.pad(_halved(image), [2] * 4)),
    ],
)
def test_the_most_that_warping_does(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], expected: Callable[[Tensor], Tensor]
) -> None:
    """At the end of each range, where the result can be computed without a grid.

    To 1e-4: pixels of up to 32 are read at places that are rounded to single precision, and mixed by how far off.
    """
    monkeypatch.setattr(torch, "rand", torch.ones)
    image = torch.nn.functional.pad(torch.arange(1.0, 33).reshape(2, 1, 4, 4), [2] * 4)
    torch.testing.assert_close(warped(image, **limits), expected(image), rtol=1e-4, atol=1e-4)


def _halved(image: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(image, 2)


def test_each_image_is_warped_its_own_way_by_the_cpus_generator() -> None:
    image = torch.rand(1, 1, 8, 8).expand(50, 1, 8, 8)
    torch.manual_seed(3)
    one = warped(image)
    torch.manual_seed(3)
    assert torch.equal(warped(image), one)
    assert len(one.flatten(1).unique(dim=0)) == 50
    assert 0 <= one.min() <= one.max() <= 1


@pytest.mark.slow
def test_text_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(MissingData, match="topics ships in Python, which cannot be imported here"):
        topics()
