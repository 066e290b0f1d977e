"""Each model of the zoo and its reference implementation, with the same weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import MultiHeadAttention
from models.language_model import LanguageModel
from models.mlp import MLP
from models.resnet import IdentityResNet
from models.transformer import DecoderLayer, EncoderLayer, Transformer
from models.unet import UNet
from models.vision_transformer import VisionTransformer
from models.visual_attention import VisualAttention
from scripts import peers


@dataclass(frozen=True)
class Pair:
    """Two implementations of one model, their inputs, and how each is called. Both return the same numbers."""

    peer: str
    ours: nn.Module
    theirs: nn.Module
    inputs: tuple[Tensor, ...]
    call_ours: Callable[..., Tensor] = lambda model, *inputs: model(*inputs)
    call_theirs: Callable[..., Tensor] = lambda model, *inputs: model(*inputs)
    generated: int = 0
    """If not 0, the number of tokens that a call generates: it is measured in float32, where both choose the same."""


def mlp() -> Pair:
    """Figure 19, against the same layers in an nn.Sequential, as PyTorch's tutorial writes them."""
    ours = MLP()
    theirs = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    _give(ours, theirs)
    return Pair("nn.Sequential", ours, theirs, (torch.randn(64, 28, 28),))


def attention() -> Pair:
    """Figure 21 over 197 vectors, against nn.MultiheadAttention."""
    theirs = nn.MultiheadAttention(512, 8, batch_first=True)
    vectors = torch.randn(8, 197, 512)

    def call(model: nn.Module, target: Tensor, source: Tensor) -> Tensor:
        return model(target, source, source, need_weights=False)[0]

    inputs = (vectors, torch.randn(8, 197, 512))
    return Pair("nn.MultiheadAttention", MultiHeadAttention.from_torch(theirs), theirs, inputs, call_theirs=call)


def encoder_layer() -> Pair:
    """Against nn.TransformerEncoderLayer, whose forward pass without gradients is one fused operator."""
    theirs = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    return Pair("nn.TransformerEncoderLayer", EncoderLayer.from_torch(theirs), theirs, (torch.randn(8, 128, 512),))


def decoder_layer() -> Pair:
    """Against nn.TransformerDecoderLayer with a causal mask."""
    theirs = nn.TransformerDecoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    inputs = (torch.randn(8, 128, 512), torch.randn(8, 100, 512))
    peer = "nn.TransformerDecoderLayer"
    return Pair(peer, DecoderLayer.from_torch(theirs), theirs, inputs, call_theirs=_causal)


def transformer() -> Pair:
    """The base model of Vaswani et al., against nn.Transformer with a causal mask."""
    theirs = nn.Transformer(dropout=0.0, batch_first=True)
    inputs = (torch.randn(4, 64, 512), torch.randn(4, 64, 512))
    return Pair("nn.Transformer", Transformer.from_torch(theirs), theirs, inputs, call_theirs=_causal_target)


def _causal(model: nn.Module, target: Tensor, memory: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], target.device, target.dtype)
    return model(target, memory, tgt_mask=mask, tgt_is_causal=True)


def _causal_target(model: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], target.device, target.dtype)
    return model(source, target, tgt_mask=mask, tgt_is_causal=True)


def language_model() -> Pair:
    """A small GPT-2, against that of transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    m, h, depth, length = 256, 8, 4, 256
    config = GPT2Config(
        vocab_size=1000, n_positions=length, n_embd=m, n_layer=depth, n_head=h, activation_function="gelu",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config)
    ours = LanguageModel(1000, m, m // h, h, 4 * m, depth, learned_positions=length)
    ours.load_state_dict(_from_gpt2(theirs.state_dict(), depth))
    tokens = torch.randint(1000, (4, length))
    return Pair("transformers' GPT-2", ours, theirs, (tokens,), call_theirs=lambda model, tokens: model(tokens).logits)


def decoding() -> Pair:
    """A small Llama, decoding 64 tokens after 32 with its cache of keys and values, against that of transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs, count = LlamaForCausalLM(config), 64

    def call(model: Any, tokens: Tensor) -> Tensor:
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        return model.generate(tokens, attention_mask=torch.ones_like(tokens), eos_token_id=None, **options)

    ours, tokens = LanguageModel.from_huggingface(theirs), torch.randint(1000, (1, 32))
    decode: Callable[..., Tensor] = lambda model, tokens: model.generate(tokens, count)  # noqa: E731
    return Pair("transformers' Llama", ours, theirs, (tokens,), decode, call, count)


def _from_gpt2(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """GPT-2's weights, stored as (in, out), under the names of LanguageModel."""
    names = {"embedding": "wte", "positions": "wpe", "norm": "ln_f"}
    boxes = {
        "attention.Lo": "attn.c_proj", "attention_norm": "ln_1",
        "feed_forward.L1": "mlp.c_fc", "feed_forward.L2": "mlp.c_proj", "feed_forward_norm": "ln_2",
    }  # fmt: skip
    names |= {f"layers.{i}.{ours}": f"h.{i}.{theirs}" for i in range(depth) for ours, theirs in boxes.items()}
    found = {}
    for kind in ("weight", "bias"):
        for ours, theirs in names.items():
            if f"transformer.{theirs}.{kind}" in state:
                tensor = state[f"transformer.{theirs}.{kind}"]
                found[f"{ours}.{kind}"] = tensor.T if tensor.ndim == 2 and ".c_" in theirs else tensor
        for i in range(depth):
            parts = state[f"transformer.h.{i}.attn.c_attn.{kind}"].chunk(3, -1)
            for box, part in zip(("Lq", "Lk", "Lv"), parts, strict=True):
                found[f"layers.{i}.attention.{box}.{kind}"] = part.T if part.ndim == 2 else part
    return found


def resnet() -> Pair:
    """Figure 26 with 18 units, against pytorchcv's pre-activation ResNet-164.

    Theirs strides in the second convolution of a unit; here in the first, as the figure draws it and He et al. have it.
    """
    from pytorchcv.models.preresnet_cifar import preresnet164bn_cifar10

    theirs, ours = preresnet164bn_cifar10(), IdentityResNet(18)
    features: Any = theirs.features
    for stage in (features.stage2, features.stage3):
        body = stage.unit1.body
        body.conv1.conv.stride, body.conv2.conv.stride = (2, 2), (1, 1)
    _give(ours, theirs)
    return Pair("pytorchcv's PreResNet-164", ours, theirs, (torch.randn(8, 3, 32, 32),))


class PlainUNet(nn.Module):
    """Ronneberger's network, padded, as it is usually written in PyTorch."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        c = [1, *(channels * 2**i for i in range(5))]
        self.down = nn.ModuleList(_two(c[i], c[i + 1]) for i in range(5))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c[i + 1], c[i], 2, 2) for i in (4, 3, 2, 1))
        self.join = nn.ModuleList(_two(2 * c[i], c[i]) for i in (4, 3, 2, 1))
        self.last = nn.Conv2d(c[1], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits for every pixel."""
        saved = []
        for number, block in enumerate(self.down):
            image = block(image if number == 0 else F.max_pool2d(image, 2))
            saved.append(image)
        saved.pop()
        for up, join in zip(self.up, self.join, strict=True):
            image = join(torch.cat((up(image), saved.pop()), 1))
        return self.last(image)


def _two(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions."""
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def unet() -> Pair:
    """Figure 27 with a quarter of its channels, against the same network in plain torch."""
    ours, theirs = UNet(channels=16), PlainUNet(16, 2)
    parts = [(f"down.{i}.double_convolution", f"down.{i}") for i in range(4)] + [("middle", "down.4")]
    parts += [("up.0.double_convolution", "join.0"), ("up.1.double_convolution", "join.1")]
    parts += [("up.2.double_convolution", "join.2"), ("top", "join.3"), ("middle_upscale", "up.0")]
    parts += [(f"up.{i}.upscale", f"up.{i + 1}") for i in range(3)] + [("convolution", "last")]
    for mine, other in parts:
        _give(ours.get_submodule(mine), theirs.get_submodule(other))
    return Pair("plain torch", ours, theirs, (torch.randn(2, 1, 128, 128),))


def vision_transformer() -> Pair:
    """ViT-S/16 at 224, against timm's."""
    theirs = peers.timm().create_model("vit_small_patch16_224")
    nn.init.normal_(theirs.head.weight, std=0.02)
    ours = VisionTransformer.from_timm(theirs.state_dict())
    return Pair("timm", ours, theirs, (torch.randn(2, 3, 224, 224),))


class PlainVisualAttention(nn.Module):
    """Figure 28 in plain torch: convolutions, and the fused operator over windows."""

    def __init__(self, c: int, k: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Conv2d(c, heads * k, window, window, bias=False) for _ in range(3))
        self.output = nn.ConvTranspose2d(heads * k, c, window, window, bias=False)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """The attention output for each window of the target."""
        query = self.query(target)
        images = (query, self.key(source), self.value(source))
        flat = [each.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3) for each in images]
        mixed = F.scaled_dot_product_attention(*flat)
        return self.output(mixed.transpose(2, 3).flatten(1, 2).unflatten(2, query.shape[-2:]))


def visual_attention() -> Pair:
    """Figure 28 with windows of 2, against the same in plain torch."""
    ours, theirs = VisualAttention(c=32, k=16, heads=4, kernel=2, stride=2), PlainVisualAttention(32, 16, 4, 2)
    _give(ours, theirs)
    inputs = (torch.randn(8, 32, 32, 32), torch.randn(8, 32, 32, 32))
    return Pair("plain torch", ours, theirs, inputs)


def _give(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy the weights of `theirs`, whose order is the same, into `ours`."""
    mine, other = ours.state_dict(), theirs.state_dict()
    ours.load_state_dict(dict(zip(mine, other.values(), strict=True)))


_ALL = (
    mlp, attention, encoder_layer, decoder_layer, transformer, language_model, decoding, resnet, unet,
    vision_transformer, visual_attention,
)  # fmt: skip
PAIRS: Mapping[str, Callable[[], Pair]] = {each.__name__: each for each in _ALL}
