import math
from contextlib import nullcontext
from typing import Any

import einops
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, definitions, find_circuit, trace
from models.attention import MultiHeadAttention
from models.visual_attention import VisualAttention

GRID = [(kernel, stride) for kernel in range(1, 5) for stride in range(1, kernel + 1)] + [(5, 2), (7, 3)]

both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])
windows = pytest.mark.parametrize(("kernel", "stride"), GRID)


# --- Oracles: slower, plainer, and written without this library -------------------------------------------------------


def starts(size: int, kernel: int, stride: int) -> list[int]:
    """The positions along an axis at which windows begin, up to the first window that reaches the end."""
    found = [0]
    while found[-1] + kernel < size:
        found.append(found[-1] + stride)
    return found


def by_windows(model: VisualAttention, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """Figure 28 for one example: cut out every window, attend head by head, and add each output to its window."""
    w, k, (c, i, j) = model.w, model.k, target.shape

    def cut(image: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
        below, right = (starts(size, w, model.s) for size in image.shape[1:])
        canvas = image.new_zeros(c, below[-1] + w, right[-1] + w)
        canvas[:, : image.shape[1], : image.shape[2]] += image
        places = [(a, b) for a in below for b in right]
        return torch.stack([canvas[:, a : a + w, b : b + w].reshape(-1) for a, b in places]), places

    def seen(patches: Tensor, box: nn.Conv2d) -> Tensor:
        return patches @ box.weight.reshape(len(box.weight), -1).T + (0 if box.bias is None else box.bias)

    (asking, places), (answering, others) = cut(target), cut(source)
    query, key, value = seen(asking, model.Cq), seen(answering, model.Ck), seen(answering, model.Cv)
    mixed = []
    for head in range(model.h):
        own = slice(head * k, (head + 1) * k)
        score = query[:, own] @ key[:, own].T / math.sqrt(k)
        if mask is not None:
            flat = mask.reshape(len(places), len(others))
            score = score.masked_fill(~flat, -math.inf) if flat.dtype == torch.bool else score + flat
        mixed.append(score.softmax(-1).nan_to_num(0) @ value[:, own])
    written = torch.cat(mixed, -1) @ model.Co.weight.reshape(model.h * k, -1)
    canvas = target.new_zeros(c, i + w, j + w)
    for (a, b), patch in zip(places, written, strict=True):
        canvas[:, a : a + w, b : b + w] += patch.reshape(c, w, w)
    return canvas[:, :i, :j] + (0 if model.Co.bias is None else model.Co.bias[:, None, None])


def by_torch(model: VisualAttention, target: Tensor, source: Tensor) -> Tensor:
    """Figure 28 by torch's own operators, for windows that fit without a remainder."""
    convolved = [
        F.conv2d(image, box.weight, box.bias, model.s)
        for image, box in ((target, model.Cq), (source, model.Ck), (source, model.Cv))
    ]
    query, key, value = (each.unflatten(1, (model.h, model.k)).flatten(3).transpose(2, 3) for each in convolved)
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(convolved[0].shape)
    return F.conv_transpose2d(mixed, model.Co.weight, model.Co.bias, model.s)


class Notebook(nn.Module):
    """The class of the paper's notebook as published, except for the names of types."""

    def __init__(self, c: int, k: int, heads: int = 1, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.c, self.k, self.h, self.w = c, k, heads, kernel
        self.Cq = nn.Conv2d(c, k * heads, kernel, stride)
        self.Ck = nn.Conv2d(c, k * heads, kernel, stride)
        self.Cv = nn.Conv2d(c, k * heads, kernel, stride)
        self.Co = nn.ConvTranspose2d(k * heads, c, kernel, stride)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        def unbind(x: Tensor) -> Tensor:
            return einops.rearrange(x, "N (k h) H W -> N (H W) k h", h=self.h)

        q = self.Cq(target)
        width = q.size()[-1]
        q, k, v = unbind(q), unbind(self.Ck(source)), unbind(self.Cv(source))
        x = einops.einsum(q, k, "... y k h, ... x k h -> ... y x h")
        x = nn.Softmax(-2)(x / math.sqrt(k.size()[-2]))
        x = einops.einsum(x, v, "... y x h, ... x k h -> ... y k h")
        return self.Co(einops.rearrange(x, "N (H W) k h -> N (k h) H W", h=self.h, W=width))

    def load(self, ours: VisualAttention) -> None:
        """Load the weights of a VisualAttention; in the notebook's class heads come last, `(k h)`."""
        turned = {
            name: value if name == "Co.bias" else einops.rearrange(value, "(h k) ... -> (k h) ...", h=self.h)
            for name, value in ours.state_dict().items()
        }
        self.load_state_dict(turned)


def images(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def gradients(answer: Tensor, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a sum with a different weight for every number."""
    return torch.autograd.grad((answer * torch.arange(1, answer.numel() + 1).view_as(answer).cos()).sum(), wanted)


# --- Shapes -----------------------------------------------------------------------------------------------------------


@windows
def test_shapes_are_the_signatures(kernel: int, stride: int) -> None:
    """Every axis has a prime size of its own, on meta, where nothing is computed."""
    model = VisualAttention(3, 5, 7, kernel, stride, device="meta")
    found = find_circuit(model)
    assert found is not None
    assert str(found.signature) == "b c i j, b c u v -> b c i j"
    sizes = {"b": 2, "c": 3, "i": 11, "j": 13, "u": 17, "v": 19}
    sides = [
        [[sizes[axis] for axis in each.split()] for each in side.split(",")]
        for side in str(found.signature).split("->")
    ]
    inputs = [torch.empty(shape, device="meta") for shape in sides[0]]
    assert list(model(*inputs).shape) == sides[1][0]


@pytest.mark.slow
@given(data=st.data(), kernel=st.integers(1, 6))
def test_the_output_is_as_large_as_the_target_whatever_the_sizes(data: st.DataObject, kernel: int) -> None:
    stride = data.draw(st.integers(1, kernel))
    i, j, u, v = (data.draw(st.integers(kernel, 40)) for _ in range(4))
    model = VisualAttention(2, 3, 2, kernel, stride, device="meta")
    answer = model(torch.empty(3, 2, i, j, device="meta"), torch.empty(3, 2, u, v, device="meta"))
    assert answer.shape == (3, 2, i, j)


@windows
def test_every_pixel_is_in_a_query_in_a_key_and_in_the_output(kernel: int, stride: int) -> None:
    """Without a bias no number of the output, or of a gradient, is zero."""
    model = VisualAttention(2, 3, 2, kernel, stride, dtype=torch.float64)
    target, source = images((1, 2, kernel + 3, kernel + 4), (1, 2, kernel + 5, kernel + 2))
    answer = model(target, source)
    assert answer.ne(0).all()
    for gradient in gradients(answer, [target, source]):
        assert gradient.ne(0).all()


@pytest.mark.parametrize("batch", [0, 1])
def test_few_examples_are_examples(batch: int) -> None:
    model = VisualAttention(2, 3, 2, 3, 2)
    assert model(torch.rand(batch, 2, 6, 5), torch.rand(batch, 2, 4, 7)).shape == (batch, 2, 6, 5)


# --- Values -----------------------------------------------------------------------------------------------------------


@both_ways
@windows
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_the_loop_over_windows(
    way: Any, kernel: int, stride: int, bias: bool
) -> None:
    model = VisualAttention(2, 3, 2, kernel, stride, bias=bias, dtype=torch.float64)
    target, source = images((2, 2, kernel + 3, kernel + 4), (2, 2, kernel + 2, kernel))
    wanted = [target, source, *model.parameters()]
    with way():
        answer = model(target, source)
    expected = torch.stack([by_windows(model, *each) for each in zip(target, source, strict=True)])
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(gradients(answer, wanted), gradients(expected, wanted))


@both_ways
@windows
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_windows_fit_it_is_torchs_operators(way: Any, kernel: int, stride: int, dtype: torch.dtype) -> None:
    model = VisualAttention(3, 4, 2, kernel, stride, bias=True, dtype=dtype)
    target, source = images(
        (2, 3, kernel + 2 * stride, kernel + stride), (2, 3, kernel + stride, kernel + 3 * stride), dtype=dtype
    )
    wanted = [target, source, *model.parameters()]
    with way():
        answer = model(target, source)
    expected = by_torch(model, target, source)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(gradients(answer, wanted), gradients(expected, wanted))


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 3, 15), (3, 1, 16), (1, 1, 16), (4, 2, 16)])
def test_where_windows_fit_it_is_the_notebooks_class(kernel: int, stride: int, size: int) -> None:
    ours = VisualAttention(5, 3, 4, kernel, stride, bias=True, dtype=torch.float64)
    theirs = Notebook(5, 3, 4, kernel, stride).double()
    theirs.load(ours)
    target, source = images((2, 5, size, size), (2, 5, size, size))
    answer, expected = ours(target, source), theirs(target, source)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(gradients(answer, [target, source]), gradients(expected, [target, source]))


@both_ways
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_windows_of_one_place_are_multi_head_attention(way: Any, bias: bool, masked: bool, dtype: torch.dtype) -> None:
    """With the same weights: values, and gradients with respect to images and weights."""
    ours = VisualAttention(6, 3, 4, bias=bias, dtype=dtype)
    plain = MultiHeadAttention(6, 3, 4, bias=bias, dtype=dtype)
    pairs = [(ours.Cq, plain.Lq), (ours.Ck, plain.Lk), (ours.Cv, plain.Lv), (ours.Co, plain.Lo)]
    with torch.no_grad():
        for box, linear in pairs:
            weight = box.weight[:, :, 0, 0]
            linear.weight.copy_(weight.T if box is ours.Co else weight)
            if box.bias is not None:
                linear.bias.copy_(box.bias)
    target, source = images((2, 6, 4, 5), (2, 6, 3, 7), dtype=dtype)
    mask = torch.rand(2, 4, 5, 3, 7) < 0.6 if masked else None
    with way():
        answer = ours(target, source, mask)
        flat = plain(
            target.flatten(2).transpose(1, 2),
            source.flatten(2).transpose(1, 2),
            None if mask is None else mask.reshape(2, 20, 21),
        )
    expected = flat.transpose(1, 2).unflatten(2, (4, 5))
    torch.testing.assert_close(answer, expected)
    mine, others = list(ours.parameters()), list(plain.parameters())
    found, wanted = gradients(answer, [target, source, *mine]), gradients(expected, [target, source, *others])
    torch.testing.assert_close(found[:2], wanted[:2])
    names = [name for name, _ in ours.named_parameters()]
    for name, one, other in zip(names, found[2:], wanted[2:], strict=True):
        weight = one.reshape(one.shape[:2]) if name.endswith("weight") else one
        torch.testing.assert_close(weight, other.T if name == "Co.weight" else other)


@both_ways
@pytest.mark.parametrize("kind", ["bool", "floating", "bool, some rows empty"])
def test_a_mask_says_which_window_may_attend_to_which(way: Any, kind: str) -> None:
    model = VisualAttention(2, 3, 2, 3, 2, bias=True, dtype=torch.float64)
    target, source = images((2, 2, 8, 6), (2, 2, 5, 7))
    mask = torch.randn(2, 4, 3, 2, 3, dtype=torch.float64)
    if kind != "floating":
        mask = mask < 0.3
        mask[:, :, :, 0, 0] = True
    if "empty" in kind:
        mask[:, 1] = False
    with way():
        answer = model(target, source, mask)
    expected = torch.stack([by_windows(model, *each) for each in zip(target, source, mask, strict=True)])
    torch.testing.assert_close(answer, expected)


@pytest.mark.slow
def test_gradients_are_right() -> None:
    model = VisualAttention(2, 2, 2, 3, 2, bias=True, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def run(target: Tensor, source: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (target, source))

    assert torch.autograd.gradcheck(run, (*images((1, 2, 4, 3), (1, 2, 3, 4)), *model.parameters()))


# --- Examples and their order -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch 2.13 loops over the fused kernel
def test_it_maps_over_batches_and_models() -> None:
    model, other = VisualAttention(3, 4, 2, 3, 2), VisualAttention(3, 4, 2, 3, 2)
    target, source = torch.randn(5, 2, 3, 7, 8), torch.randn(5, 2, 3, 6, 5)
    expected = torch.stack([model(*each) for each in zip(target, source, strict=True)])
    torch.testing.assert_close(torch.vmap(model)(target, source), expected)
    pairs = zip(model.state_dict().items(), other.state_dict().values(), strict=True)
    stacked = {name: torch.stack([mine, theirs]) for (name, mine), theirs in pairs}
    both = torch.vmap(lambda weights: torch.func.functional_call(model, weights, (target[0], source[0])))(stacked)
    torch.testing.assert_close(both, torch.stack([model(target[0], source[0]), other(target[0], source[0])]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_memory_layout_is_accepted(layout: torch.memory_format) -> None:
    model = VisualAttention(3, 4, 2, 3, 2)
    target, source = torch.randn(2, 3, 8, 7), torch.randn(2, 3, 6, 9)
    given = [each.to(memory_format=layout) for each in (target, source)]
    torch.testing.assert_close(model(*given), model(target, source))
    turned = [each.transpose(2, 3).contiguous().transpose(2, 3) for each in (target, source)]
    torch.testing.assert_close(model(*turned), model(target, source))


# --- A module among modules -------------------------------------------------------------------------------------------


@given(
    c=st.integers(1, 4), k=st.integers(1, 4), h=st.integers(1, 3), geometry=st.sampled_from(GRID), bias=st.booleans()
)
def test_parameters_are_as_many_as_the_formula_says(
    c: int, k: int, h: int, geometry: tuple[int, int], bias: bool
) -> None:
    model, w = VisualAttention(c, k, h, *geometry, bias=bias), geometry[0]
    assert sum(each.numel() for each in model.parameters()) == 4 * c * h * k * w * w + bias * (3 * h * k + c)


def test_names_and_axes_of_weights_stay() -> None:
    shapes = {
        name: tuple(value.shape) for name, value in VisualAttention(3, 4, 2, 5, 2, bias=True).state_dict().items()
    }
    assert shapes == {
        "Cq.weight": (8, 3, 5, 5),
        "Cq.bias": (8,),
        "Ck.weight": (8, 3, 5, 5),
        "Ck.bias": (8,),
        "Cv.weight": (8, 3, 5, 5),
        "Cv.bias": (8,),
        "Co.weight": (8, 3, 5, 5),
        "Co.bias": (3,),
    }
    assert list(VisualAttention(3, 4).state_dict()) == ["Cq.weight", "Ck.weight", "Cv.weight", "Co.weight"]


def test_weights_are_initialized_as_the_docstring_says() -> None:
    """Uniform within a bound: the largest number is close to it, and the variance is a third of its square."""
    model, bound = VisualAttention(5, 16, 4, 3, 3, bias=True), (5 * 3 * 3) ** -0.5
    for parameter in model.parameters():
        assert parameter.abs().max() <= bound
    for box in (model.Cq, model.Ck, model.Cv, model.Co):
        assert box.weight.abs().max() > 0.99 * bound
        torch.testing.assert_close(box.weight.var(), torch.tensor(bound**2 / 3), rtol=0.1, atol=0)  # of 2,880 numbers


def test_a_step_of_training_learns() -> None:
    model = VisualAttention(3, 4, 2, 3, 2, dropout=0.1).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    target, source = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    losses = []
    for _ in range(20):
        loss = (model(target, source) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_dropout_is_for_training_alone() -> None:
    model, image = VisualAttention(3, 4, 2, 3, 2, dropout=0.5), torch.randn(2, 3, 8, 8)
    assert not torch.equal(model(image, image), model(image, image))
    model.eval()
    assert torch.equal(model(image, image), model(image, image))


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 4), (2, 9)])
def test_windows_with_gaps_between_them_are_refused(kernel: int, stride: int) -> None:
    with pytest.raises(
        CircuitError, match=f"windows of {kernel} leave gaps at a stride of {stride}; it may be 1 to {kernel}"
    ):
        VisualAttention(3, 4, 2, kernel, stride)


@pytest.mark.parametrize("name", ["c", "k", "heads", "kernel", "stride"])
@pytest.mark.parametrize("size", [0, -1])
def test_numbers_that_must_be_at_least_one_are_refused_by_name(name: str, size: int) -> None:
    sizes: dict[str, Any] = {"c": 3, "k": 4, "heads": 2, "kernel": 1, "stride": 1, name: size}
    with pytest.raises(CircuitError, match=f"VisualAttention: {name} is {size}; it may be 1 or more"):
        VisualAttention(**sizes)


@pytest.mark.parametrize("name", ["target", "source"])
@pytest.mark.parametrize("size", [(2, 9), (9, 2), (0, 3)])
def test_an_image_smaller_than_a_window_is_refused(name: str, size: tuple[int, int]) -> None:
    inputs = {"target": torch.rand(1, 3, 5, 5), "source": torch.rand(1, 3, 5, 5), name: torch.rand(1, 3, *size)}
    with pytest.raises(CircuitError, match=f"{name} is {size[0]} by {size[1]}, .* may be 3 by 3 or larger"):
        VisualAttention(3, 4, 2, 3, 2)(**inputs)


def test_axes_that_clash_are_named() -> None:
    model, image = VisualAttention(3, 4, 2, 3, 2), torch.rand(2, 3, 8, 8)
    with pytest.raises(ShapeError, match="c is 4 here, but 3"):
        model(image, torch.rand(2, 4, 8, 8))
    with pytest.raises(ShapeError, match="b is 3 here, but 2"):
        model(image, torch.rand(3, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"VisualAttention\.forward"):
        model(image[0], image[0])
    with pytest.raises(ShapeError, match="mask"):
        model(image, image, torch.ones(2, 4, 4, 4, 3, dtype=torch.bool))
    with pytest.raises(CircuitError, match=r"not torch\.int64"):
        model(image, image, torch.ones(2, 4, 4, 4, 4, dtype=torch.long))


# --- One graph, and the diagram ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_is_one_graph() -> None:
    torch.compiler.reset()
    model = VisualAttention(3, 4, 2, 3, 2)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    target, source = images((2, 3, 7, 8), (2, 3, 5, 7), dtype=torch.float32)
    torch.testing.assert_close(compiled(target, source), model(target, source))


@pytest.mark.every(1, 2)
@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("dynamic", [False, True])
def test_it_is_one_graph_forward_and_backward_for_images_of_many_sizes(way: Any, dynamic: bool) -> None:
    torch.compiler.reset()
    model = VisualAttention(3, 4, 2, 3, 2)
    with way():
        compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        for b, i, j, u in ((2, 7, 8, 5), (3, 9, 6, 4)):
            target, source = images((b, 3, i, j), (b, 3, u, 7), dtype=torch.float32)
            answer, expected = compiled(target, source), model(target, source)
            torch.testing.assert_close(answer, expected)
            wanted = [target, source, *model.parameters()]
            torch.testing.assert_close(gradients(answer, wanted), gradients(expected, wanted))


@pytest.mark.every(1, 2)
@pytest.mark.slow
@both_ways
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2)])
def test_compiled_code_gives_the_same_values_and_gradients(way: Any, kernel: int, stride: int) -> None:
    """With as many windows as heads, where torch 2.13 can confuse two matrix products.

    For images of fixed size: with symbolic sizes, Inductor of torch 2.13 cannot compile the reverse pass.
    """
    torch.compiler.reset()
    model, size = VisualAttention(3, 4, 4, kernel, stride), kernel + stride
    target, source = images((2, 3, size, size), (2, 3, size, size), dtype=torch.float32)
    with way():
        compiled = torch.compile(model, fullgraph=True, dynamic=False)
        with torch.no_grad():
            torch.testing.assert_close(compiled(target, source), model(target, source))
        answer, expected = compiled(target, source), model(target, source)
    wanted = [target, source, *model.parameters()]
    torch.testing.assert_close(gradients(answer, wanted), gradients(expected, wanted))


@pytest.mark.slow
def test_it_exports_with_images_of_any_size() -> None:
    model, free = VisualAttention(3, 4, 2, 3, 2), dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    program = torch.export.export(
        model, (torch.randn(2, 3, 7, 8), torch.randn(2, 3, 6, 5)), dynamic_shapes={"target": free, "source": free}
    )
    target, source = torch.randn(3, 3, 11, 12), torch.randn(3, 3, 9, 6)
    torch.testing.assert_close(program.module()(target, source), model(target, source))


def test_the_diagram_shows_the_figure() -> None:
    diagram = trace(VisualAttention(33, 8, 4, 3, 3), sizes={"i": 16, "j": 16, "u": 12, "v": 20})
    table = diagram.table(width=300)
    for part in (
        "b 33 16 16, b 33 12 20 -> b 33 16 16",
        "pad",
        "Cq Conv2d",
        "b 33 18 18 -> b 32 6 6",
        "softmax over x",
        "b 4 36 8, b 4 28 8 -> b 4 36 28",
        "Co ConvTranspose2d",
        " 38,016",
    ):
        assert part in table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "stride"), [(3, 3), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 1), (3, 1), (4, 2)))]
)
def test_the_diagram_keeps_its_axes_free(kernel: int, stride: int) -> None:
    """The diagram also runs at sizes other than the recorded ones."""
    model = VisualAttention(3, 4, 2, kernel, stride)
    diagram = trace(model)
    assert "b 3 i j, b 3 u v -> b 3 i j" in diagram.table(columns="sizes", width=300)
    assert "fixed by" not in str(diagram)
    target, source = torch.randn(2, 3, 9, 10), torch.randn(2, 3, 7, 8)
    torch.testing.assert_close(diagram(target, source), model(target, source))
