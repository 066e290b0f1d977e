"""The colours of the roles: `light` for screens, `dark` for dark ones, `print` for paper, which reads in greys too.

A theme is ink and never geometry. The hues of fences and boxes are those of Paul Tol's scheme "light", which readers of
every colour vision tell apart, made pale enough that each text on them has a contrast of 4.5 or more (WCAG AA).

Source: P. Tol, Colour Schemes, SRON/EPS/TN/09-002.
"""

from circuits.drawing.marks import ROLES
from circuits.errors import CircuitError

THEMES = ("light", "dark", "print")
"""The names of the themes."""

_HUES = ("#ffaabb", "#77aadd", "#eedd88", "#44bb99", "#ee8866", "#99ddff", "#bbcc33", "#b58fd6")
_FENCE_GREYS = ("#f5f5f5", "#e8e8e8", "#efefef", "#e2e2e2", "#f8f8f8", "#dedede", "#ebebeb", "#e5e5e5")
_BOX_GREYS = ("#d8d8d8", "#cdcdcd", "#d3d3d3", "#c6c6c6", "#dcdcdc", "#c3c3c3", "#d0d0d0", "#cacaca")


def _mixed(hue: str, ground: str, share: float) -> str:
    """A colour with a share of the ground."""
    pairs = [(int(hue[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _tints(name: str, colours: list[str]) -> dict[str, str]:
    """The eight tints of `fence` or `box`."""
    return {f"{name}{number}": colour for number, colour in enumerate(colours)}


_LIGHT = {
    "paper": "#ffffff",
    "wire": "#1a1a1a",
    "cotangent": "#0b4f8a",
    "error": "#a30017",
    "faint": "#4d4d4d",
    "glyph": "#1a1a1a",
    "ink": "#000000",
    "inside": "#ffffff",
    "window": "#a9e3ff",
    "star": "#e5f2f9",
    "index": "#1f5fae",
    "indextext": "#ffffff",
    "memory": "#fdfac8",
    "label": "#000000",
    "title": "#000000",
    "note": "#7a2a00",
    "bracket": "#000000",
    **_tints("fence", [_mixed(hue, "#ffffff", 0.62) for hue in _HUES]),
    **_tints("box", [_mixed(hue, "#ffffff", 0.38) for hue in _HUES]),
}

_GROUND = "#14161a"

_DARK = {
    "paper": _GROUND,
    "wire": "#e8e8e8",
    "cotangent": "#a0d0ff",
    "error": "#ffb3aa",
    "faint": "#c6c6c6",
    "glyph": "#e8e8e8",
    "ink": "#f5f5f5",
    "inside": "#1b1e23",
    "window": "#15506e",
    "star": "#26343d",
    "index": "#3f86d6",
    "indextext": "#000000",
    "memory": "#4a4724",
    "label": "#f5f5f5",
    "title": "#f5f5f5",
    "note": "#ffc58f",
    "bracket": "#f5f5f5",
    **_tints("fence", [_mixed(hue, _GROUND, 0.8) for hue in _HUES]),
    **_tints("box", [_mixed(hue, _GROUND, 0.72) for hue in _HUES]),
}

_PRINT = {
    **_LIGHT,
    "wire": "#000000",
    "cotangent": "#1c4a75",
    "error": "#9b0019",
    "faint": "#454545",
    "glyph": "#000000",
    "window": "#d9d9d9",
    "star": "#f0f0f0",
    "index": "#404040",
    "memory": "#f2f2f2",
    "note": "#3d3d3d",
    **_tints("fence", list(_FENCE_GREYS)),
    **_tints("box", list(_BOX_GREYS)),
}

_COLOURS = {"light": _LIGHT, "dark": _DARK, "print": _PRINT}


def colours(theme: str) -> dict[str, str]:
    """Return the colour of every role in a theme as `#rrggbb`.

    Args:
        theme: "light", "dark" or "print"; another name raises a `CircuitError`.
    """
    if theme not in THEMES:
        raise CircuitError(f"theme is {theme!r}; the themes are {', '.join(map(repr, THEMES))}")
    return {role: _COLOURS[theme][role] for role in ROLES}


__all__ = ["THEMES", "colours"]
