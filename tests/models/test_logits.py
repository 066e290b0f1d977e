"""The `forward` of every classifier and language model returns logits, and `probabilities` is the figure's softmax."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import models
from circuits import backward, find_circuit, trace
from scripts.tasks import VisualRecogniser

N = 4
"""The number of classes, or tokens."""

SMALL: dict[str, Any] = {"m": 16, "k": 8, "h": 2, "f": 32}
TEXT = torch.tensor([[0, 3, 1, 2, 0], [1, 0, 3, 3, 2]])
"""Two texts; which token follows, after the last the first again, is known from the tokens so far."""

Made = tuple[Any, tuple[Tensor, ...], Tensor]


def image(*shape: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Eight images, and the class of each."""
    return (torch.rand(8, *shape),), torch.arange(8) % N


CLASSIFIERS: dict[str, Callable[[], Made]] = {
    "MLP": lambda: (models.MLP(4, 4, 32, N), *image(4, 4)),
    "IdentityResNet": lambda: (models.IdentityResNet(1, (8, 16, 16, 16), N), *image(3, 8, 8)),
    "VisionTransformer": lambda: (
        models.VisionTransformer(8, 4, **SMALL, depth=1, classes=N), *image(3, 8, 8),
    ),
    "UNet": lambda: (models.UNet(N, 4), (torch.rand(2, 1, 16, 16),), torch.arange(512).view(2, 16, 16) // 16 % N),
    "VisualRecogniser": lambda: (VisualRecogniser(2, 32, 8, 2, N), *image(1, 6, 6)),
    "LanguageModel": lambda: (models.LanguageModel(N, **SMALL, depth=1), (TEXT,), TEXT.roll(1, -1)),
    "SequenceToSequence": lambda: (
        models.SequenceToSequence(N, **SMALL, encoder_depth=1, decoder_depth=1, dropout=0),
        (TEXT, TEXT), TEXT.roll(1, -1),
    ),
}  # fmt: skip
FIGURES = ("MLP", "IdentityResNet", "LanguageModel", "SequenceToSequence")
"""Those whose figure ends with a softmax."""


@pytest.mark.every(3)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_it_learns_by_the_cross_entropy_of_its_output(name: str) -> None:
    """As users of PyTorch write it. Of probabilities the loss would never be below log(e + 3) - 1 = 0.74."""
    model, inputs, right = CLASSIFIERS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    loss = torch.tensor(torch.inf)
    for _ in range(150):
        answer = model(*inputs)
        if name != "UNet":
            answer, right = answer.flatten(0, -2), right.flatten()
        loss = F.cross_entropy(answer, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.3:
            break
    assert loss < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_probabilities_are_the_softmax_with_the_signature_of_forward(name: str) -> None:
    model, inputs, _ = CLASSIFIERS[name]()
    model = model.eval()
    answer, method = model(*inputs), model.probabilities
    assert isinstance(answer, Tensor)
    torch.testing.assert_close(method(*inputs), answer.exp() / answer.exp().sum(-1, keepdim=True))
    whole, circuit = find_circuit(method), find_circuit(model)
    assert whole is not None
    assert circuit is not None
    assert whole.signature == circuit.signature
    assert "softmax over" in [*trace(method).walk()][-1].label
    assert "softmax over" not in [*trace(model).walk()][-1].label


@pytest.mark.parametrize("name", FIGURES)
def test_hooks_of_the_model_run_for_probabilities_too(name: str) -> None:
    model, inputs, _ = CLASSIFIERS[name]()
    seen: list[Any] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    model.probabilities(*inputs)
    assert seen == [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_the_gradient_of_the_figure_is_a_diagram(name: str) -> None:
    """The gradients of all parameters, equal to autograd's."""
    model, inputs, _ = CLASSIFIERS[name]()
    model = model.double().eval()
    inputs = tuple(each.double() if each.is_floating_point() else each for each in inputs)
    answer = model.probabilities(*inputs)
    back = torch.randn_like(answer)
    names, weights = zip(*model.named_parameters(), strict=True)
    found = backward(model.probabilities, *inputs)(*inputs, back)
    for each, expected in zip(names, torch.autograd.grad(answer, weights, back), strict=True):
        torch.testing.assert_close(found[each], expected)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name not in FIGURES])
def test_where_the_figure_ends_with_logits_there_is_no_second_method(name: str) -> None:
    assert not hasattr(CLASSIFIERS[name]()[0], "probabilities")


@pytest.mark.parametrize("name", [*CLASSIFIERS, "ConvAttention"])
def test_no_model_has_a_method_for_logits_alone(name: str) -> None:
    model = models.ConvAttention() if name == "ConvAttention" else CLASSIFIERS[name]()[0]
    assert not hasattr(model, "logits")
