"""The vectors of tokens, and the message for a token that is not in the vocabulary."""

from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]

from circuits import CircuitError


def embedded(name: str, embedding: nn.Module, tokens: Tensor, vocabulary: int) -> Tensor:
    """Return the vector of each token; a token outside 0 to `vocabulary` - 1 raises CircuitError, on the CPU.

    Nothing is compared in advance: the message is made from the IndexError of the embedding. CUDA raises none.

    Args:
        name: Name of the calling class, with which the message begins.
        embedding: The nn.Embedding, or a module in its place.
        tokens: The tokens, of any shape.
        vocabulary: Number of tokens.
    """
    try:
        return embedding(tokens)
    except IndexError as error:
        raise CircuitError(f"{name}: {_out_of_range(tokens, vocabulary)}") from error


def refuse_not_a_token(name: str, token: int | None, vocabulary: int) -> None:
    """Raise CircuitError, with the argument's `name`, for a token that is given and not in the vocabulary."""
    if token is not None and not 0 <= token < vocabulary:
        raise CircuitError(f"{name} is {token}; the tokens are 0 to {vocabulary - 1}")


def _out_of_range(tokens: Tensor, vocabulary: int) -> str:
    """Return the text that names the first token outside the vocabulary, if the numbers can be read."""
    allowed = f"the tokens are 0 to {vocabulary - 1}"
    if functorch.is_functorch_wrapped_tensor(tokens):
        return f"a token is not in the vocabulary; {allowed}"
    places = ((tokens < 0) | (tokens >= vocabulary)).nonzero()
    if not len(places):
        return f"a token is not in the embedding; {allowed}"
    place = places[0].tolist()
    return f"token {tokens[tuple(place)].item()} at {place}; {allowed}"
