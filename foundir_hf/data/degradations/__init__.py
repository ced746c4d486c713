"""Degradations as pure batched functions: `(images, generator) -> images`, both `(batch, 3, height, width)` in [0, 1], sRGB.

Every image of a batch draws its own parameters from `generator`, which must live on the images' device.
"""
