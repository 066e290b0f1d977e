"""`draw`: a diagram as a picture in the notation of neural circuit diagrams, as SVG, TikZ, PNG, PDF or terminal text.

May use `recording`, `algebra`, `diagram` and below. Three steps, each data to data: `scene` (what is drawn), `layout`
(where), `ink` (as which text). Start with `draw`, the public function, then `marks`, the data between layout and ink;
`contents` chooses the boxes, `builder` makes the scene, and `operations` has one drawing rule an operation.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 8 to 28.
"""

from circuits.drawing.draw import draw
from circuits.drawing.drawing import Drawing

__all__ = ["Drawing", "draw"]
