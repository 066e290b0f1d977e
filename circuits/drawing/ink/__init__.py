"""Ink: the marks of a picture as SVG, TikZ, terminal text, PNG or PDF; themes give each role its colour."""
