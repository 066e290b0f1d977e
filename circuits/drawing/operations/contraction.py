"""Drawing rules of contractions and learned maps: cups, dots of diagonals, and the letter 𝐋 (Figures 17, 20 and 21)."""

import re
from collections.abc import Sequence
from itertools import count

from circuits.diagram import Value
from circuits.drawing.marks import Span
from circuits.drawing.operations.reading import LEARNED, Drawn, Reading, as_box, passing, rule
from circuits.drawing.scene import Link, Port

Terms = list[list[str]]
"""The name of each axis of each tensor: equal names are contracted or joined."""

_NUMBERED = re.compile(r"\d+")


def letter(name: str, bias: bool) -> tuple[Span, ...]:
    """Return the bold L of a learned map, with the name of its module above and a plus below if it has a bias.

    >>> "".join(span.text for span in letter("Lq", True))
    'Lq+'
    """
    last = name.rpartition(".")[2]
    usual = _NUMBERED.fullmatch(last) or last in ("linear", "conv", "weight")
    shown = last[1:] if re.fullmatch(r"[A-Z][a-z0-9]", last) else "" if usual else last
    above = (Span(shown, "italic", "sup"),) if shown else ()
    return (Span("L", "bold"), *above, *((Span("+", "upright", "sub"),) if bias else ()))


@rule("linear")
def linear(reading: Reading) -> Drawn | None:
    """The last axis enters the letter 𝐋, and the new one leaves it; the other axes pass."""
    weight, bias = reading.value(1, "weight"), reading.value(2, "bias")
    if len(reading.data) != 1 or weight is None or weight.role not in LEARNED or not reading.data[0].sizes:
        return None
    value, out = reading.data[0], reading.box.outputs[0]
    last = len(value.sizes) - 1
    made = tuple([(0, axis) for axis in range(last, len(out.sizes))])
    glyph = Link("glyph", ((0, last),), made, "letter", letter(reading.name or _owner(weight), bias is not None))
    return Drawn((value,), (out,), (*passing([((0, axis), (0, axis)) for axis in range(last)]), glyph))


def _owner(weight: Value) -> str:
    """Return the last part of the path of the module that owns a parameter; that of `in_proj_weight` is `in_proj`."""
    path, _, last = weight.name.rpartition(".")
    bare = re.sub(r"_?(weight|kernel)$", "", last)
    return bare or path.rpartition(".")[2]


@rule("addmm")
def added_product(reading: Reading) -> Drawn | None:
    """A bias plus a product with a weight is a learned map (as in GPT-2); anything else is a box."""
    bias, left, weight = (reading.value(place, name) for place, name in enumerate(("input", "mat1", "mat2")))
    if bias is None or left is None or weight is None or weight.role not in LEARNED or bias.role not in LEARNED:
        return None
    if left.role in LEARNED or len(left.sizes) != 2:
        return None
    glyph = Link("glyph", ((0, 1),), ((0, 1),), "letter", letter(reading.name or _owner(weight), True))
    return Drawn((left,), reading.box.outputs, (*passing([((0, 0), (0, 0))]), glyph))


@rule("einsum")
def einsum(reading: Reading) -> Drawn | None:
    """Contracted wires meet in a cup, shared ones in a dot; `...` stands for leading axes, which join as they do."""
    args = reading.operation.args
    patterns = [arg for arg in args if isinstance(arg, str)]
    if len(patterns) != 1 or "->" not in patterns[0]:
        return None
    left, right = patterns[0].split("->")
    spaced = patterns[0] is not args[0] or " " in patterns[0].strip()
    sides = [_names(text, spaced) for text in (*left.split(","), right)]
    values = (*reading.tensors, reading.box.outputs[0])
    if len(sides) != len(values):
        return None
    terms = [_expanded(names, len(value.sizes)) for names, value in zip(sides, values, strict=True)]
    if any(len(names) != len(value.sizes) for names, value in zip(terms, values, strict=True)):
        return None
    return contraction(reading, reading.tensors, terms[:-1], terms[-1])


def _names(text: str, spaced: bool) -> list[str]:
    """Return the axes of one tensor of a pattern: words, or letters in the notation of torch.einsum."""
    words = text.replace("...", " ... ").split()
    return words if spaced else [part for word in words for part in ([word] if word == "..." else list(word))]


def _expanded(names: list[str], rank: int) -> list[str]:
    """Replace `...` by names of the leading axes, counted from the right: so they are aligned as in broadcasting."""
    if "..." not in names:
        return names
    place = names.index("...")
    extra = max(rank - len(names) + 1, 0)
    return [*names[:place], *[f"...{extra - 1 - number}" for number in range(extra)], *names[place + 1 :]]


@rule("matmul bmm mm rmatmul mv dot inner outer ger vdot")
def matmul(reading: Reading) -> Drawn | None:
    """A product of matrices as a contraction of the last axis of the first with the one before last of the second."""
    tensors, out = reading.tensors, reading.box.outputs[0]
    if len(tensors) != 2:
        return None
    name = reading.function_name
    first, second = tensors if name != "rmatmul" else tensors[::-1]
    fresh = (f"_{number}" for number in count())
    lead = [f"...{number}" for number in range(max(len(first.sizes), len(second.sizes)))]
    if name in ("outer", "ger"):
        left, right = ["y"], ["x"]
    elif name == "inner":
        left = [*[next(fresh) for _ in first.sizes[1:]], "k"]
        right = [*[next(fresh) for _ in second.sizes[1:]], "k"]
    else:
        left = _matrix(len(first.sizes), ["y", "k"], lead)
        right = _matrix(len(second.sizes), ["k", "x"], lead)
    if not left or not right:
        return None
    shared = [each for each in (left if len(left) >= len(right) else right) if each.startswith("...")]
    result = [*shared, *[each for each in (*left, *right) if not each.startswith("...") and each != "k"]]
    if len(result) != len(out.sizes):
        return None
    terms = [left, right] if name != "rmatmul" else [right, left]
    return contraction(reading, tensors, terms, result)


def _matrix(rank: int, last: list[str], lead: list[str]) -> list[str]:
    """Return the names of the axes of an operand: a vector has only the contracted one."""
    return ["k"] * rank if rank < 2 else [*reversed(lead[: rank - 2]), *last]


def contraction(reading: Reading, tensors: Sequence[Value], terms: Terms, result: list[str]) -> Drawn | None:
    """Return the drawing of a contraction: a learned map if all but one tensor are learned, else cups and dots.

    Args:
        reading: The operation.
        tensors: Its tensors.
        terms: The names of the axes of each.
        result: Those of the result.
    """
    learned = [place for place, value in enumerate(tensors) if value.role in LEARNED]
    if len(tensors) == 2 and len(learned) == 1 and tensors[learned[0]].role == "parameter":
        return _learned_map(reading, tensors, terms, result, learned[0])
    used: dict[str, list[Port]] = {}
    for place, names in enumerate(terms):
        for axis, name in enumerate(names):
            used.setdefault(name, []).append((place, axis))
    links = []
    for name, ins in used.items():
        if name in result:
            links.append(Link("join" if len(ins) > 1 else "pass", tuple(ins), ((0, result.index(name)),)))
        elif len(ins) == 2:
            links.append(Link("cup", tuple(ins)))
        else:
            links.append(Link("end", tuple(ins), text=(Span("Σ", "upright"),)))
    links += [Link("end", ((place, -1),)) for place, names in enumerate(terms) if not names]
    if not result:
        links.append(Link("start", (), ((0, -1),)))
    return Drawn(tuple(tensors), reading.box.outputs, tuple(links))


def _learned_map(
    reading: Reading, tensors: Sequence[Value], terms: Terms, result: list[str], learned: int
) -> Drawn | None:
    """Return a contraction with a parameter: the axes that the parameter has enter and leave the letter 𝐋."""
    data = 1 - learned
    weight, names = set(terms[learned]), terms[data]
    if len(set(names)) != len(names) or not set(names) - weight <= set(result):
        return None
    ins = tuple([(0, axis) for axis, name in enumerate(names) if name in weight])
    outs = tuple([(0, axis) for axis, name in enumerate(result) if name in weight])
    links = passing([((0, names.index(name)), (0, axis)) for axis, name in enumerate(result) if name not in weight])
    if not ins and not outs:
        return None
    parameter = tensors[learned]
    glyph = Link("glyph", ins, outs, "letter", letter(_owner(parameter), False))
    return Drawn((tensors[data],), reading.box.outputs, (*links, glyph))


@rule("scaled_dot_product_attention")
def attention(reading: Reading) -> Drawn | None:
    """The leading axes of queries, keys and values join; a box takes all others but the positions of the queries.

    With a causal mask it takes these too: which keys a query sees depends on its position.
    """
    tensors, out = reading.tensors, reading.box.outputs[0]
    rank = len(out.sizes)
    lead = [value.sizes[:-2] for value in (*tensors, out)]
    if len(tensors) != 3 or rank < 2 or any(sizes != lead[0] for sizes in lead):
        return None
    links = [Link("join", ((0, axis), (1, axis), (2, axis)), ((0, axis),)) for axis in range(rank - 2)]
    causal = bool(reading.get(5, "is_causal", False))
    queries = (0, rank - 2)
    links += [] if causal else [Link("pass", (queries,), (queries,))]
    taken = ((0, rank - 1), (1, rank - 2), (1, rank - 1), (2, rank - 2), (2, rank - 1))
    text = (Span("causal attention" if causal else "attention", "sans"),)
    before, after = ((queries, *taken), (queries, (0, rank - 1))) if causal else (taken, ((0, rank - 1),))
    links.append(Link("glyph", before, after, "box", text))
    return Drawn(tensors, (out,), tuple(links))


@rule("embedding")
def embedding(reading: Reading) -> Drawn | None:
    """The numbers of the tokens enter a box, and their vectors leave it."""
    indices = reading.value(0, "input")
    return None if indices is None else as_box((indices,), reading.box.outputs, "Embedding")


__all__ = ["contraction", "letter"]
