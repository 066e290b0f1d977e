"""`Drawing`: a picture in one theme, as SVG, TikZ or terminal text, and as a file.

SVG, TikZ and terminal text need nothing; PNG and PDF files need the optional extra `drawing`.
"""

import base64
import html
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from circuits.drawing.ink.pages import checked, pdf, png
from circuits.drawing.ink.svg import svg
from circuits.drawing.ink.terminal import terminal
from circuits.drawing.ink.themes import colours
from circuits.drawing.ink.tikz import tikz
from circuits.drawing.marks import Picture
from circuits.errors import CircuitError, entry_points

_KINDS: dict[str, Callable[[Picture, str, float], bytes]] = {
    ".svg": lambda picture, theme, scale: svg(picture, theme, scale).encode(),
    ".tex": lambda picture, theme, scale: tikz(picture, theme, scale).encode(),
    ".pdf": pdf,
    ".png": png,
}
"""What each kind of file holds."""


@entry_points("__init__", "text", "save")
@dataclass(frozen=True)
class Drawing:
    """A picture in one theme; a notebook shows it.

    Attributes:
        picture: The marks and their places.
        theme: "light", "dark" or "print": the colours, never the places.
    """

    picture: Picture = field(repr=False)
    theme: str = "light"

    def __post_init__(self) -> None:
        """Refuse an unknown theme."""
        colours(self.theme)

    @property
    def svg(self) -> str:
        """The picture as the text of an SVG file."""
        return svg(self.picture, self.theme)

    @property
    def tikz(self) -> str:
        """The picture as a LaTeX document with a TikZ picture, for `pdflatex` or `lualatex`."""
        return tikz(self.picture, self.theme)

    def text(self, width: int | None = 100, letters: Literal["unicode", "ascii"] = "unicode") -> str:
        """Return the picture as text for a terminal, drawn with lines and boxes.

        Args:
            width: The most columns of a line. A wider picture is narrowed as far as its labels allow, and then goes on
                below itself. `None` for as many columns as the picture has.
            letters: "unicode", or "ascii" for a terminal that has nothing else.
        """
        return terminal(self.picture, width, letters)

    def save(self, path: str | os.PathLike[str], scale: float = 1.0) -> None:
        """Write the picture to a file, completely or not at all.

        A PNG or a PDF is drawn with the fonts of the machine; a character that none of them has is drawn as □.

        Args:
            path: Where to; the suffix says what: .svg, .tex, .pdf or .png. PDF and PNG need the package `typst`.
            scale: How many pixels one unit of the picture has in a PNG; in the other files, how much larger they are.
        """
        target = Path(path)
        if target.suffix.lower() not in _KINDS:
            raise CircuitError(f"{target} has none of the suffixes of a drawing: .svg, .tex, .pdf, .png")
        _write(target, _KINDS[target.suffix.lower()](self.picture, self.theme, checked(scale)))

    def _repr_svg_(self) -> str:
        """The picture for a notebook."""
        return self.svg

    def _repr_html_(self) -> str:
        """The picture for a page: as an image, since JupyterLab takes SVG out of a notebook that it does not trust."""
        data = base64.b64encode(self.svg.encode()).decode()
        return f'<img alt="{html.escape(self.picture.title)}" src="data:image/svg+xml;base64,{data}">'

    def __repr__(self) -> str:
        """The size and the theme."""
        return f"Drawing({self.picture.width:.0f} x {self.picture.height:.0f}, theme={self.theme!r})"


def _write(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there; a link stays a link to the file."""
    target = Path(os.path.realpath(path))
    if target.is_dir() or not target.parent.is_dir():
        raise CircuitError(f"{path} is a folder" if target.is_dir() else f"{path}: there is no folder {target.parent}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name[:40]}.") as folder:
        written = Path(folder) / "written"
        written.write_bytes(content)
        if target.exists():
            written.chmod(target.stat().st_mode & 0o777)
        written.replace(target)


__all__ = ["Drawing"]
