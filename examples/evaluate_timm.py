"""Measure the robustness of a timm network on CIFAR-10-C, made on the fly or read from a folder.

python examples/evaluate_timm.py --data_dir DIR --model resnet18 --checkpoint FILE [--corrupted SET] [--num_images 1000]

DIR holds cifar-10-batches-py; without it, the images are scikit-learn's digits. FILE is the state_dict of a timm
network with 10 outputs, as .safetensors or .pt; without it, the weights are random and the accuracy is about 10 %.
To make SET, run `python -m fastmagn.corrupt --dataset cifar10 --data_dir DIR --out SET`.
"""

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms.functional import normalize, resize

from fastmagn import evaluate_robustness
from fastmagn.data import load_images

parser = argparse.ArgumentParser(
    allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use digits)")
parser.add_argument("--model", default="resnet18", help="a name from timm.list_models() (default: resnet18)")
parser.add_argument("--checkpoint", type=Path, help="weights, .safetensors or .pt (default: random)")
parser.add_argument("--corrupted", type=Path, help="folder of a -C set of these images (default: made on the fly)")
parser.add_argument("--corruption_set", default="c15", choices=("c15", "c18", "c19"))
parser.add_argument(
    "--num_images", type=int, default=1000, help="use the first N test images, 0 for all (default: 1000)"
)
parser.add_argument("--side_px", type=int, default=32, help="side that images are resized to (default: 32)")
arguments = parser.parse_args()

images = load_images("cifar10", arguments.data_dir) if arguments.data_dir else load_images("digits", ".")
model = timm.create_model(arguments.model, num_classes=images.num_classes)
if arguments.checkpoint is not None:
    is_safe = arguments.checkpoint.suffix == ".safetensors"
    state = load_file(arguments.checkpoint) if is_safe else torch.load(arguments.checkpoint, weights_only=True)
    model.load_state_dict(state)


def preprocess(batch: Tensor) -> Tensor:
    """Resize and normalise images in [0, 1] as the network expects."""
    mean, std = (list(model.pretrained_cfg[name]) for name in ("mean", "std"))
    return normalize(resize(batch, [arguments.side_px] * 2, antialias=True), mean, std)


results = evaluate_robustness(
    model,
    images.test_images_u8,
    images.test_labels,
    corruption_set=arguments.corruption_set,
    corrupted_dir=arguments.corrupted,
    num_images=min(arguments.num_images, len(images.test_labels)),
    subset="first",  # the images of these two sets are in random order
    device="cuda" if torch.cuda.is_available() else "cpu",
    preprocess=preprocess,
)
for name, by_severity in results["corruption_accuracy"].items():
    print(f"{name:20}" + "".join(f"{100 * accuracy:6.1f}" for accuracy in by_severity))
mca = results["mca"][arguments.corruption_set]
print(f"clean accuracy {results['clean_accuracy']:.2%}")
print(f"mCA {arguments.corruption_set} " + ("was not measured whole" if mca is None else f"{mca:.2%}"))
print(f"RMS calibration error, corrupt {results['rms_calibration_error']['corrupt']:.2%}")
