import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import ShapeError, trace
from models.mlp import MLP


def by_hand(model: MLP, image: Tensor) -> Tensor:
    """The probabilities of Figure 19 for one image by matrix products alone, without nn and einops."""
    pixels = torch.stack([image[i, j] for i in range(image.shape[0]) for j in range(image.shape[1])])
    weights = dict(model.named_parameters())
    for layer in (0, 2, 4):
        pixels = weights[f"linear_relu_stack.{layer}.weight"] @ pixels + weights[f"linear_relu_stack.{layer}.bias"]
        if layer < 4:
            pixels = torch.where(pixels > 0, pixels, 0)
    return pixels.exp() / pixels.exp().sum()


def test_the_figure_by_hand() -> None:
    model, images = MLP(), torch.rand(3, 28, 28)
    expected = torch.stack([by_hand(model, image) for image in images])
    torch.testing.assert_close(model.probabilities(images), expected)


def test_an_image_that_is_not_square_keeps_its_axes_apart() -> None:
    model, image = MLP(x=3, y=5, m=7, k=4), torch.rand(3, 5)
    torch.testing.assert_close(model.probabilities(image), by_hand(model, image))


def test_forward_returns_logits() -> None:
    """For cross_entropy; their sum over the classes is no constant, as that of probabilities is."""
    model, images, right = MLP(), torch.rand(3, 28, 28), torch.tensor([1, 0, 7])
    loss = -torch.stack([by_hand(model, image)[k].log() for image, k in zip(images, right, strict=True)]).mean()
    torch.testing.assert_close(nn.functional.cross_entropy(model(images), right), loss)
    assert model(images).sum(-1).std() > 1e-3


def test_the_tutorials_weights_load_as_they_are() -> None:
    """These are the names of the layers in the notebook's class."""
    theirs = nn.Module()
    theirs.linear_relu_stack = nn.Sequential(
        nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    model = MLP()
    model.load_state_dict(theirs.state_dict())
    image = torch.rand(28, 28)
    torch.testing.assert_close(model(image), theirs.linear_relu_stack(image.flatten()))


@given(x=st.integers(1, 6), y=st.integers(1, 6), m=st.integers(1, 6), k=st.integers(1, 6))
def test_parameters_are_as_many_as_the_formula_says(x: int, y: int, m: int, k: int) -> None:
    count = sum(parameter.numel() for parameter in MLP(x, y, m, k).parameters())
    assert count == (x * y + 1) * m + (m + 1) * m + (m + 1) * k


def test_the_figure_has_669706_parameters() -> None:
    assert sum(parameter.numel() for parameter in MLP().parameters()) == 669_706


@given(lead=st.lists(st.integers(0, 3), max_size=3))
def test_index_then_apply_is_apply_then_index(lead: list[int]) -> None:
    model, images = MLP(4, 3, 5, 2), torch.rand(*lead, 4, 3)
    answers = model(images)
    assert answers.shape == (*lead, 2)
    for image, answer in zip(images.reshape(-1, 4, 3), answers.reshape(-1, 2), strict=True):
        torch.testing.assert_close(model(image), answer)


@pytest.mark.parametrize("shape", [(27, 28), (28, 27), (28,), (784,), (1, 28, 29)])
@pytest.mark.parametrize("name", ["forward", "probabilities"])
def test_another_size_of_image_is_refused(shape: tuple[int, ...], name: str) -> None:
    with pytest.raises(ShapeError, match=f"MLP.{name}"):
        getattr(MLP(), name)(torch.rand(shape))


def test_gradients_are_right() -> None:
    model = MLP(3, 2, 4, 3, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def run(image: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), image)

    image = torch.rand(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (image, *model.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_into_one_graph(dynamic: bool) -> None:
    model = MLP()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for count in (2, 5):
        images = torch.rand(count, 28, 28)
        torch.testing.assert_close(compiled(images), model(images))


def test_it_exports_with_any_number_of_images() -> None:
    model = MLP()
    program = torch.export.export(model, (torch.rand(4, 28, 28),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    images = torch.rand(7, 28, 28)
    torch.testing.assert_close(program.module()(images), model(images))


def test_it_maps_over_images() -> None:
    model, images = MLP(), torch.rand(3, 28, 28)
    torch.testing.assert_close(torch.vmap(model)(images), model(images))


def test_the_table_shows_the_figure() -> None:
    table = str(trace(MLP().probabilities))
    for part in ("28 28 -> 10", "669,706", "softmax over k"):
        assert part in table


def test_a_traced_method_names_the_modules_below_its_owner() -> None:
    """Also if the method is called by a function that is traced."""
    model = MLP(4, 4, m=3, k=2)
    for diagram in (trace(model.probabilities), trace(lambda x: model.probabilities(x) + 1, torch.rand(4, 4))):
        named = [box for box in diagram.walk() if box.kind == "module" and box.label == "Linear"]
        assert [box.path.split(".")[-1] for box in named] == ["0", "2", "4"]
        assert [box.parameter_count for box in named] == [51, 12, 8]
