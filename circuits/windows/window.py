"""An axis seen through windows: an affine map from places in windows to places on the axis, and the sizes it derives.

`h -> h' i: s*h' + d*i - p` says that place i of window h' is place s*h' + d*i - p of the axis h: windows begin s apart,
their places lie d apart, and p places of padding stand before the axis. Here is the map as data, one axis at a time;
`folding` reads tensors through windows, of one axis or of many, and adds them up again.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3; for the arithmetic of sizes, Dumoulin and Visin
2016, A guide to convolution arithmetic for deep learning.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch

from circuits import switch
from circuits.errors import CircuitError, ShapeError
from circuits.windows import affine

Mode = Literal["zeros", "reflect", "replicate", "circular"]
"""What stands beyond the ends of an axis: zeros; the axis mirrored at its last place; that place; the axis again."""

MODES: tuple[str, ...] = get_args(Mode)

Padding = int | tuple[int, int]
"""How many places of padding: as many before an axis as after it, or (before, after)."""


@dataclass(frozen=True, repr=False)
class Window:
    """One axis seen through windows: place i of window h' is place s*h' + d*i - p of the axis h.

    A window has `size` places, `dilation` apart; windows begin `stride` apart; `before` and `after` are padded, with
    zeros or as `mode` says. Sizes that come out are rounded down: what no whole window reaches is not read.

    Raises CircuitError for a size, stride or dilation below 1, for negative padding, and for names that are no axes.

    >>> window = Window.parse("h -> h' i: s*h' + i - p", i=3, s=2, p=1)
    >>> window
    Window.parse("h -> h' i<3: 2*h' + i - 1")
    >>> Window.parse(str(window)) == window == Window("h", "h'", "i", 3, stride=2, before=1, after=1)
    True
    >>> window.count(8), window.sizes(4)
    (4, range(7, 9))
    """

    axis: str
    window: str
    place: str
    size: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    mode: Mode = "zeros"

    def __post_init__(self) -> None:
        if self.size < 1 or self.stride < 1 or self.dilation < 1 or self.before < 0 or self.after < 0:
            least = {"size": 1, "stride": 1, "dilation": 1, "before": 0, "after": 0}
            for name, low in least.items():
                number = getattr(self, name)
                if number < low:
                    what = f"the padding {name}" if low == 0 else f"the {name}"
                    raise CircuitError(f"Window: {what} is {number}; it may be {low} or more")
        if self.mode not in MODES:
            raise CircuitError(f"Window: no mode is called {self.mode!r}; there are {', '.join(MODES)}")
        if self.axis == self.window or self.axis == self.place or self.window == self.place:
            names = f"{self.axis}, {self.window} and {self.place}"
            raise CircuitError(f"Window: an axis, its windows and their places have three names, not {names}")

    @classmethod
    def parse(cls, text: str, **numbers: int) -> Self:
        """Text to data: `Window.parse("h -> h' i<3: 2*h' + i - 1 < h + 2, reflect")`.

        After the colon stands which place of h it is; then, unless as much padding comes after the axis as before,
        where the padded axis ends; then the mode, unless zeros. Letters are `numbers`, and so may be the size of a
        window, by the name of its place. Raises SignatureError for what cannot be read or is not affine.
        """
        return cls(**affine.read(text, numbers))

    @classmethod
    def over(
        cls,
        axes: str,
        size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[Padding] = 0,
        mode: Mode = "zeros",
    ) -> tuple[Self, ...]:
        """A window for each of several axes: they, then their windows, then the places in these, in one order.

        Numbers are given for all axes at once or one by one; padding one by one may be (before, after). Raises
        SignatureError where the axes are not three times as many, and CircuitError where the numbers are not as many.

        >>> Window.over("h w -> h' w' i j", 3, stride=(2, 1), padding=1)
        (Window.parse("h -> h' i<3: 2*h' + i - 1"), Window.parse("w -> w' j<3: w' + j - 1"))
        """
        names = _names(axes)
        count = len(names) // 3
        given = (each(size, count, "sizes"), each(stride, count, "strides"), each(dilation, count, "dilations"))
        numbers = zip(*given, pairs(padding, count), strict=True)
        return tuple(
            [
                cls(axis, window, place, size, stride, dilation, before, after, mode)
                for axis, window, place, (size, stride, dilation, (before, after)) in zip(
                    names[:count], names[count : 2 * count], names[2 * count :], numbers, strict=True
                )
            ]
        )

    @property
    def map(self) -> str:
        """The affine map alone, `2*h' + i - 1`."""
        return f"{_scaled(self.stride, self.window)} + {_scaled(self.dilation, self.place)}{_signed(-self.before)}"

    @property
    def reach(self) -> int:
        """How many places of the axis lie from the first of a window to its last.

        >>> Window.parse("h -> h' i<3: h' + 2*i").reach
        5
        """
        return self.dilation * (self.size - 1) + 1

    def __str__(self) -> str:
        bound = "" if self.before == self.after else f" < {self.axis}{_signed(self.after)}"
        mode = "" if self.mode == "zeros" else f", {self.mode}"
        return f"{self.axis} -> {self.window} {self.place}<{self.size}: {self.map}{bound}{mode}"

    def __repr__(self) -> str:
        return f'Window.parse("{self}")'

    # Sizes

    def count(self, size: int) -> int:
        """How many windows an axis of this size has, rounded down; ShapeError where not even one fits."""
        self._fit(size)
        return (size + self.before + self.after - self.reach) // self.stride + 1

    def least(self, count: int) -> int:
        """The smallest size of an axis that has so many windows; ShapeError where none has.

        Below 0 where padding alone holds so many, as the arithmetic of `output_padding` wants it.

        >>> Window.parse("h -> h' i<3: 2*h' + i - 1").least(4)
        7
        """
        least = (count - 1) * self.stride + self.reach - self.before - self.after
        if count < 1 or least + self.stride <= 0:
            shown = switch.show(count)
            raise ShapeError(f"no axis {self.axis} has {shown} windows {self.window} of {self}")
        return least

    def sizes(self, count: int) -> range:
        """Every size of an axis that has so many windows, since sizes are rounded down: as many as the stride."""
        least = self.least(count)
        return range(max(least, 0), least + self.stride)

    def output_padding(self, size: int) -> int:
        """What a transposed convolution must add at the end to give exactly this size: the places no window reads.

        >>> window = Window.parse("h -> h' i<3: 2*h' + i - 1")
        >>> window.least(window.count(8)) + window.output_padding(8)
        8
        """
        self._fit(size)
        return (size + self.before + self.after - self.reach) % self.stride

    def same(self) -> Self:
        """The window with the padding that keeps a size where the stride is 1, and divides it, rounded up, elsewhere.

        Where that is uneven, one more stands after the axis than before, as in nn.Conv2d.

        >>> Window.parse("h -> h' i<4: h' + i").same()
        Window.parse("h -> h' i<4: h' + i - 1 < h + 2")
        """
        total = self.reach - 1
        return dataclasses.replace(self, before=total // 2, after=total - total // 2)

    def full(self) -> Self:
        """The window with the padding that lets it reach over either end by all of its places but one.

        >>> Window.parse("h -> h' i<3: h' + i").full().count(5)
        7
        """
        return dataclasses.replace(self, before=self.reach - 1, after=self.reach - 1)

    def covering(self, size: int) -> Self:
        """The window with more padding after an axis of this size, so that the count is rounded up instead of down.

        A window more that would begin beyond the axis is not counted: as in torch's pools with `ceil_mode`.

        >>> Window.parse("h -> h' i<3: 2*h' + i").covering(8).count(8)
        4
        """
        self._fit(size)
        last = -(-(size + self.before + self.after - self.reach) // self.stride) * self.stride
        last = last - self.stride if last >= size + self.before else last
        needed = last + self.reach - size - self.before
        return dataclasses.replace(self, after=needed) if needed > self.after else self

    def _fit(self, size: int) -> None:
        """Raise ShapeError where an axis is shorter than a window, or than its own mirror image."""
        if size + self.before + self.after < self.reach:
            show, least = switch.show, self.reach - self.before - self.after
            raise ShapeError(
                f"{self.axis} is {show(size)}, padded to {show(size + self.before + self.after)}; a window of"
                f" {show(self.size)} places, {show(self.dilation)} apart, reaches over {show(self.reach)}:"
                f" {self.axis} may be {show(least)} or more"
            )
        if self.mode == "zeros" or (self.before == 0 and self.after == 0):
            return
        wider = self.before if self.before > self.after else self.after
        least = 1 if self.mode == "replicate" else wider + (self.mode == "reflect")
        if size < least:
            raise ShapeError(
                f"{self.axis} is {switch.show(size)}, too short for {self.mode} padding of {wider}: it may be"
                f" {least} or more"
            )


@torch.compiler.assume_constant_result
def _names(axes: str) -> tuple[str, ...]:
    """The names in a text, which torch.compile need not see read."""
    return affine.names(axes)


def _scaled(factor: int, name: str) -> str:
    return name if factor == 1 else f"{_shown(factor)}*{name}"


def _signed(number: int) -> str:
    if number == 0:
        return ""
    return f" + {_shown(number)}" if number > 0 else f" - {_shown(-number)}"


def _shown(number: int) -> str:
    """A number, which may be a symbol while something records."""
    text = switch.show(number)
    return text if text.isalnum() else f"({text})"


def each(number: int | Sequence[int], count: int, what: str) -> tuple[int, ...]:
    """A number for each of several axes, given for all at once or one by one.

    >>> each(3, 2, "sizes"), each((3, 5), 2, "sizes")
    ((3, 3), (3, 5))
    """
    found = tuple(number) if isinstance(number, Sequence) else (number,) * count
    if len(found) != count:
        raise CircuitError(f"{what}: {len(found)} numbers for {count} axes; give one for all, or one for each")
    return found


def pairs(padding: int | Sequence[Padding], count: int) -> tuple[tuple[int, int], ...]:
    """The padding before and after each of several axes.

    >>> pairs(1, 2), pairs((1, (0, 2)), 2)
    (((1, 1), (1, 1)), ((1, 1), (0, 2)))
    """
    found = tuple(padding) if isinstance(padding, Sequence) else (padding,) * count
    if len(found) != count:
        raise CircuitError(f"padding: {len(found)} numbers for {count} axes; give one for all, or one for each")
    return tuple([each_side if isinstance(each_side, tuple) else (each_side, each_side) for each_side in found])
