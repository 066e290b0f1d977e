"""`Drawing`: a picture with its theme, as text of several kinds."""

from dataclasses import dataclass, field

from circuits.drawing.ink.svg import svg
from circuits.drawing.marks import Picture


@dataclass(frozen=True)
class Drawing:
    """A picture in one theme.

    Attributes:
        picture: The marks.
        theme: "light", "dark" or "print".
    """

    picture: Picture = field(repr=False)
    theme: str = "light"

    @property
    def svg(self) -> str:
        """The picture as SVG."""
        return svg(self.picture, self.theme)
