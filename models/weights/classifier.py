"""A classifier with another number of classes: the same model with a new head, which can be saved."""

import copy
from typing import Any, ClassVar, Self

from torch import nn

from circuits import CircuitError

from .configuration import change_arguments


class Classifier(nn.Module):
    """The method `with_classes`, which every classifier here inherits."""

    _head_name: ClassVar[str]
    """The name of the last map, whose outputs are the logits."""

    _classes_names: ClassVar[tuple[str, str]]
    """The name of the number of classes as an attribute, and as an argument of the constructor."""

    def with_classes(self, classes: int) -> Self:
        """Return a copy with a new head for another number of classes, initialized as by the constructor.

        All other weights are those of this model, the head's device and dtype too.

        Args:
            classes: The number of classes.

        Raises:
            CircuitError: if `classes` is below 1, or the head has been replaced by a module of another class.

        >>> import models, torch
        >>> models.MLP(x=4, y=4, m=8, k=2).with_classes(3)(torch.rand(5, 4, 4)).shape
        torch.Size([5, 3])
        """
        name, head = type(self).__name__, self.get_submodule(self._head_name)
        if not hasattr(classes, "__index__") or isinstance(classes, bool) or classes < 1:
            raise CircuitError(f"{name}.with_classes: classes is {classes!r}; it may be 1 or more")
        like: Any = {"bias": True, "device": next(self.parameters()).device, "dtype": next(self.parameters()).dtype}
        if type(head) is nn.Linear:
            new = nn.Linear(head.in_features, int(classes), **like)
        elif type(head) is nn.Conv2d:
            new = nn.Conv2d(head.in_channels, int(classes), 1, **like)
        else:
            raise CircuitError(f"{name}.with_classes: {self._head_name} is a {type(head).__name__}, not that of {name}")
        self._reset_head(new)
        made = copy.deepcopy(self)
        made.set_submodule(self._head_name, new.train(head.training))
        attribute, argument = self._classes_names
        setattr(made, attribute, int(classes))
        change_arguments(made, **{argument: int(classes)})
        return made

    def _reset_head(self, head: Any) -> None:
        """Initialize a new head; here as torch does."""
        head.reset_parameters()
