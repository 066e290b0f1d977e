"""Rewrites of a diagram that keep what it computes, one a file: what `simplify` does.

May use `ports`, `workspace` and `rules` of `autodiff`, and what is below it. Start with `simplify`, the public
function, which applies them.
"""
