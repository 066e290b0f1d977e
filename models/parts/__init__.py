"""Parts that the models share: masks, position encodings, a key-value cache, attention kernels, convolution, pooling.

`generation` is the loop that appends tokens, `space` the spatial axes of convolutions and pools, `sizes` the check of
constructor arguments. These modules import only `models.weights`, each other and the public names of `circuits`. They
can be read in any order: start with those that the model you read imports.
"""
