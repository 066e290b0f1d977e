"""Write a function that checks, runs, and checks again.

The text has the function's own parameter list, so Python binds a call as it always does. It asks once whether anything
records, once whether checks are on, and then compares (`comparing`). It is written twice: as what users call, and as a
twin that is told what to run, for whoever records.
"""

import inspect
from collections.abc import Iterable

from circuits.checking.comparisons import Comparisons
from circuits.checking.declaration import Circuit, parameters_of

Parameters = tuple[inspect.Parameter, ...]


def prefix_of(parameters: Parameters) -> str:
    """Underscores that no parameter begins with."""
    prefix = "_"
    while any(each.name.startswith(prefix) for each in parameters):
        prefix += "_"
    return prefix


def source(circuit: Circuit, names: Iterable[str]) -> str:
    """The text of `make`, which is given the things called `names`.

    It gives the checked function, and a function that is told what the checked one is to run from then on.
    """
    parameters = parameters_of(circuit.definition)
    p = prefix_of(parameters)
    take, call = taken(parameters, p), called(parameters)
    args, kwargs = recorded(parameters, circuit.owner)
    first, last = comparisons(circuit, p)
    lines = [
        f"def make({', '.join(f'{p}{name}' for name in names)}):",
        *(f"    {line}" for line in aside(p)),
        "",
        f"    def {p}checked({take}):",
        f"        if {p}switch.active or {p}modes.definitions:",
        f"            return {p}aside({circuit.owner or None}, {args}, {kwargs})",
        f"        if not {p}modes.checks:",
        f"            return {p}body({call})",
        *(f"        {line}" for line in first),
        f"        {p}result = {p}body({call})",
        *(f"        {line}" for line in last),
        f"        return {p}result",
        "",
        f"    def {p}twin({p}run{', ' if take else ''}{take}):",
        *(f"        {line}" for line in first),
        f"        {p}result = {p}run({call})",
        *(f"        {line}" for line in last),
        f"        return {p}result",
        "",
        f"    def {p}run({p}other):",
        f"        nonlocal {p}body",
        f"        {p}body = {p}other",
        "",
        f"    return {p}checked, {p}run",
        "",
    ]
    return "\n".join(lines)


def aside(prefix: str) -> list[str]:
    """What is seldom called, and alone holds the circuit: torch.compile cannot follow one it has no name for."""
    p = prefix
    return [
        f"def {p}aside(*{p}seen):",
        f"    return {p}detour({p}circuit, {p}twin, *{p}seen)",
        "",
        *(
            line
            for name, of in (("wrong", "refuse"), ("always", "examine"), ("miscounted", "miscount"))
            for line in (f"def {p}{name}(*{p}seen):", f"    {p}{of}({p}circuit, *{p}seen)", "")
        ),
    ]


def comparisons(circuit: Circuit, prefix: str) -> tuple[list[str], list[str]]:
    """The lines before the body and after it."""
    written = Comparisons(circuit, prefix)
    written.before()
    first = written.take()
    written.after(f"{prefix}result")
    last = written.take()
    if not written.is_rare():
        return first, last
    several = len(circuit.results) > 1
    outputs = f"{prefix}leaves({prefix}result)" if several else f"[{prefix}result]"
    written.results = "None"
    before = written.call("always")
    written.results = outputs
    return [before], [written.call("always")]


def taken(parameters: Parameters, prefix: str) -> str:
    """The parameter list, defaults by reference."""
    words: list[str] = []
    kinds = [each.kind for each in parameters]
    for i, each in enumerate(parameters):
        if each.kind is each.KEYWORD_ONLY and not {each.VAR_POSITIONAL, each.KEYWORD_ONLY} & set(kinds[:i]):
            words.append("*")
        default = "" if each.default is each.empty else f"={prefix}defaults[{each.name!r}]"
        words.append(f"{_stars(each)}{each.name}{default}")
        if each.kind is each.POSITIONAL_ONLY and kinds[i + 1 : i + 2] != [each.POSITIONAL_ONLY]:
            words.append("/")
    return ", ".join(words)


def called(parameters: Parameters) -> str:
    """The arguments that hand every parameter on."""
    return ", ".join(
        f"{each.name}={each.name}" if each.kind is each.KEYWORD_ONLY else f"{_stars(each)}{each.name}"
        for each in parameters
    )


def recorded(parameters: Parameters, owner: str) -> tuple[str, str]:
    """The same arguments, the owner's left out, as a tuple and a dict."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    args = "".join(
        f"{_stars(each)}{each.name}, " for each in parameters if each.kind not in named and each.name != owner
    )
    kwargs = [
        f"**{each.name}" if _stars(each) else f"{each.name!r}: {each.name}" for each in parameters if each.kind in named
    ]
    return f"({args})", f"{{{', '.join(kwargs)}}}"


def _stars(parameter: inspect.Parameter) -> str:
    return {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
