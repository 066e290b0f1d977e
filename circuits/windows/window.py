"""Windows along an axis: an affine map from positions in windows to positions on the axis, and the sizes it implies.

`h -> h' i: s*h' + d*i - p` says that position i of window h' is position s*h' + d*i - p of the axis h: s is the stride,
d the dilation, and p the number of positions of padding before the axis. This module has the map as data, for one axis;
`fold` applies it to tensors, on one axis or several, and has its transpose.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3; for the arithmetic of sizes, Dumoulin and Visin
2016, A guide to convolution arithmetic for deep learning.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

from circuits import switch
from circuits.errors import CircuitError, ShapeError, entry_points
from circuits.tracers import constant_when_compiled
from circuits.windows import affine
from circuits.windows.per_axis import Padding, padding_pairs, per_axis

Mode = Literal["zeros", "reflect", "replicate", "circular"]
"""The values of padding: 0; the axis mirrored at its end positions; its end positions repeated; the axis repeated."""

MODES: tuple[str, ...] = get_args(Mode)


@entry_points("__init__", "parse", "over", "count", "least", "sizes", "output_padding", "same", "full", "covering")
@dataclass(frozen=True, repr=False)
class Window:
    """Windows along one axis: position i of window h' is position s*h' + d*i - p of the axis h (section 3.3).

    The number of windows is rounded down: positions at the end that do not fill a whole window are not read.

    Args:
        axis: The name of the axis, `h`.
        window: The name of the axis of windows, `h'`.
        place: The name of the axis of positions within a window, `i`.
        size: The number of positions of a window.
        stride: The distance from one window to the next, s.
        dilation: The distance between neighbouring positions of a window, d.
        before: The number of positions of padding before the axis, p.
        after: The number of positions of padding after the axis.
        mode: The values of the padding: "zeros", "reflect", "replicate" or "circular", as in nn.Conv2d.

    Raises:
        CircuitError: If a size, stride or dilation is less than 1, padding is negative, the mode is unknown, or the
            three names are not distinct.

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
        _check_fields(self)

    @classmethod
    def parse(cls, text: str, **numbers: int) -> Self:
        """Return the window that a text describes: `Window.parse("h -> h' i<3: 2*h' + i - 1 < h + 2, reflect")`.

        Args:
            text: The names of the axis, of its windows and of the positions in these; after `<`, the size of a window;
                after the colon, the position on the axis; after a second `<`, the end of the padded axis, by default
                with as much padding as before the axis; after a comma, the mode, by default zeros.
            **numbers: The value of each letter of the text that is not an axis. If the text does not state the size of
                a window, it is given here under the name of the position axis.

        Raises:
            SignatureError: If the text cannot be parsed or is not affine, or `numbers` are not those of its letters.
            CircuitError: As in the constructor.
        """
        return cls(**affine.parse(text, numbers))

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
        """Return one window for each of several axes; every number is given once for all axes, or once for each.

        Args:
            axes: The names of the axes, then of their windows, then of the positions in these, all in the same order:
                `"h w -> h' w' i j"`.
            size, stride, dilation: As in the constructor.
            padding: The number of positions of padding at both ends; for each axis it may be a pair (before, after).
            mode: The values of the padding of all axes.

        Raises:
            SignatureError: If `axes` is not of this form.
            CircuitError: If a sequence has another length than the number of axes, or as in the constructor.

        >>> Window.over("h w -> h' w' i j", 3, stride=(2, 1), padding=1)
        (Window.parse("h -> h' i<3: 2*h' + i - 1"), Window.parse("w -> w' j<3: w' + j - 1"))
        """
        names = _names(axes)
        count = len(names) // 3
        sizes, strides = per_axis(size, count, "sizes"), per_axis(stride, count, "strides")
        dilations = per_axis(dilation, count, "dilations")
        numbers = zip(sizes, strides, dilations, padding_pairs(padding, count), strict=True)
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
        """The text of the affine map, `2*h' + i - 1`."""
        first, second = affine.scaled(self.stride, self.window), affine.scaled(self.dilation, self.place)
        return f"{first} + {second}{affine.signed(-self.before)}"

    @property
    def reach(self) -> int:
        """The number of positions of the axis from the first of a window to its last, both included.

        >>> Window.parse("h -> h' i<3: h' + 2*i").reach
        5
        """
        return self.dilation * (self.size - 1) + 1

    def __str__(self) -> str:
        bound = "" if self.before == self.after else f" < {self.axis}{affine.signed(self.after)}"
        mode = "" if self.mode == "zeros" else f", {self.mode}"
        return f"{self.axis} -> {self.window} {self.place}<{self.size}: {self.map}{bound}{mode}"

    def __repr__(self) -> str:
        return f'Window.parse("{self}")'

    # Sizes

    def count(self, size: int) -> int:
        """Return the number of windows on an axis of this size, rounded down.

        Raises ShapeError if the padded axis is shorter than a window, or the axis is too short for its padding.
        """
        _check_fits(self, size)
        return (size + self.before + self.after - self.reach) // self.stride + 1

    def least(self, count: int) -> int:
        """Return the smallest size of an axis that has `count` windows; ShapeError if there is no such size.

        For every axis, `least(count(size)) + output_padding(size)` is `size`. The result is therefore negative if the
        padding alone has more positions than the windows need.

        >>> Window.parse("h -> h' i<3: 2*h' + i - 1").least(4)
        7
        """
        least = (count - 1) * self.stride + self.reach - self.before - self.after
        if count < 1 or least + self.stride <= 0:
            raise ShapeError(f"no size of {self.axis} gives {switch.show(count)} windows {self.window} of {self}")
        return least

    def sizes(self, count: int) -> range:
        """Return every size of an axis that has `count` windows: as many sizes as the stride, without those below 0.

        Raises ShapeError if there is no such size.
        """
        least = self.least(count)
        return range(max(least, 0), least + self.stride)

    def output_padding(self, size: int) -> int:
        """Return the `output_padding` with which a transposed convolution returns exactly this size.

        It is the number of positions at the end that no window reads. Raises ShapeError as `count` does.

        >>> window = Window.parse("h -> h' i<3: 2*h' + i - 1")
        >>> window.least(window.count(8)) + window.output_padding(8)
        8
        """
        _check_fits(self, size)
        return (size + self.before + self.after - self.reach) % self.stride

    def same(self) -> Self:
        """Return this window with the padding at which an axis has ceil(size/stride) windows: at stride 1, its size.

        If the total is odd, one position more is after the axis than before it, as in nn.Conv2d (`padding="same"`).

        >>> Window.parse("h -> h' i<4: h' + i").same()
        Window.parse("h -> h' i<4: h' + i - 1 < h + 2")
        """
        total = self.reach - 1
        return dataclasses.replace(self, before=total // 2, after=total - total // 2)

    def full(self) -> Self:
        """Return this window with padding `reach - 1` at both ends: all windows overlap the axis, as in numpy's "full".

        >>> Window.parse("h -> h' i<3: h' + i").full().count(5)
        7
        """
        return dataclasses.replace(self, before=self.reach - 1, after=self.reach - 1)

    def covering(self, size: int) -> Self:
        """Return this window with more padding after an axis of this size, so that the count is rounded up, not down.

        A last window that would begin in the padding after the axis is not added, as in torch's pooling with
        `ceil_mode=True`. Raises ShapeError as `count` does.

        >>> Window.parse("h -> h' i<3: 2*h' + i").covering(8).count(8)
        4
        """
        _check_fits(self, size)
        last = -(-(size + self.before + self.after - self.reach) // self.stride) * self.stride
        last = last - self.stride if last >= size + self.before else last
        needed = last + self.reach - size - self.before
        return dataclasses.replace(self, after=needed) if needed > self.after else self


@constant_when_compiled
def _names(axes: str) -> tuple[str, ...]:
    """Return the names in a text; torch.compile treats them as constants, so it does not trace the parser."""
    return affine.names(axes)


def _check_fields(window: Window) -> None:
    """Raise CircuitError for a number or a mode out of range, or names that are not distinct."""
    if window.size < 1 or window.stride < 1 or window.dilation < 1 or window.before < 0 or window.after < 0:
        least = {"size": 1, "stride": 1, "dilation": 1, "before": 0, "after": 0}
        for name, low in least.items():
            number = getattr(window, name)
            if number < low:
                field = f"the padding {name}" if low == 0 else f"the {name}"
                raise CircuitError(f"Window: {field} is {number}; it may be {low} or more")
    if window.mode not in MODES:
        raise CircuitError(f"Window: unknown mode {window.mode!r}; expected one of {', '.join(MODES)}")
    if window.axis == window.window or window.axis == window.place or window.window == window.place:
        names = f"{window.axis}, {window.window} and {window.place}"
        raise CircuitError(f"Window: the axis, its windows and their positions need different names, got {names}")


def _check_fits(window: Window, size: int) -> None:
    """Raise ShapeError if an axis is shorter than a window, or too short for the values that its padding copies."""
    if size + window.before + window.after < window.reach:
        show, least = switch.show, window.reach - window.before - window.after
        raise ShapeError(
            f"{window.axis} is {show(size)}, padded to {show(size + window.before + window.after)}; a window of size"
            f" {show(window.size)} and dilation {show(window.dilation)} spans {show(window.reach)} positions:"
            f" {window.axis} may be {show(least)} or more"
        )
    if window.mode == "zeros" or (window.before == 0 and window.after == 0):
        return
    padding = window.before if window.before > window.after else window.after
    least = 1 if window.mode == "replicate" else padding + (window.mode == "reflect")
    if size < least:
        raise ShapeError(
            f"{window.axis} is {switch.show(size)}, too short for {window.mode} padding of {padding}: it may be"
            f" {least} or more"
        )
