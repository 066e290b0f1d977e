"""Small changes of source, made by rule: what a tired author might have written instead.

Every circuit of `models` is changed in one place at a time: in the text of a pattern, in a number, an operator, a
condition, a call. What only refuses, describes, loads or draws weights is left alone: no law speaks of it.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

FILES = (
    "attention", "conv_attention", "convolution", "language_model", "layers", "mlp", "parts/cache",
    "parts/convolution_base", "parts/convolution_kinds", "parts/convolve", "parts/fused_attention", "parts/generation",
    "parts/linear", "parts/masks", "parts/memory_layout", "parts/pooling", "parts/positions", "parts/space",
    "resnet", "sequence_to_sequence", "signals", "transformer", "transformer_layers", "unet", "vision_transformer",
    "visual_attention",
)  # fmt: skip
"""The modules whose circuits are changed."""

SPARED = re.compile(r"_?(refuse|from|to|extra|reset|described|begin|copied|options|text|possible|standard)(_|$)")
"""Functions that no law speaks of: they refuse, describe, convert or draw weights."""

OTHERS: dict[Any, Any] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or,
    ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: where, what stood there, what stands there now. `number` tells equal ones of a function apart."""

    file: str
    function: str
    line: int
    before: str
    after: str
    number: int = 0

    def __str__(self) -> str:
        again = f" ({self.number + 1})" if self.number else ""
        return f"{self.file.rpartition('/')[2]}.{self.function}: {self.before} -> {self.after}{again}"


@dataclass(frozen=True)
class _Site:
    """A node, and what holds it."""

    node: ast.AST
    holder: Any
    key: Any
    function: str

    def put(self, node: ast.AST) -> None:
        if isinstance(self.key, int):
            self.holder[self.key] = node
        else:
            setattr(self.holder, self.key, node)


def mutants(file: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Every change of one module, with the changed tree; the tree is as it was once the next is asked for."""
    tree = ast.parse((ROOT / "models" / f"{file}.py").read_text())
    seen: dict[Mutant, int] = {}
    for site in list(_sites(tree)):
        for other in _changes(site.node):
            ast.copy_location(other, site.node)
            ast.fix_missing_locations(other)
            line: int = site.node.lineno  # type: ignore[attr-defined]
            key = Mutant(file, site.function, 0, _brief(site.node), _after(site.node, other))
            seen[key] = seen.get(key, -1) + 1
            site.put(other)
            yield replace(key, line=line, number=seen[key]), tree
            site.put(site.node)


def _brief(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:60]} … {text[-25:]}"


def _after(node: ast.AST, other: ast.AST) -> str:
    """What stands there now; of a call that lost an option, that option."""
    if isinstance(node, ast.Call) and isinstance(other, ast.Call) and len(other.keywords) < len(node.keywords):
        (lost,) = [each.arg for each in node.keywords if each not in other.keywords]
        return f"without {lost}"
    return _brief(other)


def _sites(tree: ast.AST, function: str = "") -> Iterator[_Site]:
    """The nodes inside functions, in the order they stand; messages, annotations and defaults are passed by."""
    for key, value in ast.iter_fields(tree):
        if key in ("annotation", "returns", "defaults", "kw_defaults", "ctx", "type_params"):
            continue
        items = enumerate(value) if isinstance(value, list) else [(key, value)]
        for at, node in items:
            if not isinstance(node, ast.AST) or _passed_by(node):
                continue
            name = function
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if SPARED.match(node.name):
                    continue
                name = f"{function}.{node.name}" if function else node.name
            if function or isinstance(node, ast.FunctionDef):
                holder = value if isinstance(value, list) else tree
                yield _Site(node, holder, at, name)
            yield from _sites(node, name)


def _passed_by(node: ast.AST) -> bool:
    """What raises, documents, or says where and in which precision."""
    if isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return True
    if isinstance(node, ast.If | ast.For) and _refuses(node):
        return True
    if isinstance(node, ast.ExceptHandler):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = ast.unparse(node.value.func)
        return bool(re.search(r"refuse|super\(\)|reset_parameters|_possible|he_normal|_begin", called))
    return isinstance(node, ast.keyword) and (node.arg in ("device", "dtype") or _names_alone(node))


def _refuses(node: ast.stmt) -> bool:
    """Whether a statement only refuses: it raises, perhaps under conditions, and says what."""
    if isinstance(node, ast.Raise):
        return True
    if not isinstance(node, ast.If | ast.For) or any(not _refuses(each) for each in node.orelse):
        return False
    *before, last = node.body
    return _refuses(last) and all(_refuses(each) or isinstance(each, ast.Assign) for each in before)


def _names_alone(node: ast.keyword) -> bool:
    """Whether an option is a list of names, whose order says nothing."""
    return node.arg == "fixed" and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What might stand in place of a node."""
    if isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.BinOp):
        yield node.left
        yield node.right
        yield ast.BinOp(node.left, OTHERS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(OTHERS[type(node.op)](), node.values)
        yield from node.values
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.Compare(node.left, [OTHERS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Assign) and _changes_a_name(node):
        yield ast.Pass()
    elif isinstance(node, ast.JoinedStr):
        yield from _swapped_in_pieces(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _constants(value: Any) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 2)
    elif isinstance(value, str):
        for text in _swapped(value):
            yield ast.Constant(text)


def _swapped(text: str) -> Iterator[str]:
    """Two neighbouring axes of a pattern changed for each other, on either side of its arrow."""
    if not re.search(r"->|\.\.\.", text) and not re.fullmatch(r"[a-z](\d|')?( [a-z](\d|')?)+", text):
        return
    words = re.split(r"(\s+|,|->|\(|\))", text)
    names = [place for place, word in enumerate(words) if re.fullmatch(r"[A-Za-z]\w*'*", word)]
    for one, other in itertools.pairwise(names):
        between = "".join(words[one + 1 : other])
        if "->" not in between and "," not in between and words[one] != words[other]:
            swapped = list(words)
            swapped[one], swapped[other] = words[other], words[one]
            yield "".join(swapped)


def _swapped_in_pieces(node: ast.JoinedStr) -> Iterator[ast.AST]:
    """The same, of a pattern that is put together: two neighbouring pieces of one tensor."""
    filled = [place for place, each in enumerate(node.values) if isinstance(each, ast.FormattedValue)]
    for one, other in itertools.pairwise(filled):
        between = "".join([f"{each.value}" for each in node.values[one + 1 : other] if isinstance(each, ast.Constant)])
        same = ast.dump(node.values[one]) == ast.dump(node.values[other])
        if "->" not in between and "," not in between and not same:
            values = list(node.values)
            values[one], values[other] = values[other], values[one]
            yield ast.JoinedStr(values)


def _changes_a_name(node: ast.Assign) -> bool:
    """Whether an assignment gives a new value to what it reads: a step that may be forgotten."""
    targets = {each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return bool(targets & {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)})


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    """The first argument alone; two neighbouring arguments changed for each other; an option left out."""
    plain = all(not isinstance(each, ast.Starred) for each in node.args)
    if plain and len(node.args) == 1 and not node.keywords and isinstance(node.func, ast.Attribute | ast.Name):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        if name not in ("len", "range", "enumerate", "tuple", "list", "isinstance", "reversed", "all", "any"):
            yield node.args[0]
    for place in range(len(node.args) - 1) if plain else ():
        one, other = node.args[place : place + 2]
        named = isinstance(one, ast.Name | ast.Attribute) and isinstance(other, ast.Name | ast.Attribute)
        if named and ast.dump(one) != ast.dump(other):
            args = list(node.args)
            args[place], args[place + 1] = other, one
            yield ast.Call(node.func, args, node.keywords)
    for keyword in node.keywords:
        if keyword.arg not in (None, "device", "dtype"):
            yield ast.Call(node.func, node.args, [each for each in node.keywords if each is not keyword])
