"""laws: what a diagram promises, as checks that anyone runs on a circuit of theirs, from its signature alone.

Each law copies the circuit, makes random inputs whose axes are distinct primes, and compares with a slow independent
form. What does not hold is an AssertionError whose message is a small counterexample in the names of the axes: sizes
that nobody fixed are made smaller while the same is wrong (but for `compiles`, which takes its time). What a law cannot
speak of is `DoesNotApply`. `suite` makes one pytest test of them all.

All take `sizes={"x": 5, "...": (2, 3)}`, `inputs={"tokens": range(65), "mask": torch.bool}` (or a function of the
shape, or None for an optional tensor that is not to be given) and `seed`; other arguments go to the circuit.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.3 and 2.4: what lifting, linearity and dashed lines
mean.
"""

from circuits.laws.backward_circuit import backward_rule
from circuits.laws.dependence import causal, independent
from circuits.laws.equality import compiles, equals, gradcheck, kernel
from circuits.laws.equivariance import equivariant, shifting
from circuits.laws.linearity import linear, multilinear
from circuits.laws.output_shapes import broadcasting, shapes
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
