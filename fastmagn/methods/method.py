"""What a method is: the views it needs, how it changes them, its loss, its titles.

Shape letters: V views, B batch, K classes, C H W image. Targets are labels int64 [B], or probabilities float32 [B, K].
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastmagn.augment.params import ViewSpec
from fastmagn.augment.policies.recipe import patch_strengths
from fastmagn.config.schema import AugmentConfig, Config, LossConfig
from fastmagn.errors import InputError, check, form
from fastmagn.methods.context import StepContext

LossParts = dict[str, Tensor]
Prepare = Callable[[Tensor, Tensor, StepContext], tuple[Tensor, ...]]
TestTime = Callable[[nn.Module, Config, tuple[int, int]], nn.Module]
AUGMIX_FIELDS = frozenset(
    f"augment.{name}"
    for name in ("aug_severity", "random_aug_severity", "mixture_width", "mixture_depth", "all_operations")
)


class Layout(NamedTuple):
    """How many views of each kind a forward pass takes, in this order; `clean` is 0 or 1."""

    clean: int = 1
    augmix: int = 0
    noisy: int = 0
    adversarial: int = 0
    augmented: int = 0

    @property
    def num_views(self) -> int:
        """V."""
        return sum(self)


class LogitViews(NamedTuple):
    """The logits of a fused forward pass by the view they belong to, each [B, K], float32.

    `clean` is [0, K] where no clean view is forwarded.
    """

    clean: Tensor
    augmix: tuple[Tensor, ...] = ()
    noisy: tuple[Tensor, ...] = ()
    adversarial: tuple[Tensor, ...] = ()
    augmented: tuple[Tensor, ...] = ()


# What a row of metrics.jsonl has beside a loss's parts.
LOGGED_BESIDE_PARTS = frozenset(
    {"epoch", "step", "lr", "loss", "train_accuracy", "validation_accuracy"}
    | {"images_per_s", "epoch_s", "wall_images_per_s", "wall_s"}
)

Loss = Callable[[LogitViews, Tensor, LossConfig], tuple[Tensor, LossParts]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method: a row of the paper, or a rival.

    Args:
        title: Its name in tables and figures.
        loss: (logits, targets, weights) -> (scalar to minimise, its parts before weighting, for the log: scalar tensors
            by name, none of a name in LOGGED_BESIDE_PARTS).
        num_augmix_views: AugMix views of each image.
        uses_noise: Whether it trains on Gaussian noisy views, `augment.num_noise_samples` of each image.
        takes_noise: Whether `prepare` is given one noisy view, after the AugMix views, and returns none. Not with
            `uses_noise`.
        num_partners: Other training images that `prepare` is given for each image, `StepContext.partners`, 0..4.
        prepare: (views float32 [V*B, C, H, W] as `view_spec` lists them, labels int64 [B], context) -> (views as
            `layout` lists them, targets, further tensors for `between_stages`). None forwards the views as they are
            made.
        forwarded: The views that `prepare` returns, if their kinds are not those of `view_spec`; noisy views of
            `uses_noise` are not counted here.
        between_stages: (stage from 1, its feature maps [V*B, C, H, W], further tensors of `prepare`) -> the maps that
            the next stage is given. It is part of the compiled graph. None leaves the network as it is.
        test_time: (model, config, image size) -> the model that is measured. None measures the model itself.
        chosen: config -> the fields of this class that the configuration changes, if it chooses among forms.
        implies: Fields of `AugmentConfig` that this method sets where the user has left the default.
        view_title: The title of the views that it makes, if that is not `title`.
        drops_clean: Whether `prepare` leaves out the clean view, and the noise patch on it, or undoes the patch.
        reads: Fields that its functions read and not every method does, such as `mixing.mixup_alpha`. A run of one of
            fastmagn's own methods warns of other fields that are changed.
    """

    title: str
    loss: Loss
    num_augmix_views: int = 0
    uses_noise: bool = False
    takes_noise: bool = False
    num_partners: int = 0
    prepare: Prepare | None = None
    forwarded: Layout | None = None
    between_stages: Callable[..., Tensor] | None = None
    test_time: TestTime | None = None
    chosen: Callable[[Config], Mapping[str, Any]] | None = None
    implies: Mapping[str, Any] = field(default_factory=dict)
    view_title: str | None = None
    drops_clean: bool = False
    reads: frozenset[str] = frozenset()

    def checked_loss(self, logits: LogitViews, targets: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
        """What `loss` returns. It is not checked in a graph, where PyTorch's error would hide ours.

        Raises:
            InputError: It returns something else.
        """
        returned = self.loss(logits, targets, weights)
        if not torch.compiler.is_compiling():
            _check_returned(self.title, returned)
        return returned

    def of(self, config: Config) -> "Method":
        """The form of this method that the configuration chooses."""
        return self if self.chosen is None else dataclasses.replace(self, **self.chosen(config))

    def settled(self, augment: AugmentConfig) -> AugmentConfig:
        """The settings of the views: the user's, and what the method implies.

        Raises:
            InputError: They put noise patches on a view whose patch the method loses, or do not go with what it
                implies.
        """
        for name, strength in patch_strengths(augment).items():
            allowed = f"0 with {self.title}, which leaves out or undoes the noise patch: it is on the clean view alone"
            check(not self.drops_clean, f"augment.{name}", strength, allowed)
        default = AugmentConfig()
        left = {name: value for name, value in self.implies.items() if getattr(augment, name) == getattr(default, name)}
        try:
            return dataclasses.replace(augment, **left)
        except InputError as error:
            implied = ", ".join(f"augment.{name} {value}" for name, value in left.items())
            raise InputError(f"{error} Where you leave them at their defaults, {self.title} sets {implied}.") from None

    def check_given(self, augment: AugmentConfig, given: Collection[str]) -> None:
        """Check that no field that this method sets was given at its default: it would count as not given.

        Args:
            augment: The settings of the views, the user's.
            given: The fields that the command line names, such as `augment.policy`.

        Raises:
            InputError: One was.
        """
        default = AugmentConfig()
        for name, value in self.implies.items():
            field, got = f"augment.{name}", getattr(augment, name)
            if field in given and got == getattr(default, name) != value:
                raise InputError(
                    f"{field}: got {got}, the default, in place of which {self.title} sets {value}; expected another"
                    f" value. To train with {got}, use --method standard and give the fields that you want."
                )

    def fields_read(self) -> frozenset[str]:
        """`reads`, and the fields of the AugMix and the noisy views that the engine makes for it."""
        fields = self.reads | (AUGMIX_FIELDS if self.num_augmix_views else frozenset())
        fields |= {"augment.sigma_max"} if self.uses_noise or self.takes_noise else frozenset()
        return fields | ({"augment.num_noise_samples"} if self.uses_noise else frozenset())

    def view_spec(self, augment: AugmentConfig) -> ViewSpec:
        """The views that the augmentation engine makes of a batch."""
        num_noise_views = augment.num_noise_samples if self.uses_noise else int(self.takes_noise)
        return ViewSpec(num_augmix_views=self.num_augmix_views, num_noise_views=num_noise_views)

    def layout(self, augment: AugmentConfig) -> Layout:
        """The views that the model is given."""
        made = self.view_spec(augment)
        if self.forwarded is None:
            return Layout(augmix=made.num_augmix_views, noisy=made.num_noise_views)
        return self.forwarded._replace(noisy=made.num_noise_views) if self.uses_noise else self.forwarded

    def view_titles(self, augment: AugmentConfig) -> list[str]:
        """The titles of the views that the model is given, in order. A changed clean view has the method's title."""
        layout, title = self.layout(augment), self.view_title or self.title
        changes_clean = (self.prepare is not None or self.implies) and layout._replace(noisy=0) == Layout()
        kinds = [(title if changes_clean else "clean", layout.clean), ("AugMix", layout.augmix)]
        kinds += [("noisy", layout.noisy), ("adversarial", layout.adversarial), (title, layout.augmented)]
        return [kind if count == 1 else f"{kind} {n + 1}" for kind, count in kinds for n in range(count)]


def _check_returned(title: str, returned: Any) -> None:
    """Raise InputError unless a loss returned what `Loss` says."""
    field = f"the loss of method {title!r}"
    is_pair = isinstance(returned, tuple | list) and len(returned) == 2
    if not is_pair or not isinstance(returned[1], Mapping):
        many = f" of {len(returned)}" if isinstance(returned, tuple | list) and not is_pair else ""
        kind = f"a pair with a {type(returned[1]).__name__}" if is_pair else f"a {type(returned).__name__}{many}"
        raise InputError(
            f"{field}: got {kind}; expected a pair: a scalar tensor, and a dict of scalar tensors by name."
        )
    loss, parts = returned
    _check_scalar(field, loss, of_floats=True)
    for name, value in parts.items():
        if not isinstance(name, str) or name in LOGGED_BESIDE_PARTS:
            taken = ", ".join(sorted(LOGGED_BESIDE_PARTS))
            raise InputError(f"{field}: got a part named {name!r}; expected another text than the log's own: {taken}.")
        _check_scalar(f"part {name!r} of {field}", value, of_floats=False)


def _check_scalar(field: str, value: object, *, of_floats: bool) -> None:
    is_scalar = isinstance(value, Tensor) and value.ndim == 0 and not value.is_complex()
    has_floats = isinstance(value, Tensor) and value.is_floating_point()
    if not is_scalar or (of_floats and not has_floats):
        got = form(value) if isinstance(value, Tensor) else f"a {type(value).__name__}"
        expected = "a scalar tensor of floats" if of_floats else "a scalar tensor"
        raise InputError(f"{field}: got {got}; expected {expected}, such as a mean.")


def split_logits(logits: Tensor, layout: Layout) -> LogitViews:
    """Split fused logits [V*B, K] by view, in the order of `layout`."""
    views = iter(logits.float().chunk(layout.num_views))
    clean = next(views) if layout.clean else logits[:0].float()
    kinds = (layout.augmix, layout.noisy, layout.adversarial, layout.augmented)
    return LogitViews(clean, *(tuple(next(views) for _ in range(count)) for count in kinds))
