"""The marks of steps, by the kinds of their links and the shapes of their glyphs."""

from circuits.drawing.layout.frames import Frame
from circuits.drawing.layout.glyphs import bar, box, circle, letter, pentagon, star, triangle
from circuits.drawing.layout.junctions import above, cup, end, fork, join, note, pass_on, start, unit
from circuits.drawing.layout.sources import memory, source
from circuits.drawing.layout.windows import window
from circuits.drawing.marks import Mark


def draw_step(frame: Frame) -> list[Mark]:
    """Return the marks of a step, and draw its wires."""
    found: list[Mark] = []
    for strand, name in frame.step.sources:
        found += source(frame, strand, name)
    cups = [link for link in frame.step.links if link.kind == "cup"]
    joined = {port for link in frame.step.links if link.beside for port in frame.joined(link)}
    for link in frame.step.links:
        if link.kind == "pass" and link.ins[0] in joined:
            continue
        if link.kind == "glyph":
            found += _GLYPHS.get(link.shape, box)(frame, link)
        elif link.kind == "cup":
            found += cup(frame, link, cups)
        else:
            found += _OTHERS[link.kind](frame, link)
    return found + above(frame) + note(frame)


_GLYPHS = {
    "letter": letter,
    "triangle": triangle,
    "circle": circle,
    "bar": bar,
    "star": star,
    "pentagon": pentagon,
    "memory": memory,
    "window": window,
    "transposed": window,
}
_OTHERS = {"pass": pass_on, "join": join, "fork": fork, "end": end, "start": start, "unit": unit}

__all__ = ["draw_step"]
