"""What figures share inside: masks, positions, a key/value cache, fused attention, convolutions, pooling, generation.

May use `models.weights` and the face of `circuits`. Each file stands alone; start with the one that a figure's
imports name.
"""
