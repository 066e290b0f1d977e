"""Text for TeX: each character as commands that pdfTeX and LuaTeX know with the fonts of every installation.

Letters with accents, Greek letters and the symbols of mathematics have commands; any other character is drawn as a
small square, so that no name can run a command or stop the compiler.
"""

import unicodedata

_TEXT = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "%": r"\%",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "'": r"\textquoteright{}",
    "`": r"\textquoteleft{}",
    "-": "-{}",
    " ": r"\ ",
    "\u00a0": r"\ ",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\ldots{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "⁄": "/",
    "¡": r"\textexclamdown{}",
    "¿": r"\textquestiondown{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "©": r"\copyright{}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "•": r"\textbullet{}",
    "£": r"\pounds{}",
}

_GREEK = (
    r"\alpha \beta \gamma \delta \varepsilon \zeta \eta \theta \iota \kappa \lambda \mu \nu \xi o \pi \rho \varsigma "
    r"\sigma \tau \upsilon \varphi \chi \psi \omega"
)
_CAPITALS = r"A B \Gamma \Delta E Z H \Theta I K \Lambda M N \Xi O \Pi P - \Sigma T \Upsilon \Phi X \Psi \Omega"

_MATHS = {
    **{chr(0x3B1 + place): name for place, name in enumerate(_GREEK.split())},
    **{chr(0x391 + place): rf"\mathrm{{{name}}}" for place, name in enumerate(_CAPITALS.split())},
    "ϑ": r"\vartheta",
    "ϕ": r"\phi",
    "ϖ": r"\varpi",
    "ϵ": r"\epsilon",
    "µ": r"\mu",
    "×": r"\times",
    "÷": r"\div",
    "±": r"\pm",
    "·": r"\cdot",
    "⋅": r"\cdot",
    "−": "-",
    "¬": r"\neg",
    "°": r"{}^\circ",
    "′": r"{}^\prime",
    "″": r"{}^{\prime\prime}",
    "‴": r"{}^{\prime\prime\prime}",
    "←": r"\leftarrow",
    "→": r"\rightarrow",
    "↑": r"\uparrow",
    "↓": r"\downarrow",
    "↔": r"\leftrightarrow",
    "↦": r"\mapsto",
    "⇐": r"\Leftarrow",
    "⇒": r"\Rightarrow",
    "⇔": r"\Leftrightarrow",
    "∀": r"\forall",
    "∂": r"\partial",
    "∃": r"\exists",
    "∅": r"\emptyset",
    "∆": r"\Delta",
    "∇": r"\nabla",
    "∈": r"\in",
    "∉": r"\notin",
    "∏": r"\prod\nolimits",
    "∑": r"\sum\nolimits",
    "∗": r"\ast",
    "∘": r"\circ",
    "√": r"\surd",
    "∝": r"\propto",
    "∞": r"\infty",
    "∧": r"\wedge",
    "∨": r"\vee",
    "∩": r"\cap",
    "∪": r"\cup",
    "∫": r"\int",
    "∼": r"\sim",
    "≈": r"\approx",
    "≠": r"\neq",
    "≡": r"\equiv",
    "≤": r"\leq",
    "≥": r"\geq",
    "«": r"\ll",
    "»": r"\gg",
    "⊂": r"\subset",
    "⊃": r"\supset",
    "⊆": r"\subseteq",
    "⊇": r"\supseteq",
    "⊕": r"\oplus",
    "⊗": r"\otimes",
    "⊙": r"\odot",
    "⊤": r"\top",
    "⊥": r"\bot",
    "⟨": r"\langle",
    "⟩": r"\rangle",
    "⌊": r"\lfloor",
    "⌋": r"\rfloor",
    "⌈": r"\lceil",
    "⌉": r"\rceil",
    "‖": r"\Vert",
    "ℓ": r"\ell",
    "ℏ": r"\hbar",
    "★": r"\bigstar",
    "⋆": r"\star",
    "●": r"\bullet",
    "○": r"\circ",
    "■": r"\blacksquare",
    "□": r"\square",
    "▲": r"\blacktriangle",
    "△": r"\triangle",
    "▶": r"\blacktriangleright",
    "➤": r"\blacktriangleright",
    "▷": r"\triangleright",
}

_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0323": "d",
    "\u0327": "c",
    "\u0331": "b",
}

UNKNOWN = r"\ensuremath{\square}"
"""What is drawn for a character without a command."""


def escaped(text: str) -> str:
    r"""Return a text as TeX in which every character is drawn and none is a command.

    >>> print(escaped("50% é λ₂ 𝔼 注"))
    50\%\ \'{e}\ \ensuremath{\lambda}\textsubscript{2}\ \ensuremath{\mathbb{E}}\ \ensuremath{\square}

    Args:
        text: Any string.
    """
    drawn: list[str] = []
    for letter in unicodedata.normalize("NFD", text):
        if unicodedata.combining(letter):
            if letter in _ACCENTS and drawn:
                drawn[-1] = rf"\{_ACCENTS[letter]}{{{drawn[-1]}}}"
        elif unicodedata.category(letter) != "Cf":
            drawn.append(_command(letter))
    return "".join(drawn)


def _command(letter: str) -> str:
    """One character as TeX."""
    if letter in _TEXT:
        return _TEXT[letter]
    if letter in _MATHS:
        return rf"\ensuremath{{{_MATHS[letter]}}}"
    if letter.isascii():
        return letter if letter.isprintable() else UNKNOWN
    same = unicodedata.normalize("NFKD", letter)
    if same == letter:
        return UNKNOWN
    inside = "".join(map(_command, same))
    kind, name = unicodedata.decomposition(letter).split()[0], unicodedata.name(letter, "")
    if "DOUBLE-STRUCK" in name and same in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        return rf"\ensuremath{{\mathbb{{{same}}}}}"
    if "BOLD" in name:
        return rf"\textbf{{{inside}}}"
    if kind in {"<super>", "<sub>"}:
        return rf"\text{kind[1:-1]}script{{{inside}}}"
    return inside


__all__ = ["UNKNOWN", "escaped"]
