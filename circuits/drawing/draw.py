"""`draw`: the picture of a diagram, or of what `trace` takes, in the notation of neural circuit diagrams.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 8 to 28.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from circuits.algebra import LinearMap
from circuits.diagram import Diagram
from circuits.drawing.builder import scene_of
from circuits.drawing.drawing import Drawing
from circuits.drawing.ink.themes import colours
from circuits.drawing.known_names import check_names
from circuits.drawing.layout.picture import equation as both_sides
from circuits.drawing.layout.picture import picture_of
from circuits.drawing.marks import Picture
from circuits.drawing.networks import scene_of_map
from circuits.drawing.options import Options, names_of, pairs_of, shown_names_of, width_of
from circuits.drawing.scene import without_fence
from circuits.errors import CircuitError, entry_point
from circuits.recording import diagram_of


@entry_point
def draw(
    target: Any,
    /,
    *args: Any,
    depth: int | None = None,
    open: str | Sequence[str] = (),
    close: str | Sequence[str] = (),
    wires: Literal["axes", "tensors"] = "axes",
    order: str | Sequence[str] = "",
    pairs: str = "",
    hide: str | Sequence[str] = "",
    names: Mapping[str, str] | str = "",
    notes: Mapping[Any, Any] | None = None,
    show_sizes: bool = False,
    literal: bool = False,
    width: float | Literal["column", "page"] | None = None,
    theme: Literal["light", "dark", "print"] = "light",
    equation: bool = False,
    frame: bool = True,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Drawing:
    """Return the picture of a diagram, or of a circuit, module or function, which is traced first.

    The picture is computed from the diagram alone: the same diagram gives the same bytes on every machine.

    Args:
        target: A diagram, or what `trace` takes. A `LinearMap` alone is drawn as its network of tensors, which has no
            boxes and no frame; with arguments of `trace`, `equation`, `pairs`, `hide`, `notes`, `open`,
            `close` or `wires="tensors"` it is traced.
        *args: The positional arguments of `trace`, which a diagram does not take.
        depth: How many levels of boxes are open: 0 draws one closed box. By default the deepest level at which the
            picture stays readable.
        open: Names of circuits or modules (class, function, path) that are open at any depth.
        close: Names of those that are closed at any depth.
        wires: "axes" draws one wire an axis, as the paper does; "tensors" one wire a tensor, labelled by its axes.
        order: The axes of every tensor from top to bottom, `"y x m k h b"`; `...` stands for all others, which
            come last if it is not there. By default the order of the data. As in `pairs`, axes that are nowhere are
            passed over: one order serves many models.
        pairs: Pairs of axes that are one double wire with a bold label: `"h w"`, or with the label `"x = h w"`.
        hide: Axes that are not drawn; every operation has to leave them untouched.
        names: Names for inputs, `{"query": "Q"}` or `"query = Q"`, which stand at their wires. By default inputs that
            their axes do not tell apart have the names of the code.
        notes: A number or text for each box: `count(diagram).column("flops")`, or a mapping from the places of boxes or
            the paths of modules, with what it is as its entry "heading". A line under the picture says what they are.
            In brackets they are those of one repetition, or of each if they differ.
        show_sizes: Whether labels show sizes beside names, `k = 10`.
        literal: Whether operations that regroup axes are drawn by themselves, not as ports of the box beside them.
        width: The largest width of a row, in pixels, or "column" or "page"; 1200 by default.
        theme: The colours; they do not change the geometry.
        equation: Whether the picture begins with the closed box and `=`.
        frame: Whether the outermost box has its background and its title.
        sizes, axes: Those of `trace`.
        **kwargs: The keyword arguments of `trace`, those of the model included; for one of draw's own names, pass the
            diagram.

    Raises:
        CircuitError: An option is not one of those above, `open`, `close`, `hide` or `notes` has a name that nothing in
            the diagram has, `notes` are of another diagram, or a hidden axis is read; and as `trace` raises.
        Exception: As `trace` raises.

    >>> from torch import nn
    >>> from circuits import circuit, einsum, trace
    >>> draw(nn.Linear(4, 3), axes="b 4").svg[:4]
    '<svg'
    >>> @circuit("y k, x k -> y x")
    ... def score(query, key):
    ...     return einsum(query, key, "y k, x k -> y x").softmax(-1)
    >>> print(draw(score, order="y x k", frame=False).text(), end="")
      ȳ                                ȳ
     ─────────────────────────────────────
      k
     ─────────────────────╮
    ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌  │
      x̄                   │
     ────────╮ ╭──────────╯
      k       ╳             x̄          x̄
     ────────╯ ╰────────────────◁─────────
    >>> image = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), axes="b 3 h w")
    >>> print(draw(image, wires="tensors", hide="b", frame=False).text(), end="")
                             ▸ R ▸
     3 h w     ┌────┐ 8 h w           8 h w
    ───────────┤★ 3 ├────────────────────────
               └────┘
    >>> print(draw(image, pairs="x = h w", depth=0, width="column").text(), end="")
         ┌─────────────┐
     b   ├───────────╮╱│ b
    ─────┤           │ ├─────
     3   │           │ │ 8
    ─────┤Sequential │ ├─────
     x̄   │           │ │ x̄
    ═════╡           │ ╞═════
         └───────────┴─┘
    >>> draw(image, close="Conv2D")
    Traceback (most recent call last):
    circuits.errors.CircuitError: draw: close: no circuit or module is called 'Conv2D'; perhaps Conv2d
    """
    options = _options(depth, open, close, wires, order, pairs, hide, show_sizes, literal, width, names)
    options = replace(options, notes=notes)
    colours(theme)
    asks_of_trace = args or kwargs or sizes is not None or axes is not None
    asks_of_boxes = equation or open or close or pairs or hide or wires == "tensors" or notes is not None
    if isinstance(target, LinearMap) and not (asks_of_trace or asks_of_boxes):
        if options.names:
            raise CircuitError("draw: the wires of a linear map have the names of its axes: it takes no names")
        return Drawing(picture_of(scene_of_map(target, options), options), theme)
    diagram = diagram_of("draw", target, args, kwargs, sizes, axes)
    return Drawing(_picture(diagram, options, equation, frame), theme)


def _picture(diagram: Diagram, options: Options, equation: bool, frame: bool) -> Picture:
    """Return the picture of a diagram, after its closed box and `=` if it is to be an equation."""
    check_names(diagram, options)
    scene = scene_of(diagram, options)
    if not equation:
        return picture_of(scene if frame else without_fence(scene), options)
    closed = picture_of(replace(scene_of(diagram, replace(options, depth=0)), notes=()), options)
    return both_sides(closed, picture_of(without_fence(scene), options))


def _options(
    depth: int | None,
    opened: str | Sequence[str],
    closed: str | Sequence[str],
    wires: str,
    order: str | Sequence[str],
    pairs: str,
    hide: str | Sequence[str],
    show_sizes: bool,
    literal: bool,
    width: float | str | None,
    names: Mapping[str, str] | str,
) -> Options:
    """Return the options, checked."""
    if wires not in ("axes", "tensors"):
        raise CircuitError(f"draw: wires has to be 'axes' or 'tensors', not {wires!r}")
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise CircuitError(f"draw: depth has to be a number from 0 on, or None for the readable one, not {depth!r}")
    return Options(
        depth,
        names_of("open", opened),
        names_of("close", closed),
        "tensors" if wires == "tensors" else "axes",
        names_of("order", order),
        pairs_of(pairs),
        names_of("hide", hide),
        show_sizes,
        literal,
        width_of(width),
        shown_names_of(names),
    )


__all__ = ["draw"]
