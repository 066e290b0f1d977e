"""What the authors of `models` promise that no signature says: laws of this repository's own circuits alone.

Each takes a circuit and what `subjects` tells every law; an AssertionError says what is not as promised.
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


def counted(f: Any, /, number: int, **_: Any) -> None:
    """The module of a circuit has so many parameters, and not one more."""
    found = sum(each.numel() for each in module_of(f).parameters())
    assert found == number, f"{found} parameters, and its formula gives {number}"


def module_of(f: Any) -> nn.Module:
    """The module itself, or that of which it is a method."""
    return getattr(f, "__self__", f)


def placed(f: Any, /, make: Callable[..., nn.Module], **_: Any) -> None:
    """Made on some device and in some dtype, all of a module is there, and in it."""
    module = make(device="meta", dtype=torch.float16)
    for name, each in (*module.named_parameters(), *module.named_buffers()):
        assert each.is_meta, f"{name} is on {each.device}"
        assert each.dtype == torch.float16 or not each.is_floating_point(), f"{name} is {each.dtype}"


def takes_device(kind: Callable[..., Any]) -> bool:
    """Whether what makes a module can be told where, by name or by whatever names come."""
    taken = inspect.signature(kind).parameters.values()
    return any(each.name == "device" or each.kind is inspect.Parameter.VAR_KEYWORD for each in taken)


def pickled(f: Any, /, **_: Any) -> None:
    """A circuit that is made by a function is found again by its name."""
    assert pickle.loads(pickle.dumps(f)) is f


def offers(f: Any, /, names: str, **told: Any) -> None:
    """The circuit may be given these tensors, and refuses them where their last axis is longer than it may be."""
    subject = _subject("offers", f, told)
    given = subject.tensors(names.split())
    for name in names.split():
        assert name in given, f"{name} is no optional tensor of {subject.circuit.title}"
        given[name] = torch.cat((given[name], given[name][..., -1:]), -1)
        with pytest.raises(CircuitError):
            subject(given)


def whole(f: Any, /, **told: Any) -> None:
    """Tokens are whole numbers: others are refused, and a diagram of the module is made of such."""
    subject = _subject("whole", f, told)
    for name, tokens in subject.tensors().items():
        with pytest.raises(CircuitError):
            subject({**subject.tensors(), name: tokens.double()})
    if isinstance(f, nn.Module):
        names = [name for slot in subject.circuit.slots for term in slot.axes for name in term.names]
        trace(f, sizes={name: subject.sizes[name] for name in names})


def untouched(f: Any, /, **told: Any) -> None:
    """Nobody writes to what came in, with gradients or without."""
    subject = _subject("untouched", f, told)
    for grad in (True, False):
        tensors = subject.tensors()
        with torch.set_grad_enabled(grad):
            subject(tensors)
        for name, each in subject.tensors().items():
            assert torch.equal(tensors[name], each), f"{name} is changed"


def laid_out(f: Any, /, **told: Any) -> None:
    """In single precision too, what comes out lies in memory as a new tensor does."""
    subject = _subject("laid_out", f, told).to(torch.float32)
    assert all(each.is_contiguous() for each in subject(subject.tensors()))


def laid_out_last(f: Any, /, **told: Any) -> None:
    """In single precision the channels of a pixel lie side by side in memory; doubles stay as they are."""
    subject = _subject("laid_out_last", f, told)
    tensors = subject.tensors()
    (image,), (same,) = (
        subject.to(torch.float32)({name: each.float() for name, each in tensors.items()}),
        subject(tensors),
    )
    assert image.stride() == (image[0].numel(), 1, image.shape[3] * image.shape[1], image.shape[1])
    assert same.is_contiguous()


def mapped(f: Any, /, **told: Any) -> None:
    """Without gradients too, a circuit has tangents, and torch.vmap lifts it."""
    subject = _subject("mapped", f, told)
    one, other = (subject.bound(subject.tensors(draw=draw)) for draw in (0, 1))
    args, kwargs = one
    with torch.no_grad(), forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch scripts its rules for tangents, and says not to
        duals = [forward_ad.make_dual(each, way) for each, way in zip(args, other[0], strict=True)]
        tangent = forward_ad.unpack_dual(subject.f(*duals, **kwargs)).tangent
        ahead, back = ([each + step * way for each, way in zip(args, other[0], strict=True)] for step in (1e-6, -1e-6))
        # A central difference of step h is off by h² of the third derivative, and by a rounding of 1e-16 over h.
        torch.testing.assert_close(
            tangent, (subject.f(*ahead, **kwargs) - subject.f(*back, **kwargs)) / 2e-6, rtol=1e-6, atol=1e-6
        )
        both = [torch.stack(each) for each in zip(args, other[0], strict=True)]
        lifted = torch.vmap(lambda *given: subject.f(*given, **kwargs))(*both)
        torch.testing.assert_close(lifted[1], subject.f(*other[0], **kwargs))


def begins_normal(f: Any, /, deviations: Mapping[str, float], **_: Any) -> None:
    """Weights begin normal with these deviations, and biases at 0."""
    for name, each in module_of(f).named_parameters():
        deviation = deviations.get(name, 0.0)
        found = each.detach().square().mean().sqrt().item()
        assert abs(found - deviation) <= 0.1 * deviation, (
            f"{name} has the deviation {found}, and begins with {deviation}"
        )


def begins(f: Any, /, uniform: Callable[[nn.Module], Mapping[str, float]], **_: Any) -> None:
    """Weights begin uniform within these bounds, by module and name; a bound of 0 is a number that begins at 0."""
    module = module_of(f)
    bounds, parameters = uniform(module), dict(module.named_parameters())
    for name, bound in bounds.items():
        largest = parameters[name].abs().max().item()
        assert largest <= bound, f"{name} reaches {largest}, and begins within {bound}"
        assert largest >= 0.75 * bound, f"{name} reaches {largest} only, and begins within {bound}"


def cached(f: Any, /, **_: Any) -> None:
    """A cache is in the dtype that keys will have, also under autocast, which leaves doubles alone; others it refuses.

    It looks at the module inside.
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


def drawn_by(f: Any, /, **told: Any) -> None:
    """What is drawn is the generator's, where one is given, and torch's own where not."""
    subject = _subject("drawn_by", f, told)
    tensors = subject.tensors()

    def draw(own: int, given: int | None = None) -> list[Tensor]:
        torch.manual_seed(own)
        generator = None if given is None else torch.Generator().manual_seed(given)
        args, kwargs = subject.bound(tensors)
        return [subject.f(*args, **kwargs, generator=generator)]

    for same, other in (((1, 5), (2, 5)), ((1, None), (1, None))):
        assert torch.equal(*draw(*same), *draw(*other)), "the same draws give others"
    for one, other in (((1, 5), (1, 6)), ((1, None), (2, None))):
        assert not torch.equal(*draw(*one), *draw(*other)), "other draws give the same"


def _subject(name: str, f: Any, told: Mapping[str, Any]) -> Subject:
    """What a law looks at."""
    options = dict(told)
    return Subject(name, f, options.pop("sizes"), options.pop("inputs"), options.pop("seed", 0), options)
