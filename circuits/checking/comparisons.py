"""Write the comparisons of a signature as lines of Python.

Conditions that refuse a call are collected into one `if`. If a size has to be computed first (a group, arithmetic),
the `if` is split in two, and the assignment is between them. Each size is bound once, and tensors with the same axes
are compared by their whole shapes.
"""

from circuits.checking.axes import has_rest
from circuits.checking.check_writer import CheckWriter
from circuits.checking.declaration import Circuit, Slot
from circuits.checking.expressions import Expression
from circuits.checking.size_comparisons import SizeComparisons
from circuits.signature import Axis, Number, Rest, Term


class Comparisons:
    """Writes the check of one circuit's inputs and the check of its outputs.

    Besides the parameters and the variables that they define, the lines refer to `miscounted`, `broadcasts`, `leaves`,
    `Tensor`, `numbers`, `ints` and `dtypes`, each with the prefix, and to `len`, `isinstance` and `getattr`; and the
    lines that the caller sets as `writer.complete` are run when the quick check refuses the call.
    """

    def __init__(self, circuit: Circuit, prefix: str) -> None:
        self.circuit = circuit
        self.prefix = prefix
        self.writer: CheckWriter = CheckWriter(circuit, prefix)
        self.len: str = self.writer.builtin("len")
        self.isinstance: str = self.writer.builtin("isinstance")
        self.sizes: SizeComparisons = SizeComparisons(self.writer, circuit.multiples)
        self.rest = ""
        self.refuses_traced = False
        self.shapes: dict[tuple[Term, ...], str] = {}

    def input_lines(self) -> list[str]:
        """Return the comparisons of the inputs and the optional tensors."""
        self._count()
        self._fixed()
        self._tensors([(slot, slot.name) for slot in self.circuit.slots if slot.role == "input"])
        self.sizes.solve_all()
        optional = [slot for slot in self.circuit.slots if slot.role == "optional"]
        for name in dict.fromkeys(name for slot in optional for term in slot.axes for name in term.names):
            if name not in self.sizes.known:
                self.sizes.optional[name] = self.writer.new_name("n")
                self.writer.write(f"{self.sizes.optional[name]} = None")
        for slot in optional:
            self._optional(slot)
        return self.writer.take_lines()

    def output_lines(self, result: str) -> list[str]:
        """Return the comparisons of the outputs, which are in the variable `result`; call it after `input_lines`."""
        results = self.circuit.results
        if len(results) == 1:
            self._tensors([(results[0], result)])
        else:
            leaves = self.writer.new_name("leaves")
            self.writer.write(f"{leaves} = {self.prefix}leaves({result})")
            self.writer.refuse_if(f"{self.len}({leaves}) != {len(results)}")
            names = [self.writer.new_name("output") for _ in results]
            self.writer.write(f"{', '.join(names)} = {leaves}")
            self._tensors(list(zip(results, names, strict=True)))
        self.sizes.solve_all()
        return self.writer.take_lines()

    def depends_on_optional_sizes(self) -> bool:
        """Return whether a group or arithmetic has an axis that only optional tensors have; call after `input_lines`.

        Then the sizes that can be solved depend on the tensors that are passed, which the written lines do not support.
        """
        terms = [term for slot in self.circuit.slots + self.circuit.results for term in slot.axes]
        return any(name in self.sizes.optional for term in terms if not isinstance(term, Axis) for name in term.names)

    def _count(self) -> None:
        """If the function has a parameter `*tensors`, compare the number of tensors with that of the signature."""
        star, names = self.circuit.star, self.circuit.inputs
        if star:
            plain = "".join(f"{name}, " for name in names if "[" not in name)
            self.writer.write(f"if {self.len}({star}) != {len([name for name in names if '[' in name])}:")
            self.writer.write(f"    {self.prefix}miscounted(({plain}*{star},))")

    def _fixed(self) -> None:
        """Bind the axes of `fixed`, whose sizes are known before any tensor is read."""
        for axis, by in self.circuit.fixed.items():
            if isinstance(by, int):
                self.sizes.known[axis] = by
                continue
            name = self.writer.new_name("n")
            self.writer.write(f"{name} = {self.writer.builtin('getattr')}({self.circuit.owner}, {by!r}, None)")
            self.writer.refuse_if(f"not {self.isinstance}({name}, {self.prefix}ints)")
            self.sizes.bind(axis, Expression(name))

    def _optional(self, slot: Slot) -> None:
        """Compare an optional tensor if it is not None; its shape and its deferred terms are not used after it."""
        self.writer.write(f"if {slot.name} is not None:")
        shapes, unsolved = self.shapes, self.sizes.unsolved
        self.shapes, self.sizes.unsolved, self.writer.indent = {}, [], self.writer.indent + "    "
        self._tensors([(slot, slot.name)])
        self.sizes.solve_all()
        self.writer.flush()
        self.shapes, self.sizes.unsolved, self.writer.indent = shapes, unsolved, self.writer.indent[:-4]

    def _tensors(self, values: list[tuple[Slot, str]]) -> None:
        """Compare types, numbers of axes and dtypes, then each axis.

        A tensor with the same axes as an earlier one is compared by its whole shape.
        """
        new: list[tuple[Slot, str]] = []
        same: list[str] = []
        for slot, value in values:
            if not slot.axes:
                self._scalar(slot, value)
            elif slot.axes in self.shapes:
                self.writer.refuse_if(f"not {self.isinstance}({value}, {self.prefix}Tensor)")
                same.append(f"{value}.shape != {self.shapes[slot.axes]}")
            else:
                shape = self.shapes[slot.axes] = self.writer.new_name("s")
                count, differs = len(slot.axes) - has_rest(slot.axes), "<" if has_rest(slot.axes) else "!="
                self.writer.refuse_if(f"not {self.isinstance}({value}, {self.prefix}Tensor)")
                self.writer.refuse_if(f"{self.len}({shape} := {value}.shape) {differs} {count}")
                new.append((slot, shape))
            if slot.dtype is not None:
                self.writer.refuse_if(f"{value}.dtype != {self.prefix}dtypes[{slot.name!r}]")
        for slot, shape in new:
            self._axes(slot, shape)
        for condition in same:
            self.writer.refuse_if(condition)

    def _scalar(self, slot: Slot, value: str) -> None:
        """Check a value without axes: a tensor with no dimensions, or a number for an input without a dtype."""
        fits = f"{self.isinstance}({value}, {self.prefix}Tensor) and {value}.ndim == 0"
        if slot.role == "input" and slot.dtype is None:
            fits = f"{fits} or {self.isinstance}({value}, {self.prefix}numbers)"
        self.writer.refuse_if(f"not ({fits})")

    def _axes(self, slot: Slot, shape: str) -> None:
        """Bind or compare each axis of one tensor.

        The quick check refuses sizes that are tensors, which torch.jit.trace passes, as soon as it reads one.
        """
        if slot.axes == (Rest(),):
            if not self.refuses_traced:
                self.writer.refuse_if(f"{shape} and {shape}[0].__class__ is {self.prefix}Tensor")
            self._rest(slot, f"[*{shape}]")
            return
        names = [self.writer.new_name("n") for _ in slot.axes]
        star = "*" if has_rest(slot.axes) else ""
        self.writer.write(f"{star}{', '.join(names)}{',' if len(names) == 1 else ''} = {shape}")
        if not self.refuses_traced:
            self.writer.refuse_if(f"{names[-1]}.__class__ is {self.prefix}Tensor")
            self.refuses_traced: bool = slot.role != "optional"
        for term, name in zip(slot.axes, names, strict=True):
            if isinstance(term, Rest):
                self._rest(slot, name)
            elif isinstance(term, Number):
                self.writer.refuse_if(f"{name} != {term.value}")
            elif isinstance(term, Axis):
                self.sizes.compare_axis(term.name, name)
            else:
                self.sizes.defer(term, name)

    def _rest(self, slot: Slot, name: str) -> None:
        """Bind or compare the sizes of the axes that `...` matches; those of an optional tensor need only broadcast."""
        if not self.rest:
            self.rest: str = name
        elif slot.role == "optional":
            self.writer.refuse_if(f"not {self.prefix}broadcasts({name}, {self.rest})")
        else:
            self.writer.refuse_if(f"{name} != {self.rest}")
