"""The best group sizes as formulas, and the exponent of the fast memory.

Moving is a sum of terms `c / (g_a g_b …)`, one for the grouped axes that a tensor lacks. The fast memory is a
polynomial in group and block sizes. With blocks that are small beside groups, the least is found by geometric
programming: one group axis directly, several if one monomial of the memory is a multiple of all others, which is then
compared with M alone. The latter needs less than the schedule does, so the formula is never above what any tiling
moves.

Source: arXiv 2412.03317; R. Duffin, E. Peterson and C. Zener, Geometric Programming, 1967, for the
weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import sympy

Terms = Mapping[frozenset[Any], Any]
"""The coefficient of the quotient by each product of group sizes; that of the empty set does not depend on them."""


@dataclass(frozen=True)
class Optimum:
    """The least that is moved, as formulas in M.

    Attributes:
        moved: The number of elements; None if there is no closed form.
        groups: The group sizes.
    """

    moved: Any
    groups: Mapping[Any, Any]


def best(terms: Terms, columns: Sequence[Any], groups: Sequence[Any], memory: Any) -> Optimum:
    """Return the best group sizes.

    Args:
        terms: What is moved.
        columns: The fast memory at each operation, without the blocks of streamed axes.
        groups: The symbols of the group sizes.
        memory: The elements of fast memory.
    """
    varying = {used: coefficient for used, coefficient in terms.items() if used}
    fixed = terms.get(frozenset(), sympy.Integer(0))
    used = [group for group in groups if any(group in each for each in varying)]
    ones = {group: sympy.Integer(1) for group in groups if group not in used}
    if not used:
        return Optimum(fixed, ones)
    rooms = [sympy.Poly(sympy.expand(sympy.sympify(each).subs(ones)), *used) for each in columns]
    if len(used) == 1:
        found = _one(rooms, memory)
    else:
        found = _several(varying, rooms, used, memory)
    if found is None:
        return Optimum(None, {})
    sizes = {**ones, **dict(zip(used, found, strict=True))}
    least = sympy.Add(*[c / sympy.Mul(*[sizes[group] for group in each]) for each, c in varying.items()])
    return Optimum(_shortened(fixed) + _shortened(least), {group: _shortened(sizes[group]) for group in groups})


def _shortened(expression: Any) -> Any:
    return sympy.powsimp(sympy.factor_terms(sympy.powdenest(sympy.sympify(expression))))


def _one(rooms: Sequence[sympy.Poly], memory: Any) -> list[Any] | None:
    """Return the largest size of one group: the memory is linear in it."""
    limits = [(memory - each.nth(0)) / each.nth(1) for each in rooms if each.nth(1) != 0]
    return [sympy.Min(*dict.fromkeys([sympy.cancel(each) for each in limits]))] if limits else None


def _several(terms: Terms, rooms: Sequence[sympy.Poly], used: Sequence[Any], memory: Any) -> list[Any] | None:
    """Return the sizes of several groups by the weights of the terms; None if these do not determine them."""
    monomials = [term for each in rooms for term in each.terms()]
    largest = [term for term in monomials if all(_covers(term[0], other) for other, _ in monomials)]
    if not largest:
        return None
    powers, room = largest[0][0], sympy.Max(*[coefficient for _, coefficient in largest])
    if len(terms) == 1 and next(iter(terms)) == frozenset(used) and {*powers} == {1}:
        return [memory / room, *[sympy.Integer(1)] * (len(used) - 1)]
    if len(terms) != len(used):
        return None
    return _by_weights(terms, powers, room, used, memory)


def _covers(powers: Sequence[int], others: Sequence[int]) -> bool:
    return all(here >= there for here, there in zip(powers, others, strict=True))


def _by_weights(terms: Terms, powers: Sequence[int], room: Any, used: Sequence[Any], memory: Any) -> list[Any] | None:
    """Return the sizes at which each term has its weight of the sum."""
    rows = sympy.Matrix([[int(group in each) for group in used] for each in terms])
    if rows.det() == 0:
        return None
    weights = rows.T.LUsolve(sympy.Matrix(powers))  # of each term, for a multiplier of 1
    if any(weight <= 0 for weight in weights):
        return None
    exponent = 1 / sum(weights)
    shares = [weight * exponent for weight in weights]
    scaled = [c / share for c, share in zip(terms.values(), shares, strict=True)]
    total = sympy.Mul(*[each**share for each, share in zip(scaled, shares, strict=True)]) * (room / memory) ** exponent
    inverse = rows.inv()
    ratios = [each / total for each in scaled]
    return [sympy.Mul(*[ratio ** inverse[at, row] for row, ratio in enumerate(ratios)]) for at in range(len(used))]


def exponent_of(terms: Terms, columns: Sequence[Any], groups: Sequence[Any]) -> Any:
    """Return the power of M by which the moved elements that depend on it fall; 0 if none do.

    Of group sizes `M ** t` with t ≥ 0 that keep every monomial of the memory within M, those for which the slowest term
    falls fastest: a small linear program, solved at its corners.
    """
    varying = [each for each in terms if each]
    used = [group for group in groups if any(group in each for each in varying)]
    if not used:
        return sympy.Integer(0)
    rooms = [sympy.Poly(sympy.sympify(each).subs({g: 1 for g in groups if g not in used}), *used) for each in columns]
    rows = [([*powers, 0], 1) for powers in dict.fromkeys([powers for each in rooms for powers, _ in each.terms()])]
    rows += [([-int(group in each) for group in used] + [1], 0) for each in varying]
    rows += [([-int(at == place) for at in range(len(used))] + [0], 0) for place in range(len(used))]
    corners = [_corner(rows, chosen) for chosen in combinations(range(len(rows)), len(used) + 1)]
    return max([corner for corner in corners if corner is not None])


def _corner(rows: Sequence[tuple[list[int], int]], chosen: Sequence[int]) -> Any:
    """Return the last unknown where these rows hold with equality; None if another row does not hold there."""
    matrix = sympy.Matrix([rows[at][0] for at in chosen])
    if matrix.det() == 0:
        return None
    point = matrix.LUsolve(sympy.Matrix([rows[at][1] for at in chosen]))
    holds = all(sum(a * x for a, x in zip(row, point, strict=True)) <= limit for row, limit in rows)
    return point[len(point) - 1] if holds else None
