"""Write the source of a function that checks its inputs, runs the body, and checks the outputs.

The function has the parameter list of the definition, so Python binds the arguments of a call as usual. It tests
whether a diagram is being recorded and whether checks are on, and then compares (`comparisons`). The same checks are
written a second time in the function `check_around`, whose first argument is the body to run; `slow_call` uses it.

These comparisons are the quick check. A call that it refuses goes to the complete check (`messages`), which decides:
it raises the error, or accepts what the comparisons cannot, such as an axis of size 0 beside an unknown one in a group.
"""

import inspect
from collections.abc import Iterable

from circuits.checking.comparisons import Comparisons
from circuits.checking.declaration import Circuit
from circuits.checking.parameters import parameters_of

Parameters = tuple[inspect.Parameter, ...]


def unused_prefix(parameters: Parameters) -> str:
    """Return the shortest string of underscores that is not the beginning of any parameter."""
    prefix = "_"
    while any(each.name.startswith(prefix) for each in parameters):
        prefix += "_"
    return prefix


def source(circuit: Circuit, names: Iterable[str]) -> str:
    """Return the source of `make`, whose parameters are `names` with the prefix.

    `make` returns the checked function, and a function that sets the body that the checked function runs.
    """
    parameters = parameters_of(circuit.definition)
    p = unused_prefix(parameters)
    taken, passed = _parameter_list(parameters, p), _argument_list(parameters)
    args, kwargs = _recorded_arguments(parameters, circuit.owner)
    before, after = _checks(circuit, p, f"{args}, {kwargs}")
    lines = [
        f"def make({', '.join(f'{p}{name}' for name in names)}):",
        *(f"    {line}" for line in _outlined_calls(p)),
        "",
        f"    def {p}checked({taken}):",
        "        try:",
        f"            if {p}switch.active or {p}modes.definitions:",
        f"                return {p}slow({circuit.owner or None}, {args}, {kwargs})",
        f"            if not {p}modes.checks:",
        f"                return {p}body({passed})",
        *(f"            {line}" for line in before),
        f"            {p}result = {p}body({passed})",
        *(f"            {line}" for line in after),
        f"            return {p}result",
        f"        except {p}CircuitError as {p}error:",
        f"            {p}hide_frames({p}error)",
        "            raise",
        "",
        f"    def {p}check_around({p}body{', ' if taken else ''}{taken}):",
        *(f"        {line}" for line in before),
        f"        {p}result = {p}body({passed})",
        *(f"        {line}" for line in after),
        f"        return {p}result",
        "",
        f"    def {p}set_body({p}other):",
        f"        nonlocal {p}body",
        f"        {p}body = {p}other",
        "",
        f"    return {p}checked, {p}set_body",
        "",
    ]
    return "\n".join(lines)


def _outlined_calls(prefix: str) -> list[str]:
    """Return the source of the functions that are called rarely. Only these refer to the circuit.

    The checked function itself does not refer to it: torch.compile cannot trace a circuit for which it has no source
    (Dynamo's word for the expression that finds an object).
    """
    p = prefix
    complete_check = {"complete": "complete_call", "examined": "examine_untraced", "miscounted": "miscount"}
    return [
        f"def {p}slow(*{p}seen):",
        f"    return {p}slow_call({p}circuit, {p}check_around, *{p}seen)",
        "",
        *(
            line
            for name, of in complete_check.items()
            for line in (f"def {p}{name}(*{p}seen):", f"    return {p}{of}({p}circuit, *{p}seen)", "")
        ),
    ]


def _checks(circuit: Circuit, prefix: str, arguments: str) -> tuple[list[str], list[str]]:
    """Return the lines before the body and the lines after it.

    If the sizes that can be solved depend on optional tensors, both are a single call of the complete check.
    """
    values = "".join(f"{slot.name}, " for slot in circuit.slots)
    call = f"{circuit.owner or None}, ({values})"
    outputs = f"{prefix}leaves({prefix}result)" if len(circuit.results) > 1 else f"[{prefix}result]"
    examine_inputs, examine_outputs = (f"{prefix}examined({call}, {results})" for results in (None, outputs))
    comparisons = Comparisons(circuit, prefix)
    comparisons.writer.complete = [f"return {prefix}complete({call}, {prefix}body, {arguments})"]
    before = comparisons.input_lines()
    comparisons.writer.complete = [examine_outputs, f"return {prefix}result"]
    after = comparisons.output_lines(f"{prefix}result")
    if comparisons.depends_on_optional_sizes():
        return [examine_inputs], [examine_outputs]
    return before, after


def _parameter_list(parameters: Parameters, prefix: str) -> str:
    """Return the source of the definition's parameter list, with default values read from `defaults`."""
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


def _argument_list(parameters: Parameters) -> str:
    """Return the source of the arguments of a call that passes every parameter on."""
    return ", ".join(
        f"{each.name}={each.name}" if each.kind is each.KEYWORD_ONLY else f"{_stars(each)}{each.name}"
        for each in parameters
    )


def _recorded_arguments(parameters: Parameters, owner: str) -> tuple[str, str]:
    """Return the source of a tuple of the positional arguments, without the owner, and of a dict of the others."""
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
