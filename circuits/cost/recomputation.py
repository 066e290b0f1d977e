"""`Recomputation`: what the reverse pass recomputes, and what that saves and costs, as frozen data."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from circuits.diagram import Box


@dataclass(frozen=True)
class Recomputed:
    """One box of the forward pass that the reverse pass runs again.

    Attributes:
        box: The box.
        path: The path of the module, or the name of the circuit or function, that is around it.
        freed: The bytes of its results that would be saved if nothing were recomputed.
        flops: The FLOPs of running it again.
        elementwise: The elements of running it again, as `count` has them.
    """

    box: Box = field(repr=False)
    path: str
    freed: int
    flops: int
    elementwise: int


@dataclass(frozen=True)
class Recomputation:
    """What `fit` chose: it iterates over boxes, for `recompute=` of `forward_backward`, and prints as a table.

    Attributes:
        name: The name of the circuit.
        budget: The bytes that may be saved.
        bytes: The bytes that are saved for backward.
        bytes_before: The bytes that would be saved if nothing were recomputed.
        flops: The extra FLOPs of the reverse pass.
        elementwise: The extra elements of its pointwise operations and reductions.
        forward_flops: The FLOPs of the forward pass.
        bound: FLOPs that every choice within the budget takes; equal to `flops` if that is proved to be the least.
        rows: What is recomputed, in the order of the run.
        unsaved: Boxes whose results are neither saved nor recomputed, although a rule could use them.
        unknown: The operations that are not recomputed because no formula has their FLOPs.
    """

    name: str
    budget: int
    bytes: int
    bytes_before: int
    flops: int
    elementwise: int
    forward_flops: int
    bound: int
    rows: tuple[Recomputed, ...]
    unsaved: tuple[Box, ...] = field(default=(), repr=False)
    unknown: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Box]:
        yield from [row.box for row in self.rows]
        yield from self.unsaved

    def __len__(self) -> int:
        return len(self.rows) + len(self.unsaved)

    @property
    def is_least(self) -> bool:
        """Whether no other choice within the budget takes fewer FLOPs."""
        return self.flops == self.bound

    def __str__(self) -> str:
        head = [
            f"{self.name}: {self.bytes:,} of {self.bytes_before:,} bytes are saved, of at most {self.budget:,}",
            f"recomputed: {self._flops_text()}, {self.elementwise:,} elements",
        ]
        instead = self.bytes - self.bytes_before + sum([row.freed for row in self.rows])
        if instead:
            head[0] += f"; {instead:,} of them only to recompute from"
        if self.unknown:
            head.append(f"saved, since no formula has their FLOPs: {', '.join(self.unknown)}")
        groups: dict[tuple[str, str, str], list[Recomputed]] = {}
        for row in self.rows:
            shape = ", ".join([value.shape for value in row.box.outputs])
            groups.setdefault((row.path, row.box.label, shape), []).append(row)
        cells = [
            (
                path, f"{len(rows)} × {label}" if len(rows) > 1 else label, shape,
                *[f"{sum([getattr(row, name) for row in rows]):,}" for name in ("freed", "flops", "elementwise")],
            )
            for (path, label, shape), rows in groups.items()
        ]  # fmt: skip
        heading = ("in", "recomputed", "sizes", "bytes freed", "FLOPs", "elements")
        return "\n".join([*head, *(_aligned([heading, *cells]) if cells else [])])

    def _flops_text(self) -> str:
        share = f" ({100 * self.flops / self.forward_flops:.3g}% of the forward pass)" if self.forward_flops else ""
        if self.is_least:
            return f"{self.flops:,} FLOPs{share}, the least possible"
        above = f"at most {100 * (self.flops / self.bound - 1):.2g}% above" if self.bound else "not proved to be"
        return f"{self.flops:,} FLOPs{share}, {above} the least possible"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows of text as lines: the first three columns flush left, numbers flush right."""
    widths = [max([len(row[place]) for row in rows]) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join(
            [f"{cell:<{width}}" if place < 3 else f"{cell:>{width}}"
             for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
        ).rstrip()
        for row in rows
    ]  # fmt: skip


__all__ = ["Recomputation", "Recomputed"]
