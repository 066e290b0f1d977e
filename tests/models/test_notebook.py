"""The paper's notebook, cell by cell: its assertions hold here, and its seven faults do not.

A test of a cell runs that cell's assertions on this library's code; each fault has a test with its number. The
notebook's own definitions are copied only where a test shows what is wrong with them.

Source: the notebook to V. Abbott, Neural Circuit Diagrams, TMLR 2024.
"""

import io
import itertools
import math
import re
from contextlib import redirect_stdout

import pytest
import torch
from torch import Tensor, nn

from circuits import LinearMap, ShapeError, SignatureError, Tracker, broadcast, circuit, definitions, einsum, rearrange
from models.attention import MultiHeadAttention, attention
from models.layers import DoubleConvolution, NormActivate, ResidualConnection
from models.mlp import MLP
from models.resnet import Block, IdentityResNet
from models.unet import DownScaleBlock, UNet, UpScaleBlock
from models.visual_attention import VisualAttention


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- 2.3 Tensors ------------------------------------------------------------------------------------------------------


@circuit("4 2, 6 -> 3 3")
def f(first: Tensor, second: Tensor) -> Tensor:
    """The cell's f: random numbers, since only its axes matter."""
    return torch.rand(3, 3)


@circuit("3, 3 3 -> 1 2")
def g(first: Tensor, second: Tensor) -> Tensor:
    """The cell's g."""
    return torch.rand(1, 2)


@circuit("3, 4 2, 6 -> 1 2")
def h(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """The cell's h, composed of f and g."""
    return g(first, f(second, third))


def test_a_diagram_of_two_functions() -> None:
    """The notebook has seven assertions in three function bodies; here they are signatures."""
    assert h(torch.rand(3), torch.rand(4, 2), torch.rand(6)).shape == (1, 2)


@pytest.mark.parametrize(
    "shapes", [((4,), (4, 2), (6,)), ((3,), (2, 4), (6,)), ((3,), (4, 2), (7,)), ((3,), (4,), (6,))]
)
@pytest.mark.parametrize("whole", [True, False])
def test_each_of_its_assertions_can_fail(shapes: tuple[tuple[int, ...], ...], whole: bool) -> None:
    """The assertions of h on all three inputs, those of f and g on two each."""
    first, second, third = (torch.rand(shape) for shape in shapes)
    with pytest.raises(ShapeError, match=r"^h: 3, 4 2, 6 -> 1 2" if whole else r"^[fg]: "):
        h(first, second, third) if whole else g(first, f(second, third))


def test_figure_8_a_row_of_a_table() -> None:
    table = torch.arange(0, 12).view(4, 3)
    assert table[2, :].tolist() == [6, 7, 8]


def test_figure_9_indexes_in_any_order() -> None:
    table = torch.rand(5, 7)
    for i, j in itertools.product(range(5), range(7)):
        assert table[i, j] == table[i, :][j]
        assert table[i, j] == table[:, j][i]


# --- 2.3.2 Broadcasting -----------------------------------------------------------------------------------------------


@circuit("a -> 2")
def G(vector: Tensor) -> Tensor:
    """The cell's G: a -> b, where b is 2."""
    return vector.square().sum() + torch.ones(2)


def at_each_column(columns: Tensor) -> Tensor:
    """G of every column: the cell's definition of broadcasting, with the loop's own index j."""
    answers = torch.zeros(2, columns.shape[1])
    for j in range(columns.shape[1]):
        answers[:, j] = G(columns[:, j])
    return answers


def test_figure_10_index_then_apply_is_apply_then_index() -> None:
    columns = torch.rand(3, 4)
    for lifted in (broadcast(G, "a c -> 2 c"), at_each_column, torch.vmap(G, -1, -1)):
        answers = lifted(columns)
        assert answers.shape == (2, 4)
        for j in range(4):
            assert torch.allclose(G(columns[:, j]), answers[:, j])


def test_fault_2_every_column_is_written_at_once() -> None:
    """The cell's loop over j writes column jc, a global that its assertions set before each call."""
    columns, jc = torch.rand(3, 4), 2
    theirs = torch.zeros(2, 4)
    for _ in range(4):
        theirs[:, jc] = G(columns[:, jc])
    assert torch.allclose(theirs[:, jc], G(columns[:, jc]))  # the cell asserts only this
    assert theirs.count_nonzero(0).tolist() == [0, 0, 2, 0]
    expected = torch.stack([G(column) for column in columns.T], -1)
    assert expected.ne(0).all()
    torch.testing.assert_close(broadcast(G, "a c -> 2 c")(columns), expected)
    torch.testing.assert_close(at_each_column(columns), expected)


@circuit("a, d -> 2")
def H(first: Tensor, second: Tensor) -> Tensor:
    """The cell's H: a, d -> b, where b is 2."""
    return first.abs().sum() + second.abs().sum() + torch.ones(2)


def test_figure_11_inner_broadcasting() -> None:
    rows, second = torch.rand(4, 3), torch.rand(3)
    for lifted in (broadcast(H, "c a, d -> c 2"), torch.vmap(H, (0, None), 0)):
        answers = lifted(rows, second)
        assert answers.shape == (4, 2)
        for i in range(4):
            assert torch.allclose(answers[i, :], H(rows[i, :], second))


def test_fault_3_a_signature_that_promises_other_axes_is_refused() -> None:
    """The cell's docstring says c a, d -> c d, and d is 3; the output is c b, and b is 2.

    Broadcasting H to that signature is refused before any call; a function that declares it, at its first call.
    """
    rows, second = torch.rand(4, 3), torch.rand(3)
    with pytest.raises(SignatureError, match="axis 2 of the output is missing"):
        broadcast(H, "c a, d -> c d")
    lifted = broadcast(H, "c a, d -> c 2")

    @circuit("c a, d -> c d")
    def promised(rows: Tensor, second: Tensor) -> Tensor:
        return lifted(rows, second)

    with pytest.raises(ShapeError, match="d is 2 here, but 3"):
        promised(rows, second)
    assert lifted(rows, second).shape == (4, 2)


def test_figure_12_elementwise_operations() -> None:
    @circuit("... -> ...")
    def square(number: Tensor) -> Tensor:
        return number**2

    @circuit(" -> ")
    def one(number: Tensor) -> Tensor:
        return number**2

    vector = torch.rand(3)
    for i in range(3):
        assert torch.allclose(one(vector[i]), broadcast(one, "a -> a")(vector)[i])
        assert torch.allclose(square(vector[i]), torch.vmap(square)(vector)[i])
        assert torch.allclose(square(vector[i]), square(vector)[i])


# --- 2.4 Linearity ----------------------------------------------------------------------------------------------------


def test_figure_17_scores_step_by_step_are_one_einsum() -> None:
    """The cell has both versions and compares neither; the second is the first step of `attention` here."""
    x, y, k, h = 5, 3, 4, 2
    query, key = torch.rand(y, k, h), torch.rand(x, k, h)
    turned = rearrange(key, "x k h -> k x h")
    outer = LinearMap(query, "-> y k h").outer(LinearMap(turned, "-> k' x h'"))
    diagonal = outer >> LinearMap.diagonal("k", k).named("k k' -> k") >> LinearMap.diagonal("h", h)
    steps = (diagonal >> LinearMap.identity("k ->", k=k)).ordered("-> y x h")() * k**-0.5
    expected = einsum(query, key, "y k h, x k h -> y x h") * k**-0.5
    torch.testing.assert_close(steps, expected)
    theirs = torch.einsum("ykh,lxh->yklxh", query, turned).diagonal(dim1=1, dim2=2).sum(-1) / math.sqrt(k)
    torch.testing.assert_close(theirs, expected)


def test_figure_18_a_linear_map_is_transposed_in_two_ways() -> None:
    """By broadcasting, by an outer product with the unit, and by `LinearMap.transpose`, which equals both."""
    a, b, c = 3, 4, 5
    F, data = LinearMap(torch.rand(a, b, c), "a -> b c"), torch.rand(b, a)
    at_each_row = LinearMap(broadcast(F, "b' a -> b' b c")(data), "-> b' b c")
    by_broadcasting = (at_each_row >> LinearMap.diagonal("b", b).named("b' b -> b")).tensor.sum(0)
    by_unit = LinearMap.unit("b", b).transpose("b'").outer(F.named("a -> b'' c"))
    by_linearity = (by_unit >> LinearMap.inner_product("b", b).named("b b'' ->")).named("b a -> c")(data)
    assert torch.allclose(by_broadcasting, by_linearity)
    assert torch.allclose(by_broadcasting, F.transpose("b")(data))
    theirs = torch.vmap(F)(data).diagonal(dim1=0, dim2=1).sum(-1)
    assert torch.allclose(by_linearity, theirs)


def test_figure_18_the_unit_then_an_inner_product_is_the_identity() -> None:
    vector = torch.rand(4)
    bent = LinearMap(vector, "-> b0").outer(LinearMap.unit("b", 4).named("-> b1 b2"))
    straight = bent >> LinearMap.inner_product("b", 4).named("b0 b1 ->")
    assert torch.allclose(vector, straight())


# --- 3.1 and 3.2 ------------------------------------------------------------------------------------------------------


def test_figure_19_the_cells_image() -> None:
    assert MLP().probabilities(torch.rand(1, 28, 28)).shape == (1, 10)


def test_fault_1_the_recogniser_gives_probabilities_not_a_module() -> None:
    """The cell returns `nn.Softmax(x)`: a module whose dim is the data."""
    answer = MLP().probabilities(torch.rand(1, 28, 28))
    assert isinstance(answer, Tensor)
    assert not isinstance(answer, nn.Module)
    assert answer.shape == (1, 10)
    assert answer.ge(0).all()
    torch.testing.assert_close(answer.sum(-1), torch.ones(1))


def test_figure_20_both_versions_of_the_cell() -> None:
    """Step by step, and with linear functions broadcast at once; the cell calls neither."""
    query, key, value = torch.rand(2, 3, 4), torch.rand(2, 5, 4), torch.rand(2, 5, 4)
    turned = torch.einsum("bxk->bkx", key)
    steps = torch.einsum("byk,bkx->byx", query, turned) / math.sqrt(4)
    expected = torch.einsum("byx,bxk->byk", nn.Softmax(-1)(steps), value)
    torch.testing.assert_close(attention(query, key, value), expected)
    with definitions():
        torch.testing.assert_close(attention(query, key, value), expected)


def test_figure_21_the_cells_sizes() -> None:
    target, source = torch.rand(20, 128), torch.rand(22, 128)
    assert list(MultiHeadAttention(128, 16, 4)(target, source).shape) == [20, 128]


# --- 3.4 Computer vision ----------------------------------------------------------------------------------------------


def test_figure_26_the_cells_sizes_and_classes() -> None:
    """The cell also defines NormActivate, Block and ResidualConnection as parts; its assertion is the last one here."""
    images = torch.rand(3, 3, 16, 16)
    assert NormActivate(3)(images).shape == (3, 3, 16, 16)
    assert ResidualConnection(nn.Conv2d(3, 3, 3, padding=1))(images).shape == (3, 3, 16, 16)
    assert Block(2, 3, 3, 8)(images).shape == (3, 8, 8, 8)
    assert list(IdentityResNet()(images).shape) == [3, 10]


def test_fault_4_units_have_their_own_weights() -> None:
    """A block has one strided unit and N-1 plain ones; the notebook's has 9,504 parameters for N = 1 and for N = 3."""
    counts = [count(Block(1, N, 16, 64, bias=True)) for N in (1, 2, 3)]
    plain = (2 * 64 + 64 * 16 + 16) + (2 * 16 + 9 * 16 * 16 + 16) + (2 * 16 + 16 * 64 + 64)
    strided = 2 * 16 + (16 * 16 + 16) + (2 * 16 + 9 * 16 * 16 + 16) + (2 * 16 + 16 * 64 + 64) + (16 * 64 + 64)
    assert counts == [strided, strided + plain, strided + 2 * plain]
    assert strided + plain == 9_504  # in the notebook for any N: one unit of each kind, applied repeatedly
    block = Block(2, 3, 16, 64)
    addresses = [parameter.data_ptr() for parameter in block.parameters()]
    assert len({*addresses}) == len(addresses) == 2 + 4 + 4 + 2 * 9
    assert len({id(unit) for unit in block.plain}) == 2


def test_figure_27_the_cells_parts() -> None:
    """The cell asserts nothing, and cannot run: see fault 5."""
    image = torch.rand(2, 3, 16, 16)
    assert DoubleConvolution(3, 8)(image).shape == (2, 8, 16, 16)
    half, saved = DownScaleBlock(3, 8)(image)
    assert half.shape == (2, 8, 8, 8)
    assert saved.shape == (2, 8, 16, 16)
    assert UpScaleBlock(8, 4)(half, half).shape == (2, 4, 16, 16)


def test_fault_5_the_unet_is_built_runs_and_keeps_its_size() -> None:
    """The notebook's has a convolution without kernel size, channels that do not match, plain lists of modules, a
    tensor in place of a tuple, padding where the figure has none, and returns nothing.
    """
    model = UNet(classes=2, channels=4)
    assert model.convolution.kernel_size == (1, 1)
    assert model.middle.second.in_channels == model.middle.c1 == 64
    assert len([name for name, _ in model.named_parameters() if name.startswith(("down", "up"))]) == 4 * 4 + 3 * 6
    assert not any(module.padding for module in model.modules() if isinstance(module, nn.MaxPool2d))
    assert {module.padding for module in model.modules() if isinstance(module, nn.ConvTranspose2d)} == {(0, 0)}
    answer = model(torch.rand(3, 1, 48, 16))
    assert isinstance(answer, Tensor)
    assert answer.shape == (3, 2, 48, 16)


# --- 3.5 Visual attention ---------------------------------------------------------------------------------------------


def test_fault_6_visual_attention_loses_no_rows() -> None:
    """The cell's docstring says cY, cX -> cY, but its two convolutions reduce 16 rows and columns to 15."""
    target, source = torch.rand(1, 33, 16, 16), torch.rand(1, 33, 16, 16)
    there, back = nn.Conv2d(33, 32, 3, 3), nn.ConvTranspose2d(32, 33, 3, 3)
    assert back(there(target)).shape == (1, 33, 15, 15)
    assert VisualAttention(33, 8, 4, 3, 3)(target, source).shape == (1, 33, 16, 16)


# --- The appendix -----------------------------------------------------------------------------------------------------


def printed(module: nn.Module, *inputs: Tensor) -> str:
    with redirect_stdout(io.StringIO()) as out:
        module(*inputs)
    return out.getvalue()


def test_the_appendix_prints_the_sizes_of_its_example() -> None:
    query = Tracker(nn.Conv2d(33, 4 * 8, 3, 3), "Query convolution")
    assert printed(query, torch.rand(1, 33, 16, 16)) == "Query convolution: \t 1 33 16 16 -> 1 32 5 5\n"


def test_fault_7_a_tracker_runs_hooks_takes_any_tensors_and_prints_axes() -> None:
    """The notebook's calls `module.forward` with one tensor, and prints sizes without names."""
    module, seen = MultiHeadAttention(128, 16, 4), []
    module.register_forward_hook(lambda *_: seen.append("hook"))
    target, source = torch.rand(20, 128), torch.rand(22, 128)
    tracked = Tracker(module, "heads")
    text = printed(tracked, target, source)
    assert seen == ["hook"]
    assert torch.equal(tracked.module(target, source), module(target, source))
    assert re.sub(r"\s+", " ", text).strip() == "heads: 20 128, 22 128 -> 20 128 ... y m, ... x m -> ... y m"
