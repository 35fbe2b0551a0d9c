"""Train MAGN + AugMix in a plain PyTorch loop on scikit-learn's digits.

python examples/plain_pytorch.py [--epochs 5]
"""

import argparse

import numpy as np
import sklearn.datasets
import torch
from torch import nn

from fastmagn import AugMix, MAGNLoss, evaluate_robustness

parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=5, help="training epochs (default: 5)")
parser.add_argument("--num_test_images", type=int, default=597, help="use the first N test images (default: 597, all)")
arguments = parser.parse_args()

digits = sklearn.datasets.load_digits()
images = torch.from_numpy(digits.images / 16).float()[:, None].expand(-1, 3, -1, -1)
images = nn.functional.interpolate(images, size=(32, 32), mode="bilinear")  # [1797, 3, 32, 32] in [0, 1]
labels = torch.from_numpy(digits.target)
train_images, train_labels, test_images, test_labels = images[:1200], labels[:1200], images[1200:], labels[1200:]

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10)),
)
augmix, loss_of = AugMix(seed=0), MAGNLoss(consistency_weight=3.0, jsd_weight=12.0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)

for epoch in range(arguments.epochs):
    for batch in torch.randperm(len(train_images)).split(64):
        clean = train_images[batch]
        sigma = 0.2 * torch.rand(len(clean), 1, 1, 1)  # one per image, uniform in [0, 0.2]
        noisy = clean + sigma * torch.randn_like(clean)
        views = torch.cat([clean, augmix(clean), augmix(clean), noisy])  # one forward pass for all of them
        logits, first, second, noisy_logits = model(views).chunk(4)
        loss = loss_of(logits, train_labels[batch], augmix=[first, second], noisy=[noisy_logits])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

test_images_u8 = np.round(test_images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)[: arguments.num_test_images]
results = evaluate_robustness(model, test_images_u8, test_labels.numpy()[: arguments.num_test_images])
accuracies = [np.mean(accuracy) for accuracy in results["corruption_accuracy"].values()]
print(
    f"clean accuracy {results['clean_accuracy']:.2%}, mean over {len(accuracies)} corruptions {np.mean(accuracies):.2%}"
)
