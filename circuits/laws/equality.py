"""Laws of running: kernel and definition are one, derivatives are right, compiling changes nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.func import functional_call

from circuits import switch
from circuits.checking import Circuit, definitions, parameters_of
from circuits.laws.comparison import agree_all, agree_by_name, fail
from circuits.laws.counterexample import small
from circuits.laws.subject import DoesNotApply, Sizes, Source, Subject, seeded


@small
def kernel(
    f: Any,
    /,
    *,
    dtypes: Iterable[torch.dtype] = (torch.float64, torch.float32),
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """What runs gives what the definition gives, values and gradients, in each of the dtypes.

    Optional tensors are left out, given one by one, and all together; inputs lie in memory as a new tensor does, and
    then transposed. Kernels of circuits inside are held to their definitions too. DoesNotApply where none runs.

    >>> from circuits import circuit
    >>> double = circuit("a -> a")(lambda x: x + x)
    >>> _ = double.kernel(lambda x: 2 * x)
    >>> kernel(double)
    """
    subject = Subject("kernel", f, sizes, inputs, seed, arguments)
    if not any(circuit.has_kernel for circuit in circuits_in(subject)):
        raise DoesNotApply(f"laws.kernel: no circuit with a kernel runs in {subject.circuit.title}")
    for dtype in dtypes:
        twin = subject if dtype == subject.dtype else subject.to(dtype)
        for optional in twin.patterns():
            for layout, arranged in (("contiguous", torch.clone), ("transposed", _transposed)):
                tensors = {name: arranged(each) for name, each in twin.tensors(optional).items()}
                values, gradients = answers(twin, twin.f, tensors)
                with definitions():
                    others, theirs = answers(twin, twin.f, tensors)
                words = ("by the kernel", "by the definition")
                note = ", ".join([f"{dtype}".removeprefix("torch."), layout, *[f"with {name}" for name in optional]])
                agree_all(twin, values, others, words, note)
                agree_by_name(twin, gradients, theirs, words, note, room=10.0)


class _Circuits:
    """A recorder that notes which circuits run, and lets them."""

    def __init__(self) -> None:
        self.found: list[Circuit] = []

    def circuit(self, circuit: Any, owner: Any, args: Any, kwargs: Any, run: Callable[[bool], Any]) -> Any:
        """Note it."""
        self.found.append(circuit)
        return run(False)

    def verb(self, function: Any, pattern: str, args: Any, kwargs: Any, run: Callable[[], Any]) -> Any:
        """Nothing to note."""
        return run()

    def show(self, size: Any) -> str:
        """A number."""
        return f"{size}"


def circuits_in(subject: Subject) -> list[Circuit]:
    """The circuits that run in one, itself among them."""
    noted = _Circuits()
    with switch.set_recorder(noted), torch.no_grad():
        for optional in subject.extremes():
            subject(subject.tensors(optional))
    return noted.found


def _transposed(tensor: Tensor) -> Tensor:
    """The same numbers, the last two axes the other way round in memory."""
    return tensor.mT.clone(memory_format=torch.contiguous_format).mT if tensor.ndim > 1 else tensor.clone()


def answers(
    subject: Subject, f: Callable[..., Any], tensors: Mapping[str, Tensor]
) -> tuple[list[Tensor], dict[str, Any]]:
    """Values, and the gradients of a random sum of them by every floating input and parameter."""
    asked = {name: each.detach().requires_grad_() if _floats(each) else each for name, each in tensors.items()}
    found = subject.run(f, asked)
    wanted = {name: each for name, each in asked.items() if _floats(each)}
    wanted |= {name: each for name, each in subject.parameters().items() if each.requires_grad}
    ways = [each for each in found if each.requires_grad]
    if not ways or not wanted:
        return [each.detach() for each in found], {}
    with seeded(subject.seed + 1):
        weights = [torch.randn(each.shape, dtype=torch.float64).to(each.dtype) for each in ways]
    gradients = torch.autograd.grad(ways, list(wanted.values()), weights, allow_unused=True)
    return [each.detach() for each in found], dict(zip(wanted, gradients, strict=True))


def _floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


@small
def equals(
    f: Any,
    /,
    reference: Callable[..., Any],
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """The circuit gives what `reference` gives, values and gradients; both take the same arguments.

    A law looks at a copy of a module, whose parameters are stirred; a `reference` that needs them takes it first, as a
    parameter called `module`.

    >>> from circuits import circuit
    >>> equals(circuit("a b -> a")(lambda x: x.sum(-1)), lambda x: torch.stack([sum(row) for row in x]))
    """
    subject = Subject("equals", f, sizes, inputs, seed, arguments)
    asks = "module" in [each.name for each in parameters_of(reference)[:1]]
    told = partial(reference, subject.module) if asks else reference
    for optional in subject.patterns():
        tensors = subject.tensors(optional)
        values, gradients = answers(subject, subject.f, tensors)
        others, theirs = answers(subject, told, tensors)
        words, notes = ("by the circuit", "by the reference"), [f"with {name}" for name in optional]
        agree_all(subject, values, others, words, *notes)
        agree_by_name(subject, gradients, theirs, words, *notes)


@small
def gradcheck(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """First derivatives of what runs, and second derivatives of the definition, are those of small differences.

    `torch.autograd.gradcheck` and `gradgradcheck` in doubles, in their fast mode (one random direction), by every
    floating input and parameter. Kernels have seldom a second derivative, so that of the definition is taken.
    DoesNotApply where nothing floats, or nothing that comes out has a derivative.

    >>> from circuits import circuit
    >>> gradcheck(circuit("a -> a")(lambda x: x.sin()))
    """
    subject = Subject("gradcheck", f, sizes, inputs, seed, arguments)
    for optional in subject.extremes():
        tensors = subject.tensors(optional)
        asked = {name: each for name, each in tensors.items() if each.is_floating_point()}
        run = _Flat(subject, tensors, list(asked))
        given = [each.clone().requires_grad_() for each in (*asked.values(), run.start) if each.numel()]
        if subject.dtype != torch.float64 or not any(each.requires_grad for each in run(*given)):
            raise DoesNotApply(f"laws.gradcheck: nothing in {subject.circuit.title} has a derivative in doubles")
        notes = [f"with {name}" for name in optional]
        _check(subject, torch.autograd.gradcheck, run, given, "first derivatives", *notes)
        with definitions():
            _check(subject, torch.autograd.gradgradcheck, run, given, "second derivatives", *notes)


class _Flat:
    """The subject as a function of its floating inputs and of one vector, all its parameters end to end."""

    def __init__(self, subject: Subject, tensors: Mapping[str, Tensor], asked: Sequence[str]) -> None:
        self.subject, self.tensors = subject, tensors
        self.asked = [name for name in asked if tensors[name].numel()]
        self.parameters = {name: each for name, each in subject.parameters().items() if each.is_floating_point()}
        self.start = torch.cat(
            [torch.empty(0, dtype=subject.dtype), *[each.detach().flatten() for each in self.parameters.values()]]
        )

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        f = self.subject.f
        if self.parameters:
            pieces = given[-1].split([each.numel() for each in self.parameters.values()])
            own = zip(self.parameters.items(), pieces, strict=True)
            f = _with(self.subject, {name: piece.view_as(each) for (name, each), piece in own})
        found = self.subject.run(f, {**self.tensors, **dict(zip(self.asked, given, strict=False))})
        return tuple([each for each in found if _floats(each)])


class _Called(nn.Module):
    """A module of which some method is called: functional_call calls forward alone."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The method."""
        return getattr(self.module, self.name)(*args, **kwargs)


def _with(subject: Subject, parameters: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The copy, with these tensors for its parameters."""
    name = "__call__" if isinstance(subject.f, nn.Module) else subject.f.__name__
    called = _Called(subject.module, name)
    own = {f"module.{name}": each for name, each in parameters.items()}
    return lambda *args, **kwargs: functional_call(called, own, args, kwargs)


def _check(
    subject: Subject, check: Callable[..., bool], run: Callable[..., Any], given: list[Tensor], what: str, *notes: str
) -> None:
    """AssertionError where torch finds a derivative that small differences do not."""
    try:
        with seeded(subject.seed + 1):
            check(run, given, fast_mode=True)
    except GradcheckError as error:
        first = f"{error}".strip().splitlines()[0].rstrip(".,:")
        fail(subject, f"{what} are not those of small differences: {first}", *notes)


def compiles(
    f: Any,
    /,
    *,
    backend: str = "eager",
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """`torch.compile` makes one graph of it, with fixed sizes and with free ones, that gives the same.

    With free sizes the graph is made once, and holds for other sizes too. `backend` is torch.compile's: "eager" runs
    the graph as it is, "aot_eager" traces gradients too, "inductor" generates code, and takes its time. What was
    compiled before is forgotten.

    >>> from circuits import circuit
    >>> compiles(circuit("a b -> b")(lambda x: x.sum(0)))
    """
    subject = Subject("compiles", f, sizes, inputs, seed, arguments)
    try:
        for dynamic in (False, True):
            torch.compiler.reset()
            compiled = torch.compile(subject.f, fullgraph=True, dynamic=dynamic, backend=backend)
            for optional in subject.extremes():
                _same(
                    subject, compiled, subject.tensors(optional), "free sizes" if dynamic else "fixed sizes", *optional
                )
                if dynamic:
                    sizes, lead = subject.others()
                    with torch.compiler.set_stance("fail_on_recompile"):
                        tensors = subject.tensors(optional, sizes=sizes, lead=lead)
                        _same(subject, compiled, tensors, "free sizes, and others than it was compiled for", *optional)
    finally:
        torch.compiler.reset()


def _same(subject: Subject, compiled: Callable[..., Any], tensors: Mapping[str, Tensor], how: str, *given: str) -> None:
    """AssertionError unless the compiled circuit runs, and gives what the circuit gives."""
    values, gradients = answers(subject, subject.f, tensors)
    notes = [how, *[f"with {name}" for name in given]]
    try:
        others, theirs = answers(subject, compiled, tensors)
    except Exception as error:
        first = next((line for line in f"{error}".splitlines() if line.strip()), "").strip()
        fail(subject, f"it does not compile into one graph: {type(error).__name__}: {first}", *notes)
    words = ("compiled", "as it is written")
    agree_all(subject, others, values, words, *notes)
    agree_by_name(subject, theirs, gradients, words, *notes)
