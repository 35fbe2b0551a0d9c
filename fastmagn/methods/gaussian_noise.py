"""Standard training on Gaussian noise: half of the images have it, each with its own standard deviation.

The noise is a noise patch that covers the image (`augment.patch_*`), so the kernel that makes the views adds it. The
standard deviation is uniform up to 0.2, as that of MAGN's noisy views is: training on a single one learns that one.

Sources: E. Rusak et al., "A simple way to make neural networks robust against diverse image corruptions", ECCV 2020
(half of the images, five standard deviations); K. Kireev et al., "On the effectiveness of adversarial training against
common corruptions", UAI 2022 (half of the images, one standard deviation of 0.1 for CIFAR-10).
"""

from fastmagn.methods.method import Method
from fastmagn.methods.standard import standard_loss

GAUSSIAN_NOISE = Method(
    title="Gaussian noise",
    loss=standard_loss,
    implies={
        "patch_gaussian": 0.2,
        "patch_probability": 0.5,
        "patch_min_area": 1.0,
        "patch_max_area": 1.0,
        "patch_max_left_out": 0.0,
    },
)
