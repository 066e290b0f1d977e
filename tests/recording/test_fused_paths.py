"""torch's Transformer modules in eval mode: their fused paths compute other values at padded places."""

# For pyright, an inner module is a Tensor or a Module.
# pyright: reportArgumentType=false, reportIndexIssue=false
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, backward, simplify, trace, track

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

MASKS = {
    "padded at the end": [[False] * 5, [False] * 3 + [True] * 2],
    "padded at the start": [[False] * 5, [True] * 2 + [False] * 3],
    "padded everywhere": [[False] * 5, [True] * 5],
    "not padded": [[False] * 5] * 2,
}


class PaddedEncoder(nn.TransformerEncoder):
    """An encoder that makes the mask itself."""

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        mask = torch.arange(sequence.shape[1])[None] >= lengths[:, None]
        return super().forward(sequence, src_key_padding_mask=mask)


def layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoder(layer(), 2).eval()


class SelfAttention(nn.Module):
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(8, 2, batch_first=True).eval(), weights

    def forward(self, x: Tensor, *, src_key_padding_mask: Tensor) -> Any:
        return self.attention(x, x, x, src_key_padding_mask, self.weights)[0]


class LayerByPlace(nn.Module):
    """A layer that is called with the mask by its place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = layer()

    def forward(self, x: Tensor, *, src_key_padding_mask: Tensor) -> Any:
        return self.layer(x, None, src_key_padding_mask)


def encoder_of_layers_in_eval_mode() -> nn.Module:
    """Only the mode of the first layer decides."""
    model = encoder()
    model.training = True
    return model


class Inside(nn.Module):
    """An encoder between other operations, called with the mask by its place."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(layer(), 2, nn.LayerNorm(8))

    def forward(self, x: Tensor, *, src_key_padding_mask: Tensor) -> Any:
        return {"y": self.encoder(x * 2, None, src_key_padding_mask) + x}


MODELS: dict[str, Callable[[], nn.Module]] = {
    "encoder": encoder,
    "encoder without nested tensors": lambda: nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False),
    "inside": Inside,
    "encoder of layers in eval mode": encoder_of_layers_in_eval_mode,
    "layer": layer,
    "layer by place": LayerByPlace,
    "attention": lambda: SelfAttention(weights=False),
    "attention with weights": lambda: SelfAttention(weights=True),
}


def recordings(model: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Diagram]:
    """Yield diagrams of a model by trace and by track, recorded with gradients and without."""
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            traced = trace(model, *args, **kwargs)
            with track(model, to=None) as seen:
                model(*args, **kwargs)
        yield from (traced, seen.diagram)


@pytest.mark.every(8)
@pytest.mark.parametrize("name", MODELS)
def test_the_diagram_takes_the_path_that_the_model_takes(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name](), torch.rand(2, 5, 8)
    for diagram in recordings(model, x, src_key_padding_mask=torch.tensor(MASKS["padded at the end"])):
        for mask in map(torch.tensor, MASKS.values()):
            for gradients in (True, False):
                with torch.set_grad_enabled(gradients):
                    expected = model(x, src_key_padding_mask=mask)
                    found = diagram(x, src_key_padding_mask=mask)
                torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_generated_and_simplified_code_takes_the_path_that_the_model_takes() -> None:
    model, x, mask = encoder(), torch.rand(2, 5, 8), torch.tensor(MASKS["padded at the end"])
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=mask)
        for diagram in recordings(model, x, src_key_padding_mask=mask):
            assert torch.equal(diagram.function()(x, mask), expected)
        simplified = simplify(trace(model, x, src_key_padding_mask=mask))
        assert torch.equal(simplified(x, src_key_padding_mask=mask), expected)
    assert torch.count_nonzero(expected[1, 3:]) == 0


def test_an_encoder_that_makes_the_mask_itself() -> None:
    torch.manual_seed(0)
    model, x = PaddedEncoder(layer(), 2).eval(), torch.rand(2, 5, 8)
    for diagram in recordings(model, x, torch.tensor([5, 3])):
        with torch.no_grad():
            assert torch.equal(diagram(x, torch.tensor([2, 4])), model(x, torch.tensor([2, 4])))


@pytest.mark.slow
def test_an_encoder_with_free_axes() -> None:
    model = encoder()

    def run(x: Tensor, padding: Tensor) -> Tensor:
        return model(x, src_key_padding_mask=padding > 0)

    diagram = trace(run, axes="b x m, b x", sizes={"m": 8})
    x, padding = torch.rand(3, 4, 8), torch.arange(4) - torch.tensor([[4.0], [1.0], [2.0]])
    with torch.no_grad():
        assert torch.equal(diagram(x, padding), run(x, padding))


@pytest.mark.slow
def test_gradients_of_an_encoder_with_a_mask() -> None:
    model, mask = encoder().double(), torch.tensor(MASKS["padded at the end"])
    x = torch.rand(2, 5, 8, dtype=torch.float64, requires_grad=True)
    y = model(x, src_key_padding_mask=mask)
    cotangent = torch.rand_like(y)
    found = backward(model, x, src_key_padding_mask=mask)(x, mask, cotangent)
    expected = torch.autograd.grad(y, [x, *model.parameters()], cotangent)
    names = ["src", *[name for name, _ in model.named_parameters()]]
    for name, gradient in zip(names, expected, strict=True):
        # The kernel that autograd reverses rounds differently; float64 keeps 16 digits, of which the layers lose some.
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_an_encoder_without_a_mask_or_in_training_is_open() -> None:
    model, x = encoder(), torch.rand(2, 5, 8)
    mask = torch.tensor(MASKS["padded at the end"])
    assert trace(model, x).box.call is None
    for model in (layer().eval(), SelfAttention(weights=False).eval()):
        assert all(
            box.call is None for box in trace(model, x, src_key_padding_mask=None).walk() if box.kind == "module"
        )
    assert trace(encoder().train(), x, src_key_padding_mask=mask).box.call is None


ATTENTION_MASKS = [
    torch.ones(5, 5, dtype=torch.bool).triu(1),
    torch.eye(5, dtype=torch.bool)[2:3].T.expand(5, 5),
    torch.ones(5, 5, dtype=torch.bool).tril(),
]
"""A causal mask, and masks in which a query may attend to no key."""


@pytest.mark.every(8)
@pytest.mark.parametrize("recorded", [0, 1])
@pytest.mark.parametrize("name", ["layer", "attention", "attention with weights", "decoder"])
def test_a_query_that_may_attend_to_no_key(name: str, recorded: int) -> None:
    """The fused path gives NaN where the other one gives something else."""

    class Runs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = nn.TransformerDecoderLayer if name == "decoder" else nn.TransformerEncoderLayer
            self.part: Any = kind(8, 2, 16, batch_first=True)
            if name.startswith("attention"):
                self.part = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor, mask: Tensor) -> Any:
            if name == "decoder":
                return self.part(x, x, mask)
            if name == "layer":
                return self.part(x, mask)
            return self.part(x, x, x, None, name != "attention", mask)[0]

    torch.manual_seed(0)
    model, x = Runs().eval(), torch.rand(2, 5, 8)
    for diagram in recordings(model, x, ATTENTION_MASKS[recorded]):
        for mask in ATTENTION_MASKS:
            for gradients in (True, False):
                with torch.set_grad_enabled(gradients):
                    torch.testing.assert_close(diagram(x, mask), model(x, mask), equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "layer", "attention"])
def test_forward_called_without_the_module(name: str) -> None:
    """By `trace` of the method, and by the code around the module, which has a hook that is then not called."""
    torch.manual_seed(0)
    part: Any = nn.MultiheadAttention(8, 2, batch_first=True) if name == "attention" else MODELS[name]()
    part.eval()
    word = "key_padding_mask" if name == "attention" else "src_key_padding_mask"
    x, first = torch.rand(2, 5, 8), torch.tensor(MASKS["padded at the end"])
    values = (x, x, x) if name == "attention" else (x,)

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = part

        def forward(self, mask: Tensor) -> Any:
            return self.part.forward(*values, **{word: mask})

    around = Around().eval()
    part.register_forward_hook(lambda *_: pytest.fail("forward does not call hooks"))
    method = trace(part.forward, *values, **{word: first})
    for mask in map(torch.tensor, MASKS.values()):
        with torch.no_grad():
            expected = part.forward(*values, **{word: mask})
            torch.testing.assert_close(method(*values, **{word: mask}), expected, equal_nan=True)
            for diagram in recordings(around, first):
                torch.testing.assert_close(diagram(mask), expected, equal_nan=True)
