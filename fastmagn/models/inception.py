"""Inception-V3 for 32x32 images."""

from torch import nn
from torchvision.models.inception import BasicConv2d, Inception3


def inception_v3(num_classes: int) -> nn.Module:
    """Inception-V3 for 32x32 images: torchvision's without its auxiliary head, with a stem that keeps the image size.

    It has 21.8 M parameters. As usual for CIFAR, the first two convolutions of the stem are padded and have stride 1,
    and the stem has no max-pools; everything after it is as published. Sizes of the feature maps for 32x32 images (in
    brackets the published ones, for 299x299):

    - stem: 32 pixels; 30 after its last convolution, which is not padded (71, then 35 after the pool)
    - Mixed_5b to 5d: 30 (35)
    - Mixed_6a to 6e: 14 (17)
    - Mixed_7a to 7c: 6 (8), then the global average

    It departs from the publication in two more ways. There is no dropout before the head: dropout draws from a
    generator with a state, and a resumed run would not repeat it. Weights have torch's default initialisation, not a
    truncated normal whose standard deviation is 0.1 whatever the fan-in.

    Source: C. Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016.
    """
    network = Inception3(num_classes, aux_logits=False, transform_input=False, init_weights=False, dropout=0.0)
    network.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, padding=1)
    network.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3, padding=1)
    network.maxpool1 = nn.Identity()
    network.maxpool2 = nn.Identity()
    return network
