"""Rewrites of a diagram that do not change what it computes, one a file: the parts of `simplify`.

May use `ports`, `renumbering` and `rules` of `autodiff`, and the folders below `autodiff`. Start with `simplify`, the
public function, which applies them in order: `common_subexpressions` and `no_ops` (boxes that repeat a result or change
nothing), `fusion` (merges contractions, with helpers in `contractions` and `row_sums`). `purity` says which boxes may
be removed or replaced.
"""
