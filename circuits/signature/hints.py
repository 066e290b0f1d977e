"""What was probably meant: einsum's letters without spaces, as in `"bi,ij->bj"`."""

from circuits.signature.signature import Signature
from circuits.signature.terms import Axis, Rest


def separated(signature: Signature) -> str:
    """Return a signature whose axes were written without spaces, as in torch.einsum, with spaces; "" if it was not.

    It was, if every tensor is a single word of different letters, one word at least has two letters, and the results
    have no letter that the inputs lack.

    >>> separated(Signature.parse("bi,ij->bj"))
    'b i, i j -> b j'
    >>> separated(Signature.parse("batch -> features"))
    ''
    """
    sides: list[list[str]] = []
    for side in (signature.inputs, signature.outputs):
        sides.append([])
        for axes in side:
            words = [term.name for term in axes if isinstance(term, Axis)]
            rest = [term for term in axes if isinstance(term, Rest)]
            if len(words) + len(rest) != len(axes) or len(words) > 1:
                return ""
            if words and not (words[0].isalpha() and len({*words[0]}) == len(words[0]) <= 6):
                return ""
            sides[-1].append(" ".join(["..."] * len(rest) + [*"".join(words)]))
    left, right = ({*" ".join(side).split()} for side in sides)
    if not right <= left or all(len(word.split()) < 2 for side in sides for word in side):
        return ""
    return " -> ".join([", ".join(side) for side in sides]).strip()
