"""Laws for the circuits of `models`: properties that no signature implies.

Each takes a circuit and the arguments that `subjects` passes to every law, and raises AssertionError if the property
does not hold.
"""

import copy
import inspect
import pickle
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from circuits import CircuitError, ShapeError, trace
from circuits.laws.subject import Subject


def has_parameters(f: Any, /, number: int, **_: Any) -> None:
    """The module of a circuit has exactly `number` parameters."""
    found = sum(each.numel() for each in module_of(f).parameters())
    assert found == number, f"{found} parameters, but its formula gives {number}"


def module_of(f: Any) -> nn.Module:
    """Return the circuit if it is a module, otherwise the module whose method it is."""
    return getattr(f, "__self__", f)


def created_on_device(f: Any, /, make: Callable[..., nn.Module], **_: Any) -> None:
    """All parameters and buffers of a module have the device, and floating ones the dtype, that it is created with."""
    module = make(device="meta", dtype=torch.float16)
    for name, each in (*module.named_parameters(), *module.named_buffers()):
        assert each.is_meta, f"{name} is on {each.device}"
        assert each.dtype == torch.float16 or not each.is_floating_point(), f"{name} is {each.dtype}"


def takes_device(kind: Callable[..., Any]) -> bool:
    """Return whether a class or function takes `device`, by name or by `**options`."""
    taken = inspect.signature(kind).parameters.values()
    return any(each.name == "device" or each.kind is inspect.Parameter.VAR_KEYWORD for each in taken)


def pickles(f: Any, /, **_: Any) -> None:
    """A circuit that a function returns is pickled by name: unpickling returns the same object."""
    assert pickle.loads(pickle.dumps(f)) is f


def accepts_optional(f: Any, /, names: str, **arguments: Any) -> None:
    """The circuit has these optional tensors, and raises CircuitError if the last axis of one is too long."""
    subject = _subject("accepts_optional", f, arguments)
    given = subject.tensors(names.split())
    for name in names.split():
        assert name in given, f"{name} is not an optional tensor of {subject.circuit.title}"
        given[name] = torch.cat((given[name], given[name][..., -1:]), -1)
        with pytest.raises(CircuitError):
            subject(given)


def takes_integers(f: Any, /, **arguments: Any) -> None:
    """Tokens must be integers: floating tokens raise CircuitError, and `trace` of a module makes integer tokens."""
    subject = _subject("takes_integers", f, arguments)
    for name, tokens in subject.tensors().items():
        with pytest.raises(CircuitError):
            subject({**subject.tensors(), name: tokens.double()})
    if isinstance(f, nn.Module):
        names = [name for slot in subject.circuit.slots for term in slot.axes for name in term.names]
        trace(f, sizes={name: subject.sizes[name] for name in names})


def inputs_unchanged(f: Any, /, **arguments: Any) -> None:
    """The circuit does not write to its inputs, with gradients or without."""
    subject = _subject("inputs_unchanged", f, arguments)
    for grad in (True, False):
        tensors = subject.tensors()
        with torch.set_grad_enabled(grad):
            subject(tensors)
        for name, each in subject.tensors().items():
            assert torch.equal(tensors[name], each), f"{name} is changed"


def contiguous_output(f: Any, /, **arguments: Any) -> None:
    """Outputs are contiguous, in single precision too."""
    subject = _subject("contiguous_output", f, arguments).to(torch.float32)
    assert all(each.is_contiguous() for each in subject(subject.tensors()))


def channels_last_output(f: Any, /, **arguments: Any) -> None:
    """In single precision the output has channels-last strides; in double precision it is contiguous."""
    subject = _subject("channels_last_output", f, arguments)
    tensors = subject.tensors()
    (single,), (double,) = (
        subject.to(torch.float32)({name: each.float() for name, each in tensors.items()}),
        subject(tensors),
    )
    assert single.stride() == (single[0].numel(), 1, single.shape[3] * single.shape[1], single.shape[1])
    assert double.is_contiguous()


def has_tangents_and_vmap(f: Any, /, **arguments: Any) -> None:
    """Under torch.no_grad too, the circuit supports forward-mode differentiation and torch.vmap."""
    subject = _subject("has_tangents_and_vmap", f, arguments)
    one, other = (subject.bound(subject.tensors(draw=draw)) for draw in (0, 1))
    args, kwargs = one
    with torch.no_grad(), forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit in torch's own rules
        duals = [forward_ad.make_dual(each, direction) for each, direction in zip(args, other[0], strict=True)]
        tangent = forward_ad.unpack_dual(subject.f(*duals, **kwargs)).tangent
        after, before = (
            [each + step * direction for each, direction in zip(args, other[0], strict=True)] for step in (1e-6, -1e-6)
        )
        # The error of a central difference is h² times the third derivative, plus the rounding error 1e-16 / h.
        torch.testing.assert_close(
            tangent, (subject.f(*after, **kwargs) - subject.f(*before, **kwargs)) / 2e-6, rtol=1e-6, atol=1e-6
        )
        both = [torch.stack(each) for each in zip(args, other[0], strict=True)]
        lifted = torch.vmap(lambda *given: subject.f(*given, **kwargs))(*both)
        torch.testing.assert_close(lifted[1], subject.f(*other[0], **kwargs))


def initialized_normal(f: Any, /, deviations: Mapping[str, float], **_: Any) -> None:
    """Weights are initialized normal with these standard deviations, and biases to 0."""
    for name, each in module_of(f).named_parameters():
        deviation = deviations.get(name, 0.0)
        found = each.detach().square().mean().sqrt().item()
        assert abs(found - deviation) <= 0.1 * deviation, (
            f"{name} has the standard deviation {found} instead of {deviation}"
        )


def initialized_uniform(f: Any, /, uniform: Callable[[nn.Module], Mapping[str, float]], **_: Any) -> None:
    """Weights are initialized uniform within these bounds, by module and name; a bound of 0 means zeros."""
    module = module_of(f)
    bounds, parameters = uniform(module), dict(module.named_parameters())
    for name, bound in bounds.items():
        largest = parameters[name].abs().max().item()
        assert largest <= bound, f"{name} reaches {largest}, above its bound {bound}"
        assert largest >= 0.75 * bound, f"{name} reaches only {largest}, far below its bound {bound}"


def cache_dtype_follows_autocast(f: Any, /, **_: Any) -> None:
    """The dtype of a cache is that of the keys, also under autocast, which does not convert float64.

    Keys of another shape raise ShapeError, and appended keys and values are concatenated. The module is `f.inner`.
    """
    attend = copy.deepcopy(f.inner)
    for dtype, under in ((torch.float32, torch.bfloat16), (torch.float64, torch.float64)):
        attend = attend.to(dtype)
        assert attend.cache(3).keys.dtype == dtype
        with torch.autocast("cpu", torch.bfloat16):
            assert attend.cache(3).keys.dtype == under
    cache = attend.cache(5, (2,))
    keys = torch.rand(2, attend.g, 1, attend.k, dtype=torch.float64)
    assert cache.keys.shape == (2, attend.g, 5, attend.k)
    for other in (keys[:, :1], keys[..., :1]):
        with pytest.raises(ShapeError):
            cache.append(other, other)
    for count in (1, 2):
        kept = cache.append(count * keys, -count * keys)
        assert cache.length == count
        assert torch.equal(kept[0], torch.cat([each * keys for each in range(1, count + 1)], -2))
        assert torch.equal(kept[1], -kept[0])


def draws_from_generator(f: Any, /, **arguments: Any) -> None:
    """Random numbers come from the generator if one is passed, otherwise from torch's default one."""
    subject = _subject("draws_from_generator", f, arguments)
    tensors = subject.tensors()

    def draw(own: int, given: int | None = None) -> list[Tensor]:
        """Return the outputs after seeding torch, and a generator if a seed is given for it."""
        torch.manual_seed(own)
        generator = None if given is None else torch.Generator().manual_seed(given)
        args, kwargs = subject.bound(tensors)
        return [subject.f(*args, **kwargs, generator=generator)]

    for same, other in (((1, 5), (2, 5)), ((1, None), (1, None))):
        assert torch.equal(*draw(*same), *draw(*other)), "the same seed gives other numbers"
    for one, other in (((1, 5), (1, 6)), ((1, None), (2, None))):
        assert not torch.equal(*draw(*one), *draw(*other)), "another seed gives the same numbers"


def _subject(name: str, f: Any, arguments: Mapping[str, Any]) -> Subject:
    """Return the subject of a law, from the arguments that `subjects` passes."""
    options = dict(arguments)
    return Subject(name, f, options.pop("sizes"), options.pop("inputs"), options.pop("seed", 0), options)
