"""Laws: property-based tests of a circuit that follow from its signature.

Each law makes random inputs whose sizes are distinct primes, runs a copy of the circuit, and compares the results with
an independent slower computation. If the law does not hold, it raises AssertionError with a small counterexample in
the names of the axes: sizes that neither the caller nor the circuit fixes are reduced while the same error remains
(except in `compiles`, which is slow). If it says nothing about the circuit, it raises `DoesNotApply`. `suite` makes one
pytest test of all laws.

Every law takes these arguments:
    f: A circuit: a decorated function, a module, or a method of a module.
    sizes: Sizes of axes by name, `{"x": 5, "...": (2, 3)}`; the others are chosen.
    inputs: The values of inputs by name, `{"tokens": range(65), "mask": torch.bool}`: a range of integers, a dtype, a
        function of the shape that returns a tensor, or None for an optional tensor that is never passed.
    seed: The seed of all random numbers.
    arguments: All other keyword arguments are passed to every call of the circuit.

Start reading with `subject` (the copy, its sizes in `sizes` and its inputs in `inputs`) and `comparison` (comparing,
and the message); `counterexample` reduces the sizes; each other file has one law or a few.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.3 and 2.4: the meaning of lifting, linearity and
dashed lines.
"""

from circuits.laws.backward_circuit import backward_rule
from circuits.laws.dependence import causal, independent
from circuits.laws.derivatives import gradcheck
from circuits.laws.equality import compiles, equals, kernel
from circuits.laws.equivariance import equivariant, shifting
from circuits.laws.lifting import broadcasting
from circuits.laws.linearity import linear, multilinear
from circuits.laws.output_shapes import shapes
from circuits.laws.subject import DoesNotApply
from circuits.laws.suites import suite

__all__ = [
    "DoesNotApply",
    "backward_rule",
    "broadcasting",
    "causal",
    "compiles",
    "equals",
    "equivariant",
    "gradcheck",
    "independent",
    "kernel",
    "linear",
    "multilinear",
    "shapes",
    "shifting",
    "suite",
]
