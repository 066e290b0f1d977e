"""`with_classes` of every classifier: a copy with a new head, which can be trained and saved."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from circuits import CircuitError, ShapeError

IMAGES = torch.randn(2, 3, 16, 16)
MADE: dict[str, tuple[Any, torch.Tensor, str]] = {
    "MLP": (lambda: models.MLP(x=16, y=16, m=8, k=5), IMAGES[:, 0], "linear_relu_stack.4"),
    "IdentityResNet": (lambda: models.IdentityResNet(1, (2, 4, 8, 12), 5), IMAGES, "linear"),
    "UNet": (lambda: models.UNet(5, channels=2, in_channels=3), IMAGES, "convolution"),
    "UNet as drawn": (lambda: models.UNet.as_drawn(5, channels=1, in_channels=3), IMAGES, "convolution"),
    "VisionTransformer": (
        lambda: models.VisionTransformer(16, 4, m=16, k=8, h=2, f=32, depth=1, classes=5),
        IMAGES,
        "head",
    ),
}
"""Each classifier of five classes, its input, and the name of its head."""

each = pytest.mark.parametrize("name", MADE)


@each
def test_a_new_head_is_trained_and_saved(name: str, tmp_path: Path) -> None:
    make, images, head = MADE[name]
    model = make().double().eval()
    before = copy.deepcopy(model.state_dict())
    new = model.with_classes(3)
    assert not new.training
    assert new(images.double()).shape[1] == 3
    for label, value in new.state_dict().items():
        if label.startswith(f"{head}."):
            assert value.dtype == torch.float64
            assert value.shape[0] == 3
        else:
            assert torch.equal(value, before[label])
    models.save(new, tmp_path / "before.safetensors")
    again = models.load(tmp_path / "before.safetensors").eval()
    assert torch.equal(again(images.double()), new(images.double()))
    logits = new.train()(images.double())
    F.cross_entropy(logits, torch.ones(2, *logits.shape[2:], dtype=torch.long)).backward()
    assert all(parameter.grad is not None for parameter in new.parameters())
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[label]) for label, value in model.state_dict().items())


@each
def test_a_new_head_is_initialized_as_by_the_constructor(name: str) -> None:
    """Equal numbers from equal seeds; and the weight of a new head is not that of the old one."""
    make, _, head = MADE[name]
    model = make()
    new = model.with_classes(5).get_submodule(head)
    zero = [f"{name}" for name, value in make().get_submodule(head).named_parameters() if value.eq(0).all()]
    assert [f"{name}" for name, value in new.named_parameters() if value.eq(0).all()] == zero
    assert name == "VisionTransformer" or not torch.equal(new.weight, model.get_submodule(head).weight)


def test_a_model_of_transferred_weights_gets_another_head(tmp_path: Path) -> None:
    """The constructor arguments that were not changed stay: activation, sizes."""
    model = models.VisionTransformer((16, 8), (4, 8), m=16, k=8, h=2, f=32, depth=1, classes=5, activation=nn.SiLU)
    new = model.with_classes(2).resized(16).with_classes(4)
    models.save(new, tmp_path / "new.safetensors")
    again = models.load(tmp_path / "new.safetensors")
    assert repr(again) == repr(new)
    assert torch.equal(again(IMAGES), new(IMAGES))


@each
@pytest.mark.parametrize("classes", [0, -1, True, 2.5])
def test_numbers_that_cannot_be_are_refused(name: str, classes: Any) -> None:
    with pytest.raises(CircuitError, match=rf"with_classes: classes is {classes}; it may be 1 or more"):
        MADE[name][0]().with_classes(classes)


def test_a_head_of_another_class_is_refused() -> None:
    model = models.MLP(x=4, y=4, m=8, k=2)
    model.linear_relu_stack[4] = nn.Sequential(nn.Linear(8, 2))
    with pytest.raises(CircuitError, match=r"linear_relu_stack\.4 is a Sequential, not that of MLP"):
        model.with_classes(3)


def test_a_head_replaced_by_hand_is_refused_with_the_way_that_works(tmp_path: Path) -> None:
    model = models.MLP(x=4, y=4, m=8, k=2)
    model.linear_relu_stack[4] = nn.Linear(8, 3)
    with pytest.raises(ShapeError, match=r"k is 3 here, but 2 \(fixed by MLP\.k\)"):
        model(torch.rand(2, 4, 4))
    with pytest.raises(CircuitError, match=r"a classifier's `with_classes` replaces its head"):
        models.save(model, tmp_path / "model.safetensors")
