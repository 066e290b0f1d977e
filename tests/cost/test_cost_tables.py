"""The tables of costs: how they fit a width and a screen, rows of repeated boxes, and costs as columns."""

import pickle
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import sympy
from torch import Tensor, nn

import models
from circuits import CircuitError, Cost, count, trace
from circuits.cost.box_cost import BoxCost
from circuits.cost.texts import formula, shorter
from tests.cost.claims import Shared, attention, symbol

COSTS: dict[str, Callable[[], Cost]] = {
    "attention": lambda: count(models.MultiHeadAttention(m=128, k=16, h=4)),
    "language_model": lambda: count(
        models.LanguageModel(vocabulary=65, m=128, k=32, h=4, f=512, depth=3), backward=True
    ).at(x=1024),
    "torch_encoder": lambda: count(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False),
        axes="b x 32",
    ),
}
NAMES = ["attention", *[pytest.param(name, marks=pytest.mark.slow) for name in ("language_model", "torch_encoder")]]


@cache
def made(name: str) -> Cost:
    return COSTS[name]()


def body(table: str) -> list[str]:
    return table.partition("\n\n")[0].splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tables_at_three_widths(name: str, golden: Any) -> None:
    parts = []
    for width in (80, 120, 200):
        for plain in (False, True):
            text = made(name).table(width=width, ascii=plain)
            assert max(map(len, text.splitlines())) <= width
            assert text.isascii() or not plain
            parts.append(f"--- {width} columns{', ASCII' if plain else ''} ---\n{text}\n")
    golden(f"cost/{name}.txt", "\n".join(parts))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_has_a_mark_and_what_goes_is_named(name: str) -> None:
    cost = made(name)
    whole = cost.table(width=None)
    assert "wider than" not in whole
    headings = re.split(r"\s{2,}", body(whole)[0].strip())
    for width in (40, 60, 80, 100, 140, 180):
        text = cost.table(width=width)
        lost = text.partition("not shown")[2].replace("\n", " ")
        assert all(heading in body(text)[0] or heading in re.sub(r"\s+", " ", lost) for heading in headings), width
        for before, after in zip(body(whole), body(text), strict=True):
            cut = set(re.split(r"\s{2,}", after.strip())) - set(re.split(r"\s{2,}", before.strip()))
            assert all("…" in cell or cell.endswith(")") for cell in cut), (width, cut)
        if re.search(r"\+ …", "\n".join(body(text))):
            assert f"wider than {width} columns; width=None shows all" in re.sub(r"\s+", " ", text)
            assert formula(cost.total.flops) in text


def test_the_shorter_forms_of_a_formula_are_its_factors_and_its_first_terms() -> None:
    names = {name: symbol(name) for name in "hkmxy"}
    h, k, m, x, y = names.values()
    for value in (
        4 * h * k * x * y + 8 * h * k * m * x,
        3 * x - 6 * y + 9,
        x**2 * 4 + 6 * x * y,
        2 * k * x * y + 4 * x,
    ):
        full, forms = formula(value), shorter(value)
        assert sympy.expand(eval(full, {}, names) - value) == 0
        assert [*map(len, forms)] == sorted(map(len, forms), reverse=True)
        for form in forms:
            if form.endswith(" + …"):
                assert full.startswith(form.removesuffix(" + …"))
            else:
                assert len(form) < len(full)
                assert sympy.expand(eval(form, {}, names) - value) == 0
    assert shorter(4 * x * y) == []
    assert shorter(12) == []


def test_the_first_terms_are_those_with_the_most_axes() -> None:
    x, y, k = symbol("x"), symbol("y"), symbol("k")
    assert formula(x + k + x * y * k) == "k*x*y + k + x"
    assert formula(sympy.Max(500 * x, 16 * x * y + k, 32 * x * y)) == "max(32*x*y, 16*x*y + k, 500*x)"
    assert shorter(sympy.Max(500 * x, 16 * x * y + k, 32 * x * y)) == [
        "max(32*x*y, 16*x*y + k, …)",
        "max(32*x*y, …)",
    ]
    assert shorter(sympy.Max(2 * x, y + 1))[-1] == "max(2*x, …)"


class Stack(nn.Module):
    """Three layers of one shape, and one layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)])
        self.again = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.again(self.layers(x)))


def row(table: str, name: str) -> list[str]:
    (line,) = [line for line in body(table) if line.strip().startswith(name)]
    return line.split()


def test_a_row_of_repeated_boxes_is_for_all_of_them() -> None:
    """FLOPs are added; a layer that is called twice has its parameters once; the peak is the largest."""
    diagram = trace(Stack(), axes="5 4")
    cost = count(diagram)
    each = 2 * 5 * 4 * 4
    table = cost.table("flops parameters peak")
    assert [each.peak for each in cost.rows if each.path in ("layers.0", "layers.1", "layers.2")] == [240, 320, 320]
    assert row(table, "0…2 Sequential")[2:] == [f"{3 * each}", "60", "320", "B", "×3"]
    assert row(table, "again Linear")[2:] == [f"{2 * each}", "20", "240", "B", "×2"]
    assert row(table, "Stack")[1] == f"{5 * each}"
    shown = diagram.table(columns=[*cost.columns("flops parameters peak")])
    for name in ("0…2 Sequential", "again Linear"):
        assert row(shown, name) == row(table, name)


@pytest.mark.slow
def test_a_cost_is_columns_of_the_table_of_its_diagram() -> None:
    diagram = trace(attention)
    cost = count(diagram)
    table = diagram.table(columns=cost, width=None)
    assert re.split(r"\s{2,}", body(table)[0]) == ["box", "axes", "FLOPs", "bytes moved", "activations (B)", "peak (B)"]
    assert "4*k*x*y" in body(table)[1]
    assert diagram.table(columns=["axes", cost], width=None).split()[1] == "axes"
    costs = cost.at(y=3, x=5, k=2)
    rows = diagram.table(columns=costs.columns("flops"), sort="FLOPs")
    assert [line.split()[0] for line in body(rows)[1:3]] == ["einsum", "einsum"]
    assert "60" in body(rows)[1]
    assert "<th" in diagram.to_html(columns=cost)
    assert "4\\*k\\*x\\*y" in diagram.to_markdown(columns=cost)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: count(attention, backward=True), "the box at (0,) is"),
        (lambda: count(trace(models.MultiHeadAttention(m=16, k=4, h=2))), "the box at () is"),
    ],
)
def test_the_cost_of_another_diagram_is_refused(other: Callable[[], Cost], message: str) -> None:
    with pytest.raises(CircuitError, match="the column 'FLOPs' is of another diagram") as caught:
        trace(attention).table(columns=other().columns("flops"))
    assert message in str(caught.value)


def test_the_cost_of_a_layer_with_other_sizes_is_refused() -> None:
    diagram = trace(models.MultiHeadAttention(m=16, k=4, h=2))
    with pytest.raises(CircuitError, match=r"with 512 parameters here, .* with 1,024 parameters there"):
        diagram.table(columns=count(models.MultiHeadAttention(m=32, k=4, h=2)))


def test_groups_are_no_columns() -> None:
    cost = count(attention).at(y=3, x=5, k=2)
    for grouped in (cost.by("operation"), cost.sort("flops")):
        with pytest.raises(CircuitError, match="a group of boxes has no place in a diagram"):
            grouped.column("flops")
        assert "total" in str(grouped)


def test_many_groups_fit_a_screen() -> None:
    cost = count(nn.Sequential(*[nn.Linear(4, 4) for _ in range(60)]), axes="2 4").sort("flops")
    text = str(cost)
    assert len(body(text)) == 40
    assert "not shown  22 more rows (depth=None shows all)" in text
    assert len(body(cost.table(depth=None))) == 62
    assert body(text)[-1].split()[:2] == ["total", "3.84"]


def test_rows_in_order_say_where_operations_are() -> None:
    cost = count(Shared(), axes="2 8").sort("flops")
    assert [line.split("  ")[0] for line in body(str(cost))[1:3]] == ["linear in twice", "linear in twice"]


def test_sizes_that_are_given_are_in_the_legend() -> None:
    cost = count(attention).at(y=3)
    assert "y=3, k free from query; x free from key" in str(cost)
    assert "y=3, k=2 from query; x=5 from key" in str(cost.at(x=5, k=2).by("operation"))


def test_a_column_at_other_sizes_says_so() -> None:
    """The diagram has y free, and the numbers are for y = 3."""
    diagram = trace(attention)
    cost = count(diagram)
    assert "at           y=3, k=2, x=5: FLOPs, peak" in diagram.table(
        columns=["axes", *cost.at(y=3, k=2, x=5).columns("flops peak")]
    )
    assert "\nat " not in diagram.table(columns=["axes", cost])
    assert "\nat " not in str(cost.at(y=3))


def test_bytes_say_so() -> None:
    """Formulas have no unit, so their heading has it; numbers have theirs."""
    cost = count(attention)
    assert "peak (B)" in str(cost)
    assert "peak (B)" not in str(cost.at(x=5, y=2, k=3))
    assert re.search(r"\d B$", body(cost.at(x=5, y=2, k=3).table("peak"))[1])


def test_repetitions_in_latex() -> None:
    text = count(Stack(), axes="5 4").to_latex("flops")
    assert r"\quad layers Sequential & 480" in text
    assert r"Sequential $\times 3$ & 480" in text
    assert r"\quad again Linear $\times 2$ & 320" in text


@pytest.mark.slow
def test_a_cost_keeps_neither_the_model_nor_its_calls() -> None:
    cost = count(models.MultiHeadAttention(m=16, k=4, h=2))
    again = pickle.loads(pickle.dumps(cost))
    assert again == cost
    assert str(again) == str(cost)
    assert all(box.call is None for box in cost.box.walk())


def test_notebooks_show_the_table() -> None:
    text = count(attention)._repr_html_()
    assert text.startswith("<table>")
    assert "4*k*x*y" in text
    assert "max(" in text


def test_a_row_shows_itself_in_one_line_in_lines_and_in_notebooks() -> None:
    cost = count(attention)
    signature = "attention: ... y k, ... x k, ... x k -> ... y k"
    assert repr(cost.total) == f"BoxCost('{signature}': FLOPs 4*k*x*y, bytes moved 8*k*x + 8*k*y + 24*x*y)"
    assert repr(cost.rows[2]) == "BoxCost('mul': bytes moved 8*x*y)"
    assert repr(count(Stack(), axes="5 4").rows[-1]) == "BoxCost('linear': FLOPs 160, parameters 20, bytes moved 240 B)"
    numbers = cost.at(y=2, x=3, k=4)
    assert repr(numbers.by("operation").rows[0]) == "BoxCost('einsum': calls 2, FLOPs 96, bytes moved 208 B)"
    assert repr(numbers) == f"Cost(5 rows, '{signature}': FLOPs 96, bytes moved 304 B)"
    lines = str(numbers.total).splitlines()
    assert lines[0] == signature
    assert [line.split("  ")[1] for line in lines[1:]] == ["FLOPs", "bytes moved", "activations", "peak", "FLOPs/byte"]
    assert lines[1:3] == ["  FLOPs        96", "  bytes moved  304 B"]
    text = numbers.total._repr_html_()
    assert text.count("<tr>") == len(lines)
    assert all(f">{part}<" in text for part in (signature.replace(">", "&gt;"), "bytes moved", "304 B"))


def test_a_long_formula_is_short_in_one_line() -> None:
    x, y = symbol("x"), symbol("y")
    row = BoxCost("long", multiply_adds=1234567 * x**2 * y + 7654321 * x * y + 1111111 * x + 2222222 * y)
    assert repr(row) == "BoxCost('long': FLOPs 2469134*x**2*y + 15308642*x*y + …)"


def test_a_view_costs_nothing_and_says_so() -> None:
    row = count(lambda x: x.T, axes="a b").total
    assert repr(row) == "BoxCost('<lambda>')"
    assert str(row).splitlines()[0] == "<lambda>"


def test_a_stream_without_unicode_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = count(Stack(), axes="5 4")
    assert "…" in str(cost)
    monkeypatch.setattr("sys.stdout", type("Stream", (), {"encoding": "ascii", "closed": False})())
    assert str(cost).isascii()
