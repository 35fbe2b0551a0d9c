"""Train MAGN + AugMix as a Lightning module on scikit-learn's digits.

python examples/lightning_module.py [--epochs 5]

This needs Lightning, which the extra `examples` installs: pip install -c constraints.txt -e '.[examples]'.
"""

import argparse

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastmagn import AugMix, MAGNLoss, evaluate_robustness
from fastmagn.data import load_images


class RobustClassifier(lightning.LightningModule):
    """Trains any network that maps images in [0, 1] to logits, with equation (6) of the paper."""

    def __init__(self, network: nn.Module, *, lr: float = 0.05, sigma_max: float = 0.2) -> None:
        super().__init__()
        self.network, self.lr, self.sigma_max = network, lr, sigma_max
        self.augmix, self.loss_of = AugMix(seed=0), MAGNLoss()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images_u8, labels = batch
        clean = images_u8.float() / 255
        sigma = self.sigma_max * torch.rand(len(clean), 1, 1, 1, device=clean.device)
        augmented = [self.augmix(images_u8).float() / 255 for _ in range(2)]
        views = torch.cat([clean, *augmented, clean + sigma * torch.randn_like(clean)])
        logits, first, second, noisy = self(views).chunk(4)
        loss = self.loss_of(logits, labels, augmix=[first, second], noisy=[noisy])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5, help="training epochs (default: 5)")
    parser.add_argument(
        "--num_test_images", type=int, default=599, help="use the first N test images (default: 599, all)"
    )
    arguments = parser.parse_args()
    lightning.seed_everything(0)
    digits = load_images("digits", ".")
    images_u8 = torch.from_numpy(digits.train_images_u8).permute(0, 3, 1, 2)
    loader = DataLoader(TensorDataset(images_u8, torch.from_numpy(digits.train_labels)), batch_size=64, shuffle=True)
    network = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10)),
    )
    module = RobustClassifier(network)
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, loader)
    count = arguments.num_test_images
    results = evaluate_robustness(module.cpu(), digits.test_images_u8[:count], digits.test_labels[:count])
    print(f"loss {trainer.callback_metrics['train_loss']:.3f}, clean accuracy {results['clean_accuracy']:.2%}")
    print({name: round(sum(accuracy) / 5, 4) for name, accuracy in results["corruption_accuracy"].items()})


if __name__ == "__main__":
    main()
