"""Laws: property-based tests of a circuit, most of which follow from its signature.

Each law makes random inputs whose axes have distinct primes as sizes, calls a copy of the circuit, and compares the
results with an independent, slower computation. If the law does not hold, AssertionError is raised with a small
counterexample, in which indexes are written with the names of their axes. To make it small, sizes that neither the
caller nor the circuit fixes are reduced while the same error occurs (except in `compiles`, which is slow). If the law
says nothing about the circuit, `DoesNotApply` is raised. `suite` makes one test for each law.

Every law takes these arguments:
    f: A circuit: a decorated function, a module, or a method of a module.
    sizes: Sizes of axes by name, `{"x": 5, "...": (2, 3)}`; the law chooses the sizes of the other axes.
    inputs: How the values of inputs are made, by name, `{"tokens": range(65), "mask": torch.bool}`: a range of
        integers, a dtype, a function of the shape that returns a tensor, or None for an optional tensor that is never
        passed.
    seed: The seed of all random numbers.
    arguments: Further keyword arguments, which are passed to every call of the circuit.

Start with the modules `subject` (the copy of the circuit), `sizes` and `inputs` (the sizes and inputs of a call) and
`comparison` (comparison of tensors, and the message); `counterexample` reduces the sizes; each other file has one law
or a few.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.3 and 2.4: the meaning of lifting, linearity and
dashed lines.
"""

from circuits.laws.backward_circuit import backward_rule
from circuits.laws.dependence import causal, independent
from circuits.laws.derivatives import gradcheck
from circuits.laws.equality import compiles, equals
from circuits.laws.equivariance import equivariant, shifting
from circuits.laws.kernels import kernel
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
