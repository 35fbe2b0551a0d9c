"""Standard training under a policy of the clean view; `augment.policy` puts the same policies before any method.

Sources: E. D. Cubuk et al., "AutoAugment: Learning augmentation strategies from data", CVPR 2019 (its CIFAR-10 policy,
which its authors also use on CIFAR-100; its training adds Cutout, this method does not); E. D. Cubuk et al.,
"RandAugment: Practical automated data augmentation with a reduced search space", 2020; S. G. Müller and F. Hutter,
"TrivialAugment: Tuning-free yet state-of-the-art data augmentation", ICCV 2021. G. Siedel et al. add random erasing and
noise patches to TrivialAugment (ta_noise); the strengths are their code's, for images of 32 x 32 pixels.
"""

from fastmagn.methods.method import Method
from fastmagn.methods.standard import standard_loss

AUTOAUGMENT = Method(title="AutoAugment", loss=standard_loss, implies={"policy": "autoaugment_cifar10"})
TRIVIALAUGMENT = Method(title="TrivialAugment", loss=standard_loss, implies={"policy": "trivialaugment"})
RANDAUGMENT = Method(title="RandAugment", loss=standard_loss, implies={"policy": "randaugment"})
TA_NOISE = Method(
    title="TA+Noise",
    loss=standard_loss,
    implies={
        "policy": "trivialaugment",
        "erase_probability": 0.3,
        "erase_max_area": 0.4,
        "patch_linf": 0.1,
        "patch_l2": 5.0,
        "patch_l1": 200.0,
        "patch_l05": 400_000.0,
        "patch_impulse": 0.2,
    },
)
