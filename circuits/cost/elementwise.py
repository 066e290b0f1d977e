"""What an operation that contracts nothing does: it moves elements, computes with each, or is unknown here.

Operations on elements are no FLOPs here, as in torch's `FlopCounterMode`; they are counted apart. A pointwise operation
counts each element that it writes, whatever it computes; a reduction, softmax, norm, pool or loss each element that it
reads. Views, copies, random numbers and look-ups compute nothing.
"""

import re
from typing import Any

import torch

_MOVES = re.compile(
    r"""(_?to_copy|copy|clone|contiguous|cat|stack|[hvd]stack|gather|index|_unsafe_index|index_select|index_put|take
    |_unsafe_index_put|_index_put_impl|index_copy|index_fill|masked_select|masked_scatter|scatter|embedding
    |_embedding_bag_offsets|constant_pad_nd|(reflection|replication)_pad\dd|flip|roll|rot90|tril|triu|repeat
    |repeat_interleave|im2col|unfold_copy|(slice|select|diagonal|as_strided)_scatter|block_diag|diag_embed|nonzero
    |(slice|select|unfold|as_strided)_backward|_?unsafe_split(_with_sizes)?|split_copy|split_with_sizes_copy|fill|zero
    |_reshape_copy|view_copy|expand_copy|permute_copy|select_copy|slice_copy|unbind_copy|upsample_nearest\dd
    |_upsample_nearest_exact\dd|channel_shuffle|pixel_(un)?shuffle|(new_)?(empty|zeros|ones|full)(_like)?|new_empty_strided
    |empty_strided|empty_permuted|arange|linspace|logspace|eye|scalar_tensor|tril_indices|triu_indices|lift|lift_fresh
    |lift_fresh_copy|_local_scalar_dense|rand|randn|randint|rand_like|randn_like|randint_like|randperm|normal|uniform
    |bernoulli|exponential|random|cauchy|geometric|log_normal|multinomial|poisson|complex|view_as_real_copy|resize|set
    |_resize_output|_reshape_alias|real|imag|_conj_physical|[a-z]+_window|_pack_padded_sequence|_pad_packed_sequence
    |_nested_.*|values|indices|isnonzero|equal|is_same_size|_fused_sdp_choice|split_with_sizes|_assert.*|sym_.*)$""",
    re.VERBOSE,
)
_COMPUTES = re.compile(
    r"""(_?(log_)?softmax|_safe_softmax|_masked_softmax|native_(batch|layer|group)_norm|_native_batch_norm_legit.*
    |_batch_norm_.*|batch_norm_.*|_fused_rms_norm|rms_norm|cudnn_batch_norm|_weight_norm_interface|native_dropout
    |(max|avg|adaptive_max|adaptive_avg|_adaptive_avg|fractional_max|lp|max_un)_?pool\dd?(_with_indices)?|max_unpool\dd
    |upsample_(linear|bilinear|bicubic|trilinear)\dd?|_upsample_.*|glu|prelu|_prelu_kernel|rrelu_with_noise.*
    |nll_loss(2d)?(_forward)?|(mse|l1|smooth_l1|huber|kl_div|soft_margin|hinge_embedding|multi_margin)_?(loss)?.*
    |binary_cross_entropy.*|multilabel_margin_loss.*|ctc_loss|_ctc_loss|_use_cudnn_ctc_loss|cum(sum|prod)|logcumsumexp
    |cum(max|min)|_cummax_helper|_cummin_helper|var_mean|std_mean|var|std|aminmax|max|min|sum|mean|prod|norm|logsumexp
    |scatter_add|scatter_reduce|index_add|index_reduce|_?embedding_bag|_embedding_bag_forward_only|addr|ger|addcmul|addcdiv
    |col2im|lerp|dist|renorm|count_nonzero|_cdist_forward|_pdist_forward|pairwise_distance|trace|cross|linalg_cross|kron
    |linalg_vector_norm|_linalg_check_errors|quantile|all|any|bincount|rsub|_foreach_.*|_fused_dropout|_spdiags
    |_thnn_fused_(lstm|gru)_cell|.*fake_quantize.*|clamp.*|logit|log_sigmoid_forward|hardswish|isin|searchsorted|bucketize
    |segment_reduce|polar|floor_divide|remainder|fmod|true_divide|_amp_.*|logical_.*|_trilinear_upsample|where|masked_fill)$""",
    re.VERBOSE,
)
_GRADIENTS = re.compile(
    r"""(.*(softmax|norm|pool.*|upsample.*|loss.*|dropout|glu|prelu.*|embedding.*|pad\dd|relu.*|elu|silu|mish|gelu|tanh
    |sigmoid|hard.*|softplus|softshrink|cross_entropy|logit|cdist|pdist|_backward_data|legit.*|batch_norm.*|lstm_cell
    |gru_cell|trilinear|_fused_rms_norm|im2col|interface|nearest.*|rrelu_with_noise|value_selecting_reduction|
    threshold|masked_softmax|evenly_read))_(dense_)?backward(_data|_reduce|_elemt)?$""",
    re.VERBOSE,
)

_NO_WRITES = re.compile(r"(new_)?empty(_like|_strided|_permuted)?$")
_OVERWRITES = re.compile(r"(copy|fill|zero|normal|uniform|bernoulli|exponential|random|set|resize)_?$")
_LOOKS_UP = re.compile(r"(embedding|index|_unsafe_index|index_select|gather|take|masked_select|_embedding_bag.*)$")


def name_of(func: Any) -> str:
    """Return the name of an ATen operation without `_` at its end: `add` for `aten::add_`."""
    name = func._schema.name.removeprefix("aten::")
    return name if name.endswith("__") else name.removesuffix("_")


def computes(func: Any) -> str | None:
    """Return which elements an operation computes with: "written", "read" or "" (none); None if it is unknown here."""
    name = name_of(func)
    if _MOVES.match(name):
        return ""
    if torch.Tag.pointwise in func.tags or (is_of_lists(func) and name not in ("_foreach_norm", "_foreach_max")):
        return "written"
    if torch.Tag.reduction in func.tags or _COMPUTES.match(name) or _GRADIENTS.match(name):
        return "written" if "upsample" in name else "read"
    return None


def writes_nothing(func: Any) -> bool:
    """Return whether an operation makes tensors without writing to them."""
    return _NO_WRITES.match(name_of(func)) is not None


def only_overwrites(func: Any) -> bool:
    """Return whether an operation does not read the tensor that it writes to: `copy_`, or one that is given `out`."""
    return _OVERWRITES.match(name_of(func)) is not None or any(each.is_out for each in func._schema.arguments)


def is_of_lists(func: Any) -> bool:
    """Return whether an operation does the same to each tensor of a list."""
    return name_of(func).startswith("_foreach_")


def looks_up(func: Any) -> bool:
    """Return whether an operation reads only as many elements of its first tensor as it writes."""
    return _LOOKS_UP.match(name_of(func)) is not None


__all__ = ["computes", "is_of_lists", "looks_up", "name_of", "only_overwrites", "writes_nothing"]
