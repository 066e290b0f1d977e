"""Signatures are parsed and printed; errors have a caret under the fault; sizes of terms are computed and solved."""

from collections.abc import Callable, Mapping

import pytest
import sympy
import torch

from circuits import Signature, SignatureError
from circuits.errors import point
from circuits.signature.signature import parse_axes, places
from circuits.signature.solver import solve
from circuits.signature.terms import Axes, Axis, Derived, Group, Number, Rest, unknown


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("text", "inputs", "outputs"),
    [
        ("y m -> y", ((Axis("y"), Axis("m")),), ((Axis("y"),),)),
        ("... y, h' -> ...", ((Rest(), Axis("y")), (Axis("h'"),)), ((Rest(),),)),
        ("b 3 -> (h k)", ((Axis("b"), Number(3)),), ((Group((Axis("h"), Axis("k"))),),)),
        ("h -> h/2", ((Axis("h"),),), ((Derived(Axis("h"), (("/", Number(2)),)),),)),
        ("a, b -> ", ((Axis("a"),), (Axis("b"),)), ((),)),
        ("-> y", ((),), ((Axis("y"),),)),
        ("->", ((),), ((),)),
        (", -> a", ((), ()), ((Axis("a"),),)),
        ("y k k x h -> y", (tuple(Axis(name) for name in "ykkxh"),), ((Axis("y"),),)),
        ("class λ x_1 -> größe", ((Axis("class"), Axis("λ"), Axis("x_1")),), ((Axis("größe"),),)),
    ],
)
def test_a_signature_is_parsed(text: str, inputs: tuple[Axes, ...], outputs: tuple[Axes, ...]) -> None:
    assert Signature.parse(text) == Signature(inputs, outputs)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("  y   m,x m->y m ", "y m, x m -> y m"),
        ("( h  k ) -> h / 2 k", "(h k) -> h/2 k"),
        ("h -> h/2 + 1", "h -> h/2+1"),
        ("007 -> 7", "7 -> 7"),
        ("a\n\tb -> c", "a b -> c"),
        ("(h/2 2*k) -> h k", "(h/2 2*k) -> h k"),
    ],
)
def test_whitespace_is_ignored_and_the_printed_text_is_canonical(text: str, canonical: str) -> None:
    signature = Signature.parse(text)
    assert str(signature) == canonical
    assert Signature.parse(canonical) == signature
    assert eval(repr(signature)) == signature


REFUSED = {
    "missing_arrow": ("y m, x m", ""),
    "two_arrows": ("a -> b -> c", "->"),
    "unclosed_group": ("y (h k, x -> y", "("),
    "unopened_group": ("y h) -> y", ")"),
    "nested_group": ("(a (b c)) -> a", "("),
    "empty_group": ("a () -> a", "()"),
    "not_a_name": ("y $m -> y", "$m"),
    "name_begins_with_a_digit": ("y 2c -> y", "2c"),
    "prime_in_front": ("'h -> h", "'h"),
    "rest_not_first": ("b ... -> b", "..."),
    "rest_twice": ("... ... -> b", "..."),
    "rest_in_a_group": ("(... b) -> b", "..."),
    "operator_without_a_right_side": ("h -> h/", ""),
    "operator_without_a_left_side": ("h -> /2", "/"),
    "two_operators": ("h -> h/+2", "+"),
    "arithmetic_without_an_axis": ("h -> 4/2", "4/2"),
    "division_by_zero": ("h -> h/0", "0"),
    "too_large": ("9223372036854775808 -> a", "9223372036854775808"),
    "a_function": ("m n -> m m, min(m, n), n n", "min("),
    "a_function_of_one_axis": ("n -> ceil(n/2)", "ceil("),
    "a_dot": ("b . h -> b", "."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_message_has_the_reason_and_a_caret(name: str, golden: Callable[[str, str], None]) -> None:
    text, fault = REFUSED[name]
    with pytest.raises(SignatureError) as caught:
        Signature.parse(text)
    message = str(caught.value)
    golden(f"signature/{name}.txt", message + "\n")
    assert under_the_carets(message) == fault


def under_the_carets(message: str) -> str:
    """Return the part of the quoted text that has carets under it."""
    *_, quoted, marks = message.split("\n")
    return quoted[marks.index("^") : len(marks)].strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "9" * 100_000,
        "a" * 100_000 + "$ -> b",
        "(" * 50_000,
        "a" + "+a" * 50_000,
        "a " * 50_000 + "->",
        "\x00",
        "->" * 9,
    ],
)
def test_long_texts_are_parsed_or_refused_with_a_short_message(text: str) -> None:
    message = ""
    try:
        signature = Signature.parse(text)
        assert Signature.parse(str(signature)) == signature
    except SignatureError as error:
        message = str(error)
    assert len(message) < 500


@pytest.mark.parametrize("thing", [None, 3, b"a -> b", ["a"]])
def test_what_is_not_text_is_refused(thing: object) -> None:
    with pytest.raises(SignatureError, match=f"not {type(thing).__name__}"):
        Signature.parse(thing)  # pyright: ignore[reportArgumentType]


def test_the_axes_of_one_tensor_are_parsed() -> None:
    assert parse_axes("... c (h w)") == (Rest(), Axis("c"), Group((Axis("h"), Axis("w"))))
    assert parse_axes("") == ()
    for text in ("a, b", "a -> b"):
        with pytest.raises(SignatureError, match="one tensor"):
            parse_axes(text)


def test_carets_are_under_the_fault_in_wide_letters_and_long_texts() -> None:
    assert point("日本 x", (3, 4)).split("\n")[1] == "         ^"
    long = "a " * 200 + "$"
    quoted, marks = point(long, (400, 401)).split("\n")
    assert quoted[marks.index("^")] == "$"
    assert len(quoted) < 120


@pytest.mark.parametrize(
    ("text", "sizes", "size"),
    [
        ("h/2", {"h": 14}, 7),
        ("2*c", {"c": 5}, 10),
        ("h/2+1", {"h": 14}, 8),
        ("1+h/2", {"h": 14}, 8),
        ("h-1", {"h": 14}, 13),
        ("h*w-h/w*2", {"h": 12, "w": 3}, 28),
        ("(h 2 k/2)", {"h": 3, "k": 8}, 24),
        ("128/h", {"h": 4}, 32),
    ],
)
def test_sizes_of_terms_agree_with_python(text: str, sizes: dict[str, int], size: int) -> None:
    """Except for groups, the text is also a Python expression of the size."""
    term = parse_axes(text)[0]
    assert term.size(sizes) == size
    if not isinstance(term, Group):
        assert eval(text, {}, dict(sizes)) == size


@pytest.mark.parametrize(
    ("text", "sizes"), [("h/2", {"h": 7}), ("h/s", {"h": 7, "s": 0}), ("(h/3 k)", {"h": 4, "k": 1})]
)
def test_a_division_with_a_remainder_has_no_size(text: str, sizes: Mapping[str, int]) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        parse_axes(text)[0].size(sizes)


def test_the_rest_has_no_size() -> None:
    with pytest.raises(ValueError, match="no size"):
        Rest().size({})


@pytest.mark.parametrize(
    "text", ["h", "(h k)", "(2 h k)", "h/2", "2*h", "h*s/2+1", "10-h", "h-s", "h-2*s+1", "120/h", "(h/2 k)", "s+h"]
)
def test_solving_undoes_the_size(text: str) -> None:
    term, sizes = parse_axes(text)[0], {"h": 6, "k": 4, "s": 3}
    known = {name: size for name, size in sizes.items() if name != "h"}
    assert unknown(term, known) == ["h"]
    assert solve(term, term.size(sizes), known) == 6


def test_sizes_may_be_sympy_expressions() -> None:
    h, s = sympy.symbols("h s", positive=True, integer=True)
    assert parse_axes("h/2+1")[0].size({"h": h}) == h / 2 + 1
    assert parse_axes("h/s")[0].size({"h": h, "s": s}) == h / s
    assert parse_axes("(h 2)")[0].size({"h": 16 * s}) == 32 * s


def test_sizes_may_be_torch_symbols() -> None:
    found: list[object] = []

    def half(x: torch.Tensor) -> torch.Tensor:
        found.append(parse_axes("h/2+1")[0].size({"h": x.shape[0]}))
        return x + 1

    torch.export.export(Wrapped(half), (torch.ones(8),), dynamic_shapes={"x": {0: torch.export.Dim.AUTO}})
    assert isinstance(found[0], torch.SymInt)
    assert found[0] == 5


class Wrapped(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.slow
def test_places_find_each_term_in_the_text() -> None:
    signature = Signature.parse("... m m2, (m m2) -> m/2, m, ")
    text = str(signature)
    for tensor, position, term, (start, stop) in places(signature):
        assert text[start:stop] == str(term)
        assert (signature.inputs + signature.outputs)[tensor][position] == term
