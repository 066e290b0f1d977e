"""Drawing rules of elementwise operations: a name between two arrow heads, and dots where several tensors join."""

from typing import Any

from circuits.diagram import Wire
from circuits.drawing.marks import Span
from circuits.drawing.operations.reading import (
    SCALAR,
    Drawn,
    Reading,
    passing,
    ports,
    rule,
)
from circuits.drawing.scene import Link, Port

_SIGNS = """
add:+ sub:− mul:× truediv:÷ div:÷ true_divide:÷ subtract:− multiply:× divide:÷
eq:= ne:≠ lt:< le:≤ gt:> ge:≥ pow:^ and:∧ or:∨
"""
SIGNS: dict[str, str] = {name: sign for name, _, sign in (pair.partition(":") for pair in _SIGNS.split())}
"""The sign of an operation on two tensors, which stands above the dots at which their wires join."""

_UNARY = (
    "abs neg pos invert round floor ceil trunc negative positive exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square"
    " reciprocal sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid expit logit erf erfc erfinv sign"
    " sgn frac relu relu6 gelu silu mish elu selu celu leaky_relu rrelu softplus softsign hardtanh hardsigmoid"
    " hardswish logsigmoid tanhshrink softshrink hardshrink threshold logical_not bitwise_not isnan isinf isfinite"
    " nan_to_num digamma lgamma sinc i0 deg2rad rad2deg dropout alpha_dropout feature_alpha_dropout dropout1d dropout2d"
    " dropout3d feature_dropout native_dropout bernoulli clone detach contiguous to type type_as float double half"
    " bfloat16 int long short bool byte char cpu cuda alias zeros_like ones_like full_like empty_like rand_like"
    " randn_like randint_like conj resolve_conj resolve_neg real imag angle requires_grad fill zero normal uniform data"
)
_SEVERAL = (
    "add sub mul div truediv floordiv mod pow eq ne lt le gt ge and or xor radd rsub rmul rtruediv rpow rdiv"
    " floor_divide true_divide remainder fmod float_power maximum minimum fmax fmin subtract multiply divide greater"
    " greater_equal less less_equal not_equal logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor"
    " atan2 arctan2 hypot where masked_fill lerp addcmul addcdiv clamp clip clamp_min clamp_max copysign heaviside"
    " logaddexp logaddexp2 xlogy isclose nextafter iadd isub imul itruediv prelu"
)
_SHORT = {"relu": "R", "greater": "gt", "less": "lt"}


@rule(_UNARY)
def unary(reading: Reading) -> Drawn | None:
    """Every wire goes straight on; the name of the function stands above them (Figures 12 and 19)."""
    tensors, outputs = reading.tensors, reading.box.outputs
    if not tensors or len(outputs) != 1 or len(tensors[0].sizes) != len(outputs[0].sizes):
        return None
    if tensors[0].sizes != outputs[0].sizes or len(reading.data) > 1:
        return None
    value = tensors[0]
    links = passing([(port, port) for port in ports(0, value)])
    return Drawn((value,), (outputs[0],), tuple(links), above=name_spans(reading))


@rule(_SEVERAL)
def several(reading: Reading) -> Drawn | None:
    """Tensors join at a dot on each wire, aligned at the right as torch broadcasts them, with the sign above."""
    tensors, outputs = reading.tensors, reading.box.outputs
    if not tensors or len(outputs) != 1:
        return None
    out = outputs[0]
    if max(len(value.sizes) for value in tensors) != len(out.sizes):
        return None
    above = name_spans(reading)
    if len(tensors) == 1:
        links = passing([(port, port) for port in ports(0, out)])
        return Drawn((tensors[0],), (out,), tuple(links), above=above)
    links = tuple(joins([len(value.sizes) for value in tensors], len(out.sizes)))
    plain = len(tensors) == 2 and not _numbers(reading)
    plain = plain and not any(_changes(word, value) for word, value in reading.operation.kwargs.items())
    sign = SIGNS.get(_base(reading.function_name), "") if plain else ""
    return Drawn(tensors, (out,), links, above=() if sign else above, sign=sign)


def _base(name: str) -> str:
    """Return the name of an operator without the letter that says that it is in-place."""
    return name[1:] if name.startswith("i") and name[1:] in SIGNS else name


def joins(ranks: list[int], rank: int) -> list[Link]:
    """Return the links of tensors that are broadcast: one for each axis of the result, from those aligned with it.

    Args:
        ranks: The number of axes of each tensor.
        rank: That of the result.
    """
    found = []
    for axis in range(rank) if rank else [SCALAR]:
        places = [axis - rank + count if rank else SCALAR for count in ranks]
        ins: list[Port] = [(tensor, place) for tensor, place in enumerate(places) if place >= 0 or not rank]
        ins += [(tensor, SCALAR) for tensor, count in enumerate(ranks) if count == 0 and axis == 0]
        found.append(Link("join" if len(ins) > 1 else "pass", tuple(ins), ((0, axis),)))
    return found


def name_spans(reading: Reading) -> tuple[Span, ...]:
    """Return the text between the arrow heads: `R` for relu, `× 0.5` for a product with a number, or the name.

    A number that is the first operand of −, ÷ or ^ stands before the sign: `1 −`.
    """
    name = reading.function_name
    changed = [f"{word} = {value}" for word, value in reading.operation.kwargs.items() if _changes(word, value)]
    if changed:
        return (Span(f"{name} {', '.join(changed)}", "sans"),)
    reflected = name.startswith("r") and name[1:] in SIGNS
    sign = SIGNS.get(name[1:] if reflected else _base(name))
    numbers = _numbers(reading)
    if sign is None or len(numbers) != 1:
        return (Span(_SHORT.get(name, name), "italic" if _SHORT.get(name) == "R" else "sans"),)
    first = reflected or not isinstance(reading.operation.args[0], Wire)
    if first and sign not in "+×=≠":
        return (*reading.spans(numbers[0]), Span(f" {sign}", "upright"))
    return (Span(f"{sign} ", "upright"), *reading.spans(numbers[0]))


def _changes(word: str, value: Any) -> bool:
    """Return whether an argument changes what an operator computes: `alpha=2`, `rounding_mode="floor"`."""
    return (word == "alpha" and value != 1) or (word == "rounding_mode" and value is not None)


def _numbers(reading: Reading) -> list[Any]:
    """Return the arguments that are numbers, without those that only say how (`alpha=1`)."""
    return [arg for arg in reading.operation.args if not isinstance(arg, Wire | bool | str | None) and _is_number(arg)]


def _is_number(arg: Any) -> bool:
    return isinstance(arg, int | float | complex) or hasattr(arg, "expression")


__all__ = ["SIGNS", "joins", "name_spans"]
