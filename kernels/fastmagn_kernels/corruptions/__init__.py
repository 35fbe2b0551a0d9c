"""The kernels of the common corruptions: uint8 images in, uint8 images out."""
