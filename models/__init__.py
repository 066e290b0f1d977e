"""Neural circuit diagrams as modules: one figure of the paper a file, each readable beside its figure.

Every model takes `device=` and `dtype=` when it is made, checks its inputs by its signature when it is called, and is
an ordinary `nn.Module`. A classifier's `forward` is its whole figure, ending in probabilities; its `logits` stops
before the softmax, which is what a loss wants.
"""
