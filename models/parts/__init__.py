"""Parts that the models share: masks, position encodings, a key-value cache, attention kernels, convolution, pooling.

`generation` is autoregressive generation, `linear` a linear map between named axes, `space` the spatial axes of
convolutions and pooling, `memory_layout` the channels-last format, `sizes` the check of constructor arguments. These
modules import only `models.weights`, each other and the public names of `circuits`, and can be read in any order: start
with those that the model of interest imports.
"""
