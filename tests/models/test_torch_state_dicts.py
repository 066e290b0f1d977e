"""`from_torch` of a state dict: equal to torch's module; what it does not tell is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import models
from circuits import CircuitError
from models.attention import MultiHeadAttention
from models.convolution import Convolution, TransposedConvolution
from models.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, Transformer

KINDS: dict[str, Any] = {
    each.__name__: each for each in (MultiHeadAttention, EncoderLayer, DecoderLayer, Encoder, Decoder, Transformer)
}
every_kind = pytest.mark.parametrize("kind", KINDS)
SETTINGS: dict[str, Any] = {"h": 4, "activation": nn.GELU, "norm_first": True, "eps": 1e-3, "dropout": 0.25}
CONVOLVED: dict[str, Any] = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2, "mode": "zeros"}


def theirs(kind: str, dtype: torch.dtype = torch.float32, bias: bool = True) -> Any:
    """torch's module, in evaluation, with random weights and settings that are not torch's defaults."""
    made: dict[str, Any] = {"bias": bias, "dtype": dtype, "dropout": 0.25}
    options = made | {"activation": "gelu", "norm_first": True, "layer_norm_eps": 1e-3}
    norm = nn.LayerNorm(12, 1e-3, bias=bias, dtype=dtype)
    if kind == "MultiHeadAttention":
        module: Any = nn.MultiheadAttention(12, 4, **made)
    elif kind == "Transformer":
        module = nn.Transformer(12, 4, 2, 3, 20, **options)
    elif kind.startswith("Encoder"):
        module = nn.TransformerEncoderLayer(12, 4, 20, **options)
        module = module if kind == "EncoderLayer" else nn.TransformerEncoder(module, 2, norm, False)
    else:
        module = nn.TransformerDecoderLayer(12, 4, 20, **options)
        module = module if kind == "DecoderLayer" else nn.TransformerDecoder(module, 3, norm)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def told(kind: str) -> dict[str, Any]:
    """The settings that a state dict of this kind does not tell."""
    return {name: SETTINGS[name] for name in ("h", "dropout")} if kind == "MultiHeadAttention" else SETTINGS


def outputs(kind: str, ours: Any, other: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What both return for the same vectors; torch's has the batch axis second."""
    first, second = torch.randn(2, 5, 12, dtype=dtype), torch.randn(2, 7, 12, dtype=dtype)
    given = (first,) if kind.startswith("Encoder") else (first, second)
    turned = [each.transpose(0, 1) for each in given]
    if kind == "MultiHeadAttention":
        return ours(*given), other(*turned, turned[1])[0].transpose(0, 1)
    causal = {} if kind.startswith("Encoder") else {"causal": False}
    return ours(*given, **causal), other(*turned).transpose(0, 1)


@pytest.mark.every(2)
@every_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_a_state_dict_gives_what_torch_gives(kind: str, bias: bool, dtype: torch.dtype) -> None:
    other = theirs(kind, dtype, bias)
    ours = KINDS[kind].from_torch(other.state_dict(), **told(kind))
    assert ours.training
    torch.testing.assert_close(*outputs(kind, ours.eval(), other, dtype))
    assert {each.dtype for each in ours.parameters()} == {dtype}
    of_module = KINDS[kind].from_torch(other)
    assert repr(of_module) == repr(ours)
    assert not any(each.training for each in of_module.modules())
    torch.testing.assert_close(dict(ours.named_parameters()), dict(of_module.named_parameters()), rtol=0, atol=0)
    assert all(each.requires_grad and each.is_leaf for each in ours.parameters())
    dropped = {each.dropout for each in ours.modules() if hasattr(each, "dropout")}
    assert dropped == {0.25}
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    assert all(each.ne(0).all() for each in ours.parameters())


@every_kind
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_what_a_state_dict_does_not_tell_is_asked_for_by_name(kind: str) -> None:
    state, settings = theirs(kind).state_dict(), told(kind)
    for missing in settings:
        others = {name: value for name, value in settings.items() if name != missing}
        with pytest.raises(CircuitError, match=rf"{kind}.from_torch: a state dict does not tell {missing}; give"):
            KINDS[kind].from_torch(state, **others)
    with pytest.raises(
        CircuitError, match=rf"does not tell {', '.join(settings)}; give what its module has; by default"
    ):
        KINDS[kind].from_torch(state)
    with pytest.raises(CircuitError, match=r"5 heads do not divide vectors 12 wide; h may be 1, 2, 3, 4, 6, 12"):
        KINDS[kind].from_torch(state, **settings | {"h": 5})
    with pytest.raises(CircuitError, match=rf"{kind}.from_torch takes h, .*dropout and prefix, not bias"):
        KINDS[kind].from_torch(state, **settings, bias=True)


@every_kind
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_a_module_tells_all_and_a_setting_that_differs_is_refused(kind: str) -> None:
    other = theirs(kind)
    KINDS[kind].from_torch(other, **told(kind))
    for name, value in {"h": 2, "activation": nn.ReLU, "norm_first": False, "eps": 0.1, "dropout": 0.5}.items():
        if name in told(kind):
            with pytest.raises(CircuitError, match=rf"{kind}.from_torch: {name} is .* in the module, and .* was given"):
                KINDS[kind].from_torch(other, **{name: value})


@every_kind
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_a_prefix_is_told_whole_and_stripped_if_asked(kind: str, prefix: str, tmp_path: Path) -> None:
    state = theirs(kind).state_dict()
    wrapped = {prefix + name: value for name, value in state.items()}
    with pytest.raises(
        models.WeightsError, match=rf'every name there begins with "{prefix}"; prefix="{prefix}" strips'
    ):
        KINDS[kind].from_torch(wrapped, **told(kind))
    expected = KINDS[kind].from_torch(state, **told(kind)).state_dict()
    save_file(wrapped, tmp_path / "torch.safetensors")
    for source in (wrapped, tmp_path / "torch.safetensors"):
        found = KINDS[kind].from_torch(source, prefix=prefix, **told(kind)).state_dict()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@every_kind
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_a_wrapped_module_is_told_and_unwrapped(kind: str) -> None:
    other = theirs(kind)
    with pytest.raises(CircuitError, match=r'the module is a DataParallel; prefix="module." takes the one inside'):
        KINDS[kind].from_torch(nn.DataParallel(other))
    assert not KINDS[kind].from_torch(nn.DataParallel(other).eval(), prefix="module.").training
    with pytest.raises(CircuitError, match=r"takes nn\.\w+, or its state dict; the module is a Linear$"):
        KINDS[kind].from_torch(nn.Linear(2, 2))


@every_kind
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_what_was_converted_can_be_saved(kind: str, tmp_path: Path) -> None:
    ours = KINDS[kind].from_torch(theirs(kind, torch.float64).state_dict(), **told(kind))
    models.save(ours, tmp_path / "ours.safetensors")
    again = models.load(tmp_path / "ours.safetensors")
    torch.testing.assert_close(dict(again.named_parameters()), dict(ours.named_parameters()), rtol=0, atol=0)
    assert repr(again) == repr(ours)


def without(state: Mapping[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("kind", "state", "reason"),
    [
        ("MultiHeadAttention", nn.MultiheadAttention(12, 4, kdim=3).state_dict(), "keys or values of another width"),
        ("MultiHeadAttention", nn.MultiheadAttention(12, 4, add_bias_kv=True).state_dict(), "learned keys and values"),
        ("MultiHeadAttention", theirs("EncoderLayer").state_dict(), "a whole layer"),
        ("EncoderLayer", theirs("DecoderLayer").state_dict(), "cross-attention, as DecoderLayer"),
        ("EncoderLayer", theirs("Encoder").state_dict(), "several layers, as Encoder"),
        ("EncoderLayer", without(theirs("EncoderLayer").state_dict(), "linear1.bias"), "have no bias there"),
        ("DecoderLayer", theirs("EncoderLayer").state_dict(), "there is no cross-attention there"),
        ("Decoder", theirs("Encoder").state_dict(), "there is no cross-attention there"),
        ("Encoder", theirs("Transformer").state_dict(), "an encoder and a decoder, as Transformer"),
        (
            "Transformer",
            without(theirs("Transformer").state_dict(), "decoder.norm.weight", "decoder.norm.bias"),
            "one of the stacks has no norm after its last layer",
        ),
    ],
)
def test_the_reason_comes_before_the_names(kind: str, state: Mapping[str, Tensor], reason: str) -> None:
    with pytest.raises(
        models.WeightsError, match=rf"^{kind}.from_torch cannot take these weights:\n  .*{reason}"
    ) as raised:
        KINDS[kind].from_torch(state, **told(kind))
    lines = f"{raised.value}".splitlines()[1:]
    named = [line.split()[0] in ("missing", "unexpected") for line in lines]
    assert named == sorted(named)
    assert any(named)


def test_a_tensor_with_other_axes_is_named() -> None:
    state = {**theirs("EncoderLayer").state_dict(), "linear2.weight": torch.zeros(12, 21)}
    with pytest.raises(models.WeightsError, match=r"cannot take linear2\.weight, which has other axes[\s\S]*m f"):
        EncoderLayer.from_torch(state, **SETTINGS)


@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_the_norm_after_the_last_layer_and_the_depth_are_told(kind: str) -> None:
    other = theirs(kind)
    other.norm = None
    ours = KINDS[kind].from_torch(other.state_dict(), **SETTINGS)
    assert ours.norm is None
    assert len(ours.layers) == len(other.layers)
    torch.testing.assert_close(*outputs(kind, ours.eval(), other, torch.float32))


@pytest.mark.parametrize("of_module", [True, False])
def test_an_activation_may_have_weights(of_module: bool) -> None:
    layer = nn.TransformerEncoderLayer(
        12, 4, 20, dropout=0.0, activation=nn.PReLU(), norm_first=True, layer_norm_eps=1e-3
    )
    other = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    other.layers[1].activation.weight.data.fill_(0.75)  # pyright: ignore
    settings = SETTINGS | {"activation": nn.PReLU, "dropout": 0.0}
    ours = Encoder.from_torch(other) if of_module else Encoder.from_torch(other.state_dict(), **settings)
    assert [each.feed_forward.activation.weight.item() for each in ours.layers] == [0.25, 0.75]  # pyright: ignore
    torch.testing.assert_close(*outputs("Encoder", ours.eval(), other, torch.float32))
    with pytest.raises(models.WeightsError, match=r"unexpected  layers.0.feed_forward.activation.weight"):
        Encoder.from_torch(other.state_dict(), **SETTINGS)


def test_each_tensor_keeps_its_dtype() -> None:
    other = theirs("EncoderLayer").bfloat16()
    other.norm1.float()
    ours = EncoderLayer.from_torch(other.state_dict(), **SETTINGS)
    assert {ours.attention_norm.weight.dtype, ours.attention.Lq.weight.dtype} == {torch.float32, torch.bfloat16}


def test_random_numbers_are_not_drawn() -> None:
    other = theirs("Transformer")
    before = torch.get_rng_state()
    Transformer.from_torch(other)
    assert torch.equal(torch.get_rng_state(), before)


# --- Convolutions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_state_dict_of_a_convolution(n: int, bias: bool, dtype: torch.dtype, transposed: bool) -> None:
    kind = (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        if transposed
        else (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    )
    options = {name: value for name, value in CONVOLVED.items() if name != "mode"}
    added: dict[str, Any] = {"output_padding": 1} if transposed else {}
    other = kind[n - 1](4, 6, 3, bias=bias, dtype=dtype, **options, **added)
    ours: Any = TransposedConvolution if transposed else Convolution
    image = torch.randn(2, 4, *range(5, 5 + n), dtype=dtype)
    made = ours.from_torch(other.state_dict(), **CONVOLVED, **added)
    torch.testing.assert_close(made(image), other(image))
    wrapped = {f"_orig_mod.{name}": value for name, value in other.state_dict().items()}
    with pytest.raises(models.WeightsError, match=r'every name there begins with "_orig_mod\."'):
        ours.from_torch(wrapped, **CONVOLVED, **added)
    torch.testing.assert_close(ours.from_torch(wrapped, prefix="_orig_mod.", **CONVOLVED, **added)(image), other(image))
    for missing in (needed := CONVOLVED | added):
        with pytest.raises(CircuitError, match=f"a state dict does not tell {missing}; give what its module has"):
            ours.from_torch(other.state_dict(), **{name: value for name, value in needed.items() if name != missing})
    ours.from_torch(other, **CONVOLVED, **added)
    with pytest.raises(CircuitError, match=r"stride is \(2.*\) in the module, and \(3.*\) was given"):
        ours.from_torch(other, stride=3)


@pytest.mark.slow
def test_options_that_contradict_the_weights_are_refused() -> None:
    with pytest.raises(CircuitError, match="4 groups do not divide 8 and 6 channels"):
        Convolution.from_torch(nn.Conv2d(4, 6, 3, groups=2).state_dict(), **dict(CONVOLVED, groups=4))
    settings: dict[str, Any] = dict(CONVOLVED, groups=1, output_padding=0)
    with pytest.raises(models.WeightsError, match=r"bias: k is 3 here, 6 there"):
        TransposedConvolution.from_torch(nn.ConvTranspose2d(4, 6, 3, groups=2).state_dict(), **settings)
    with pytest.raises(CircuitError, match="output_padding 2 is not supported at stride 2"):
        TransposedConvolution.from_torch(nn.ConvTranspose2d(4, 6, 3).state_dict(), **dict(settings, output_padding=2))
    with pytest.raises(models.WeightsError, match="cannot take weight, which has other axes"):
        Convolution.from_torch(nn.Linear(2, 2).state_dict(), **CONVOLVED)
    with pytest.raises(CircuitError, match=r"takes stride, .* and prefix, not output_padding"):
        Convolution.from_torch(nn.Conv2d(4, 6, 3), **settings)
