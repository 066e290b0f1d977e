"""Models of other libraries for `survey`: timm, transformers, pytorchcv and torch's own layers, with random weights.

`python -m tests.models.other_peoples_models [NAME...]` surveys all, or these, and prints a table of the shares that
work, with each refusal.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from tests import peers
from tests.models.survey import WAYS, Entry, Input, survey


def _names(text: str) -> list[str]:
    return text.split()


# timm -----------------------------------------------------------------------------------------------------------------


def _timm(name: str, **options: Any) -> nn.Module:
    return peers.timm().create_model(name, pretrained=False, num_classes=7, **options)


def _images(names: str, size: int, **options: Any) -> dict[str, Entry]:
    """Return entries of timm's models for images of this size."""
    image = (Input((3, size, size)),)
    return {name: Entry(partial(_timm, name, **options), image, differentiated=False) for name in names.split()}


_SMALL = _names(
    """convnext_atto lcnet_050 efficientvit_b0 vit_tiny_patch16_224 edgenext_xx_small mobilevitv2_050 starnet_s1
    mobilenetv3_small_050 regnetx_002 pvt_v2_b0 mambaout_femto fasternet_t0 mnasnet_small xcit_nano_12_p16_224"""
)
"""Models of timm that are surveyed with every change, and differentiated."""

TIMM = {
    **_images("convmixer_768_32 convnext_atto convnextv2_atto test_byobnet", 32),
    **_images(
        """convit_tiny deit3_small_patch16_224 gmlp_s16_224 resmlp_12_224 tnt_s_legacy_patch16_224 cait_xxs24_224
        vit_tiny_patch16_224 vit_relpos_small_patch16_224 xcit_nano_12_p16_224""",
        32,
        img_size=32,
    ),
    **_images("eva02_tiny_patch14_224", 28, img_size=28),
    **_images(
        """gernet_s repvgg_a0 cspresnet50 cs3darknet_focus_s darknet17 densenet121 dla34 dpn48b edgenext_xx_small
        efficientnet_b0 mixnet_s mnasnet_small fbnetc_100 efficientvit_b0 fasternet_t0 fastvit_t8 focalnet_tiny_srf
        ghostnetv2_100 hgnetv2_b0 hrnet_w18_small inception_next_atto lcnet_050 mambaout_femto caformer_s18
        poolformer_s12 mobilenetv3_small_050 mobilenetv4_conv_small_035 mobilevitv2_050 nextvit_small nf_resnet26
        pvt_v2_b0 rdnet_tiny regnetx_002 repvit_m0_9 res2net50_14w_8s resnest14d resnet18 resnetblur18 resnetv2_18
        rexnet_100 selecsls42 legacy_seresnet18 shvit_s1 skresnet18 starnet_s1 swiftformer_xs tresnet_m
        ese_vovnet19b_slim xception41""",
        64,
    ),
    **_images(
        """coat_lite_tiny efficientformerv2_s0 efficientvit_m0 gcvit_xxtiny levit_128s coatnet_pico_rw_224
        maxvit_rmlp_pico_rw_256 mixer_s32_224 mvitv2_tiny nest_tiny pit_ti_224 sequencer2d_s
        swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 twins_svt_small visformer_tiny
        vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224""",
        64,
        img_size=64,
    ),
    **_images("inception_v3", 96),
}
TIMM |= {name: replace(TIMM[name], light=True, differentiated=True) for name in _SMALL}

# transformers ---------------------------------------------------------------------------------------------------------


def _transformer(name: str, **config: Any) -> nn.Module:
    package = peers.peer("transformers")
    package.logging.set_verbosity_error()
    model = getattr(package, name)
    return model(model.config_class(**config))


_SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "vocab_size": 29,
    "max_position_embeddings": 64,
}
_DECODER = _SIZES | {"num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_EXPERTS = _DECODER | {"moe_intermediate_size": 8, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
_STATES = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 29, "state_size": 4}
_GPT = {"n_embd": 16, "n_head": 2, "n_layer": 2, "vocab_size": 29, "n_positions": 64}
_PAIR = {
    **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 24 for part in ("encoder", "decoder")},
    "d_model": 16,
    "vocab_size": 29,
    "max_position_embeddings": 64,
}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 29}
_T5 |= {"decoder_start_token_id": 0}
_VISION = {key: size for key, size in _SIZES.items() if key not in ("vocab_size", "max_position_embeddings")}
_VISION |= {"image_size": 16, "patch_size": 4, "num_channels": 3}
_STAGES = {"hidden_sizes": [4, 8, 8, 8], "depths": [1, 1, 1, 1]}
_WINDOWS = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
_WAVES = _SIZES | {"conv_dim": [8, 8], "conv_stride": [2, 2], "conv_kernel": [3, 3], "num_feat_extract_layers": 2}
_WAVES |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}

_TOKENS = (Input((8,), 29, "input_ids"),)
_BOTH = (*_TOKENS, Input((6,), 29, "decoder_input_ids"))


def _entries(configs: Mapping[str, Mapping[str, Any]], inputs: tuple[Input, ...], **options: Any) -> dict[str, Entry]:
    """Return entries of transformers' models, all with these inputs and keyword arguments."""
    return {
        name: Entry(partial(_transformer, name, **config), inputs, options, light=True)
        for name, config in configs.items()
    }


_ENCODERS = {
    "BertForMaskedLM": _SIZES,
    "RobertaForMaskedLM": _SIZES,
    "ElectraForMaskedLM": _SIZES | {"embedding_size": 8},
    "AlbertForMaskedLM": _SIZES | {"embedding_size": 8},
    "DistilBertForMaskedLM": {
        "dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 24, "vocab_size": 29, "max_position_embeddings": 64
    },
    "DebertaV2Model": _SIZES
    | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "share_att_key": True},
    "FNetModel": _SIZES,
    "ConvBertModel": _SIZES | {"embedding_size": 8},
    "ModernBertForMaskedLM": _SIZES
    | {"local_attention": 4, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2},
    "LongformerModel": _SIZES | {"attention_window": 4},
    "NystromformerModel": _SIZES | {"num_landmarks": 4, "segment_means_seq_len": 8},
    "FunnelModel": {
        "vocab_size": 29, "block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24,
        "num_decoder_layers": 1,
    },
    "XLMModel": {"vocab_size": 29, "emb_dim": 16, "n_heads": 2, "n_layers": 2, "max_position_embeddings": 64},
    "RoFormerModel": _SIZES | {"embedding_size": 16},
}  # fmt: skip
_DECODERS = {
    "LlamaForCausalLM": _DECODER,
    "MistralForCausalLM": _DECODER | {"sliding_window": 4},
    "Qwen3ForCausalLM": _DECODER | {"head_dim": 8},
    "Gemma2ForCausalLM": _DECODER | {"head_dim": 8},
    "GPT2LMHeadModel": _GPT,
    "GPTNeoXForCausalLM": _SIZES,
    "GPTJForCausalLM": _GPT | {"rotary_dim": 4},
    "OPTForCausalLM": {
        "hidden_size": 16, "num_attention_heads": 2, "ffn_dim": 24, "num_hidden_layers": 2, "vocab_size": 29,
        "max_position_embeddings": 64, "word_embed_proj_dim": 16,
    },
    "BloomForCausalLM": {"hidden_size": 16, "n_head": 2, "n_layer": 2, "vocab_size": 29},
    "MixtralForCausalLM": _EXPERTS,
    "Qwen3MoeForCausalLM": _EXPERTS | {"head_dim": 8},
    "GptOssForCausalLM": _EXPERTS | {"head_dim": 8},
    "DeepseekV3ForCausalLM": _EXPERTS
    | {"num_key_value_heads": 2, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "kv_lora_rank": 8,
       "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1},
    "MambaForCausalLM": _STATES,
    "Mamba2ForCausalLM": _STATES | {"num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
    "RwkvForCausalLM": {
        "hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 29, "attention_hidden_size": 16,
        "intermediate_size": 24,
    },
    "RecurrentGemmaForCausalLM": _DECODER
    | {"head_dim": 8, "lru_width": 16, "attention_window_size": 8, "block_types": ["recurrent", "attention"]},
    "JambaForCausalLM": _DECODER
    | {"num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False, "attn_layer_period": 2,
       "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
}  # fmt: skip
_PAIRS = {
    "T5ForConditionalGeneration": _T5,
    "BartForConditionalGeneration": _PAIR,
    "MarianMTModel": _PAIR | {"pad_token_id": 0, "decoder_start_token_id": 0},
    "ProphetNetModel": {
        "hidden_size": 16, "vocab_size": 29, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_encoder_layers": 2,
        "num_decoder_layers": 2, "num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "SwitchTransformersForConditionalGeneration": _T5 | {"num_decoder_layers": 2, "num_experts": 4},
}  # fmt: skip
_VIEWERS = {
    "ViTForImageClassification": _VISION,
    "BeitModel": _VISION | {"out_indices": [1]},
    "Dinov2Model": _VISION,
    "CLIPVisionModel": _VISION,
    "SiglipVisionModel": _VISION,
    "SwinModel": _WINDOWS,
    "Swinv2Model": _WINDOWS,
}
_PYRAMIDS = {
    "SegformerModel": _STAGES | {"num_attention_heads": [1, 2, 2, 2], "sr_ratios": [4, 2, 1, 1]},
    "ConvNextV2Model": _STAGES,
    "ResNetModel": _STAGES | {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8]},
    "PoolFormerModel": _STAGES,
}
_LISTENERS = {"Wav2Vec2Model": _WAVES, "HubertModel": _WAVES, "WavLMModel": _WAVES}
_IN_FLOAT32 = ("MixtralForCausalLM", "Qwen3MoeForCausalLM", "GptOssForCausalLM", "DeepseekV3ForCausalLM",
               "JambaForCausalLM")  # fmt: skip
"""Mixtures of experts: torch has no grouped matrix product for float64."""

TRANSFORMERS = {
    **_entries(_ENCODERS, _TOKENS),
    **_entries(_DECODERS, _TOKENS, use_cache=False),
    **_entries(_PAIRS, _BOTH, use_cache=False),
    **_entries(_VIEWERS, (Input((3, 16, 16), name="pixel_values"),)),
    **_entries(_PYRAMIDS, (Input((3, 32, 32), name="pixel_values"),)),
    **_entries(_LISTENERS, (Input((64,), name="input_values"),)),
}
TRANSFORMERS |= {name: replace(TRANSFORMERS[name], is_double=False) for name in _IN_FLOAT32}

# pytorchcv ------------------------------------------------------------------------------------------------------------


def _pytorchcv(file: str, name: str) -> nn.Module:
    return getattr(peers.peer(f"pytorchcv.models.{file}"), name)()


_CIFAR = _names(
    """resnet_cifar.resnet20_cifar10 preresnet_cifar.preresnet20_cifar10 densenet_cifar.densenet40_k12_cifar10
    nin_cifar.nin_cifar10 shakeshakeresnet_cifar.shakeshakeresnet20_2x16d_cifar10"""
)
_IMAGENET = _names(
    """mobilenet.mobilenet_wd4 mobilenetv2.mobilenetv2_wd4 mobilenetv3.mobilenetv3_small_wd2
    shufflenet.shufflenet_g1_wd4 shufflenetv2.shufflenetv2_wd2 squeezenet.squeezenet_v1_1 resnet.resnet10
    seresnet.seresnet10 igcv3.igcv3_wd4 fdmobilenet.fdmobilenet_wd4 menet.menet108_8x1_g3 peleenet.peleenet
    octresnet.octresnet10_ad2 dicenet.dicenet_wd5"""
)

PYTORCHCV = {
    **{name: Entry(partial(_pytorchcv, *name.split(".")), (Input((3, 32, 32)),), light=True) for name in _CIFAR},
    **{
        name: Entry(partial(_pytorchcv, *name.split(".")), (Input((3, 224, 224)),), differentiated=False)
        for name in _IMAGENET
    },
}

# torch.nn -------------------------------------------------------------------------------------------------------------


def _layer(make: Callable[..., nn.Module], *inputs: Input) -> Entry:
    return Entry(make, inputs, light=True)


_ROWS, _LINE, _PLANE, _SPACE = Input((6,)), Input((4, 9)), Input((4, 8, 8)), Input((4, 4, 4, 4))
_SEQUENCE = Input((5, 8), batch=1)
_ACTIVATIONS = _names(
    """CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish PReLU RReLU
    ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmin Softplus Softshrink Softsign Tanh Tanhshrink Dropout Identity
    AlphaDropout Flatten"""
)
_LOSSES = _names(
    """BCEWithLogitsLoss HingeEmbeddingLoss PoissonNLLLoss HuberLoss KLDivLoss L1Loss MSELoss SmoothL1Loss"""
)
_WITH_DIM = {"LogSoftmax": -1, "Softmax": -1, "Softmin": -1}

TORCH_NN = {
    **{name: _layer(partial(getattr(nn, name), **{"dim": _WITH_DIM[name]} if name in _WITH_DIM else {}), _ROWS)
       for name in _ACTIVATIONS},
    **{name: _layer(getattr(nn, name), _ROWS, _ROWS) for name in _LOSSES},
    "Linear": _layer(lambda: nn.Linear(6, 3), _ROWS),
    "Bilinear": _layer(lambda: nn.Bilinear(6, 6, 3), _ROWS, _ROWS),
    "CosineSimilarity": _layer(nn.CosineSimilarity, _ROWS, _ROWS),
    "MarginRankingLoss": _layer(nn.MarginRankingLoss, _ROWS, _ROWS, _ROWS),
    "MultiMarginLoss": _layer(nn.MultiMarginLoss, _ROWS, Input((), 6)),
    "PairwiseDistance": _layer(nn.PairwiseDistance, _ROWS, _ROWS),
    "TripletMarginLoss": _layer(nn.TripletMarginLoss, _ROWS, _ROWS, _ROWS),
    "CrossEntropyLoss": _layer(nn.CrossEntropyLoss, _ROWS, Input((), 6)),
    "NLLLoss": _layer(nn.NLLLoss, _ROWS, Input((), 6)),
    "CTCLoss": _layer(nn.CTCLoss, Input((9, 5), batch=1), Input((3,), 5), Input((), 9), Input((), 3)),
    "AdaptiveLogSoftmaxWithLoss": _layer(lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 9, [3]), _ROWS, Input((), 9)),
    "Embedding": _layer(lambda: nn.Embedding(9, 4), Input((5,), 9)),
    "EmbeddingBag": _layer(lambda: nn.EmbeddingBag(9, 4), Input((5,), 9)),
    "Conv1d": _layer(lambda: nn.Conv1d(4, 6, 3, padding=1), _LINE),
    "Conv2d": _layer(lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2), _PLANE),
    "Conv3d": _layer(lambda: nn.Conv3d(4, 6, 2), _SPACE),
    "ConvTranspose1d": _layer(lambda: nn.ConvTranspose1d(4, 6, 3), _LINE),
    "ConvTranspose2d": _layer(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), _PLANE),
    "ConvTranspose3d": _layer(lambda: nn.ConvTranspose3d(4, 2, 2), _SPACE),
    "BatchNorm1d": _layer(lambda: nn.BatchNorm1d(6), _ROWS),
    "BatchNorm2d": _layer(lambda: nn.BatchNorm2d(4), _PLANE),
    "BatchNorm3d": _layer(lambda: nn.BatchNorm3d(4), _SPACE),
    "InstanceNorm1d": _layer(lambda: nn.InstanceNorm1d(4), _LINE),
    "GroupNorm": _layer(lambda: nn.GroupNorm(2, 4), _PLANE),
    "InstanceNorm2d": _layer(lambda: nn.InstanceNorm2d(4, affine=True), _PLANE),
    "LayerNorm": _layer(lambda: nn.LayerNorm(6), _ROWS),
    "RMSNorm": _layer(lambda: nn.RMSNorm(6), _ROWS),
    "LocalResponseNorm": _layer(lambda: nn.LocalResponseNorm(3), _PLANE),
    "MaxPool1d": _layer(lambda: nn.MaxPool1d(3), _LINE),
    "MaxPool2d": _layer(lambda: nn.MaxPool2d(2, return_indices=True), _PLANE),
    "MaxPool3d": _layer(lambda: nn.MaxPool3d(2), _SPACE),
    "AvgPool1d": _layer(lambda: nn.AvgPool1d(3), _LINE),
    "AvgPool3d": _layer(lambda: nn.AvgPool3d(2), _SPACE),
    "AdaptiveAvgPool1d": _layer(lambda: nn.AdaptiveAvgPool1d(3), _LINE),
    "AvgPool2d": _layer(lambda: nn.AvgPool2d(2), _PLANE),
    "LPPool2d": _layer(lambda: nn.LPPool2d(2, 2), _PLANE),
    "AdaptiveAvgPool2d": _layer(lambda: nn.AdaptiveAvgPool2d(3), _PLANE),
    "AdaptiveMaxPool1d": _layer(lambda: nn.AdaptiveMaxPool1d(3), _LINE),
    "Unfold": _layer(lambda: nn.Unfold(3), _PLANE),
    "Fold": _layer(lambda: nn.Fold((5, 5), 3), Input((18, 9))),
    "Upsample": _layer(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), _PLANE),
    "PixelShuffle": _layer(lambda: nn.PixelShuffle(2), _PLANE),
    "ChannelShuffle": _layer(lambda: nn.ChannelShuffle(2), _PLANE),
    "PixelUnshuffle": _layer(lambda: nn.PixelUnshuffle(2), _PLANE),
    "UpsamplingNearest2d": _layer(lambda: nn.UpsamplingNearest2d(scale_factor=2), _PLANE),
    "Softmax2d": _layer(nn.Softmax2d, _PLANE),
    "Threshold": _layer(lambda: nn.Threshold(0.1, 2.0), _ROWS),
    "ReplicationPad1d": _layer(lambda: nn.ReplicationPad1d(2), _LINE),
    "ZeroPad2d": _layer(lambda: nn.ZeroPad2d(1), _PLANE),
    "CircularPad2d": _layer(lambda: nn.CircularPad2d(1), _PLANE),
    "ConstantPad3d": _layer(lambda: nn.ConstantPad3d(1, 0.5), _SPACE),
    "Unflatten": _layer(lambda: nn.Unflatten(1, (2, 3)), _ROWS),
    "ReflectionPad2d": _layer(lambda: nn.ReflectionPad2d(2), _PLANE),
    "RNN": _layer(lambda: nn.RNN(8, 5), _SEQUENCE),
    "LSTM": _layer(lambda: nn.LSTM(8, 5, num_layers=2, bidirectional=True), _SEQUENCE),
    "GRU": _layer(lambda: nn.GRU(8, 5, batch_first=True), Input((5, 8))),
    "RNNCell": _layer(lambda: nn.RNNCell(6, 5), _ROWS),
    "GRUCell": _layer(lambda: nn.GRUCell(6, 5), _ROWS),
    "LSTMCell": _layer(lambda: nn.LSTMCell(6, 5), _ROWS),
    "MultiheadAttention": _layer(lambda: nn.MultiheadAttention(8, 2), _SEQUENCE, _SEQUENCE, _SEQUENCE),
    "TransformerEncoder": _layer(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2), Input((5, 8))
    ),
    "TransformerEncoderLayer": _layer(lambda: nn.TransformerEncoderLayer(8, 2, 12), _SEQUENCE),
    "TransformerDecoderLayer": _layer(lambda: nn.TransformerDecoderLayer(8, 2, 12), _SEQUENCE, _SEQUENCE),
    "Transformer": _layer(lambda: nn.Transformer(8, 2, 1, 1, 12), _SEQUENCE, _SEQUENCE),
}  # fmt: skip

LIBRARIES = {"timm": TIMM, "transformers": TRANSFORMERS, "pytorchcv": PYTORCHCV, "torch.nn": TORCH_NN}

# The table ------------------------------------------------------------------------------------------------------------


def shares(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return a Markdown table of the shares of models that work in each way, with the refusals below.

    Args:
        found: The outcomes of `survey`, by model.
    """
    lines = [f"| library | models | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 2) + "|"]
    for library, entries in LIBRARIES.items():
        outcomes = [found[name] for name in entries if name in found]
        if outcomes:
            lines.append(f"| {library} | {len(outcomes)} | {' | '.join(_share(way, outcomes) for way in WAYS)} |")
    outcomes = list(found.values())
    lines.append(f"| all | {len(outcomes)} | {' | '.join(_share(way, outcomes) for way in WAYS)} |")
    refused = [f"- {name}, {way}: {reason}" for name, each in found.items() for way, reason in each.items() if reason]
    return "\n".join([*lines, "", *[" ".join(line.split())[:400] for line in refused]])


def _share(way: str, outcomes: Iterable[Mapping[str, str]]) -> str:
    """Return how many outcomes have this way, and how many of them work: `59/60 (98%)`."""
    reasons = [each[way] for each in outcomes if way in each]
    works = sum(not reason for reason in reasons)
    return f"{works}/{len(reasons)} ({works / len(reasons):.0%})" if reasons else "-"


def main(names: list[str]) -> None:
    """Survey the models of these names, or all, and print the table."""
    torch.set_num_threads(1)
    entries = {name: entry for library in LIBRARIES.values() for name, entry in library.items()}
    print(shares({name: survey(entries[name]) for name in names or entries}))


if __name__ == "__main__":
    main(sys.argv[1:])
