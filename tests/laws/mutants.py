"""Mutants of the source of `models`: small changes made by rule, as an author might make them by mistake.

One place is changed at a time: the text of a pattern, a number, an operator, a condition, a call. Code that only
raises errors, describes, loads weights or initializes them is not changed, because no law tests it.
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
"""The modules of `models` that are changed."""

SKIPPED = re.compile(r"_?(refuse|from|to|extra|reset|described|begin|copied|options|text|possible|standard)(_|$)")
"""Names of functions that no law tests: they raise errors, describe, convert or initialize weights."""

REPLACEMENTS: dict[Any, Any] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or,
    ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: its place, the text before and after. `number` distinguishes equal changes of one function."""

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
    """A node of the syntax tree and its parent."""

    node: ast.AST
    holder: Any
    key: Any
    function: str

    def put(self, node: ast.AST) -> None:
        """Replace the node in its parent."""
        if isinstance(self.key, int):
            self.holder[self.key] = node
        else:
            setattr(self.holder, self.key, node)


def mutants(file: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Yield every change of one module with the changed tree, which is restored when the next one is requested."""
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
    """Return the source of a node, shortened."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:60]} … {text[-25:]}"


def _after(node: ast.AST, other: ast.AST) -> str:
    """Return the source after a change; for a call that lost an option, the name of the option."""
    if isinstance(node, ast.Call) and isinstance(other, ast.Call) and len(other.keywords) < len(node.keywords):
        (lost,) = [each.arg for each in node.keywords if each not in other.keywords]
        return f"without {lost}"
    return _brief(other)


def _sites(tree: ast.AST, function: str = "") -> Iterator[_Site]:
    """Yield the nodes inside functions in order of the source, without messages, annotations and defaults."""
    for key, value in ast.iter_fields(tree):
        if key in ("annotation", "returns", "defaults", "kw_defaults", "ctx", "type_params"):
            continue
        items = enumerate(value) if isinstance(value, list) else [(key, value)]
        for at, node in items:
            if not isinstance(node, ast.AST) or _is_skipped(node):
                continue
            name = function
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if SKIPPED.match(node.name):
                    continue
                name = f"{function}.{node.name}" if function else node.name
            if function or isinstance(node, ast.FunctionDef):
                holder = value if isinstance(value, list) else tree
                yield _Site(node, holder, at, name)
            yield from _sites(node, name)


def _is_skipped(node: ast.AST) -> bool:
    """Return whether a node only raises, documents, or passes a device or a dtype."""
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
    """Return whether a statement only raises an error, perhaps under conditions."""
    if isinstance(node, ast.Raise):
        return True
    if not isinstance(node, ast.If | ast.For) or any(not _refuses(each) for each in node.orelse):
        return False
    *before, last = node.body
    return _refuses(last) and all(_refuses(each) or isinstance(each, ast.Assign) for each in before)


def _names_alone(node: ast.keyword) -> bool:
    """Return whether an option is a list of names, whose order has no meaning."""
    return node.arg == "fixed" and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the replacements of a node."""
    if isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.BinOp):
        yield node.left
        yield node.right
        yield ast.BinOp(node.left, REPLACEMENTS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(REPLACEMENTS[type(node.op)](), node.values)
        yield from node.values
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.Compare(node.left, [REPLACEMENTS[type(node.ops[0])]()], node.comparators)
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
    """Yield the replacements of a constant."""
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
    """Yield a pattern with two neighbouring axes of one tensor swapped."""
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
    """Yield a pattern that is an f-string, with two neighbouring pieces of one tensor swapped."""
    filled = [place for place, each in enumerate(node.values) if isinstance(each, ast.FormattedValue)]
    for one, other in itertools.pairwise(filled):
        between = "".join([f"{each.value}" for each in node.values[one + 1 : other] if isinstance(each, ast.Constant)])
        same = ast.dump(node.values[one]) == ast.dump(node.values[other])
        if "->" not in between and "," not in between and not same:
            values = list(node.values)
            values[one], values[other] = values[other], values[one]
            yield ast.JoinedStr(values)


def _changes_a_name(node: ast.Assign) -> bool:
    """Return whether an assignment gives a new value to a name that it reads: a step that may be left out."""
    targets = {each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return bool(targets & {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)})


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    """Yield a call's only argument; calls with two neighbouring arguments swapped; calls without one option."""
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
