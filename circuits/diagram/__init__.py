"""Diagrams: frozen data made of boxes and the values between them, which runs, prints and is written as Python.

May use `signature` and `errors`. Start with `boxes` (the data), then `diagram` (the public class), `interpreter`
(runs it), `codegen` (writes it as a Python function), `table` (prints it). `structure` is nested arguments as data,
`operations` says which torch functions are recorded, skipped or opened.
"""

from circuits.diagram.boxes import Box, ByHand, Call, Fixed, Size, Value, size_text
from circuits.diagram.diagram import Diagram
from circuits.diagram.interpreter import collect, evaluate
from circuits.diagram.operations import ITERATE, KINDS, OPEN, OPENED, SKIP, kind, mutates, operation_name, returning
from circuits.diagram.structure import (
    Scalar,
    Struct,
    Wire,
    arguments,
    attribute,
    change,
    convert,
    describe,
    describe_all,
    leaves,
    tensors,
    wires,
    without_defaults,
)

__all__ = [
    "ITERATE",
    "KINDS",
    "OPEN",
    "OPENED",
    "SKIP",
    "Box",
    "ByHand",
    "Call",
    "Diagram",
    "Fixed",
    "Scalar",
    "Size",
    "Struct",
    "Value",
    "Wire",
    "arguments",
    "attribute",
    "change",
    "collect",
    "convert",
    "describe",
    "describe_all",
    "evaluate",
    "kind",
    "leaves",
    "mutates",
    "operation_name",
    "returning",
    "size_text",
    "tensors",
    "wires",
    "without_defaults",
]
