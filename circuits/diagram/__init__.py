"""A diagram is frozen data: boxes, and the values between them. It can be run, printed and converted to Python.

May use `signature` and `errors`. Start with `boxes` (the data), then `diagram` (the public class), `interpreter`
(runs it), `codegen` (generates a Python function), `table` (prints it, from `rows`, `columns`, `handed_in`, `counts`
and `legend`, fitted by `fitting`), `live_lines` (a line of a run while it is printed) and `plain_data` (converts it to
data for JSON). `formulas` are the sizes, numbers and conditions that depend on axes; `structure`
converts nested values to descriptions, with a wire in place of each tensor; `call_arguments` matches arguments with
parameters; `operations` lists which torch functions are recorded, skipped or traced into, and `data_sizes` those whose
results have sizes that depend on data; `operators` are those that take functions, `opaque_calls` the user's; `readings`
are the calls that read numbers of data, `property_guards` those that read a property such as the dtype, and
`state_guards` those that compare plain attributes and variables. `containers` takes containers and objects apart,
`changes` and `effects` are what a run assigns in them, and `settings` what it sets in torch (gradient modes, the
default dtype).
"""

from circuits.diagram.base_methods import are_same, copy_of, items_of, parts_of, replace
from circuits.diagram.boxes import Box, Call, CustomBackward, Fixed, Size, Value
from circuits.diagram.call_arguments import arguments, without_defaults
from circuits.diagram.cells import bytes_text, is_bookkeeping, only_operation
from circuits.diagram.changes import NOTHING, Change, Place, contents
from circuits.diagram.containers import has_only_attributes, splitting_objects
from circuits.diagram.counts import tree
from circuits.diagram.data_sizes import makes_sparse, returns_parts, shape_of, size_rule
from circuits.diagram.diagram import Diagram
from circuits.diagram.effects import EFFECTS, SETS_RANDOM_STATE, has_backward_hooks, register_hook
from circuits.diagram.fitting import Cells, Width, columns_of, terminal_width
from circuits.diagram.formulas import evaluate, size_text
from circuits.diagram.handed_in import check_outline, heading_of, is_number, outline, text_of
from circuits.diagram.interpreter import schedule, store
from circuits.diagram.legend import input_sizes, legend
from circuits.diagram.live_lines import box_line, heading_line
from circuits.diagram.opaque_calls import OPERATORS, is_opaque, opaque_call, overwritten, writing_call
from circuits.diagram.operations import (
    ACTIONS,
    ITERATE,
    MEASURE,
    PROPERTY,
    READ,
    RECORD,
    SET_GRADIENTS,
    SKIP,
    TRACE_INTO,
    TRACED_INTO,
    action_for,
    alias,
    attribute_name,
    copied_from_numpy,
    mutates,
    operation_name,
    returning_first,
)
from circuits.diagram.operators import DATA_DEPENDENT_OPERATORS, Operator, opened
from circuits.diagram.property_guards import ABOUT_GRADIENTS, PropertyGuard, comparable_value
from circuits.diagram.readings import Reading, reading
from circuits.diagram.rows import SCREEN, rows
from circuits.diagram.settings import Setting, applied, with_gradients, without_autocast
from circuits.diagram.state_guards import Globals, Held, Variables, state_guard
from circuits.diagram.structure import (
    PLAIN_TYPES,
    Scalar,
    Struct,
    Wire,
    attribute,
    describe,
    describe_all,
    fill,
    kind_of,
    leaves,
    map_tensors,
    substitute,
    tensors,
    unopened,
    wires,
    wires_in,
)
from circuits.diagram.table import Depth, Table, in_ascii, is_printable, table_of

__all__ = [
    "ABOUT_GRADIENTS",
    "ACTIONS",
    "DATA_DEPENDENT_OPERATORS",
    "EFFECTS",
    "ITERATE",
    "MEASURE",
    "NOTHING",
    "OPERATORS",
    "PLAIN_TYPES",
    "PROPERTY",
    "READ",
    "RECORD",
    "SCREEN",
    "SETS_RANDOM_STATE",
    "SET_GRADIENTS",
    "SKIP",
    "TRACED_INTO",
    "TRACE_INTO",
    "Box",
    "Call",
    "Cells",
    "Change",
    "CustomBackward",
    "Depth",
    "Diagram",
    "Fixed",
    "Globals",
    "Held",
    "Operator",
    "Place",
    "PropertyGuard",
    "Reading",
    "Scalar",
    "Setting",
    "Size",
    "Struct",
    "Table",
    "Value",
    "Variables",
    "Width",
    "Wire",
    "action_for",
    "alias",
    "applied",
    "are_same",
    "arguments",
    "attribute",
    "attribute_name",
    "box_line",
    "bytes_text",
    "check_outline",
    "columns_of",
    "comparable_value",
    "contents",
    "copied_from_numpy",
    "copy_of",
    "describe",
    "describe_all",
    "evaluate",
    "fill",
    "has_backward_hooks",
    "has_only_attributes",
    "heading_line",
    "heading_of",
    "in_ascii",
    "input_sizes",
    "is_bookkeeping",
    "is_number",
    "is_opaque",
    "is_printable",
    "items_of",
    "kind_of",
    "leaves",
    "legend",
    "makes_sparse",
    "map_tensors",
    "mutates",
    "only_operation",
    "opaque_call",
    "opened",
    "operation_name",
    "outline",
    "overwritten",
    "parts_of",
    "reading",
    "register_hook",
    "replace",
    "returning_first",
    "returns_parts",
    "rows",
    "schedule",
    "shape_of",
    "size_rule",
    "size_text",
    "splitting_objects",
    "state_guard",
    "store",
    "substitute",
    "table_of",
    "tensors",
    "terminal_width",
    "text_of",
    "tree",
    "unopened",
    "wires",
    "wires_in",
    "with_gradients",
    "without_autocast",
    "without_defaults",
    "writing_call",
]
