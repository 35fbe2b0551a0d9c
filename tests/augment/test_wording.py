"""Views in words: the words, read back, make the same pixels with Pillow as the engine."""

import re

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.augment.wording import augmix_views, clean_views, noisy_views
from fastmagn.config.schema import AugmentConfig

INDICES = np.arange(40)


def params_of(**fields):
    spec = ViewSpec(num_augmix_views=2, num_noise_views=1)
    return sample_view_params(3, 1, INDICES, spec, AugmentConfig(**fields), (32, 32))


def test_an_augmix_views_words_name_each_operation_with_its_magnitude_and_its_share():
    params = params_of(aug_severity=10)
    drawn = params.augmix
    kinds = set()
    for view in range(2):
        for i, text in enumerate(augmix_views(params, view)):
            *chains, clean = text.replace("\N{NO-BREAK SPACE}", " ").split("; ")
            mix = drawn.mix_weight[view, i]
            assert clean == f"{100 * (1 - mix):.0f} % clean"
            assert len(chains) == 3
            for chain, words in enumerate(chains):
                share, steps = re.fullmatch(r"(\d+) % (.+)", words).groups()
                assert int(share) == pytest.approx(100 * mix * drawn.chain_weights[view, i, chain], abs=0.51)
                names = steps.split(" → ")
                ids = [int(id_) for id_ in drawn.ops[view, i, chain] if id_ >= 0]
                assert len(names) == len(ids)
                for name, id_, magnitude in zip(names, ids, drawn.magnitudes[view, i, chain], strict=False):
                    known = ["autocontrast", "equalize", "posterize", "rotate", "solarize", "shear x", "shear y"]
                    known += ["translate x", "translate y"]
                    assert name.startswith(known[id_])
                    number = re.search(r"[-+]?\d+(\.\d+)?", name)
                    assert (number is None) == (id_ < 2)
                    if number:
                        assert float(number[0]) == pytest.approx(magnitude, abs=0.0051)
                    if name.startswith("posterize"):
                        assert name.endswith(" 1 bit" if magnitude == 1 else f" {magnitude:.0f} bits")
                    kinds.add(id_)
    assert kinds == set(range(9))


def test_one_operations_words_read_back_make_its_pixels_with_pillow():
    """Posterize and solarize, which Pillow takes as they are written."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    params = params_of(aug_severity=10, mixture_width=1, mixture_depth=1)
    params = identity_base(params)
    from fastmagn.augment.views import make_views

    images = np.broadcast_to(pixels.transpose(2, 0, 1), (len(INDICES), 3, 32, 32)).copy()
    import torch

    views = make_views(torch.from_numpy(images), params, "pil").chunk(4)[1].numpy()
    tried = 0
    for i, text in enumerate(augmix_views(params, 0)):
        found = re.match(r"\d+\s% (posterize|solarize) (\d+)", text)
        if found is None:
            continue
        name, value = found.groups()
        made = getattr(ImageOps, name)(Image.fromarray(pixels), int(value))
        mix = float(params.augmix.mix_weight[0, i])
        wanted = (1 - mix) * pixels / 255 + mix * np.asarray(made) / 255
        assert np.abs(views[i].transpose(1, 2, 0) - wanted).max() < 1e-5
        tried += 1
    assert tried >= 3


def test_clean_and_noisy_views():
    params = params_of(color_jitter=0.25, horizontal_flip=True, sigma_max=0.3)
    base = params.base
    for i, text in enumerate(clean_views(params)):
        right, down = re.match(r"crop moved by ([-+]\d+), ([-+]\d+) px", text).groups()
        assert (int(right), int(down)) == (base.crop_x_px[i] - 4, base.crop_y_px[i] - 4)
        assert ("flipped" in text) == bool(base.flip[i])
        assert f"brightness × {base.brightness[i]:.2f}" in text
        assert text.endswith(f"rotate {base.angle[i] / 64:+.1f}°")
    assert noisy_views(params, 0) == [f"sigma {value:.3f}" for value in params.sigma[0]]
    nothing = params_of(crop_padding_px=0, horizontal_flip=False, color_jitter=0.0, rotation_deg=0.0)
    assert set(clean_views(nothing)) == {"unchanged"}


@pytest.mark.parametrize("policy", ["trivialaugment", "randaugment", "autoaugment_cifar10"])
def test_a_policys_operations_are_named(policy):
    params = params_of(policy=policy, crop_padding_px=0, horizontal_flip=False, color_jitter=0.0, rotation_deg=0.0)
    texts = clean_views(params)
    steps = [0 if text == "unchanged" else len(text.split(" → ")) for text in texts]
    assert steps == [int(np.count_nonzero(rows >= 0)) for rows in params.recipe.params.rows]
    assert len({text.split(" ")[0] for text in texts}) > 5


def test_erased_areas_and_noise_patches_are_named():
    params = params_of(erase_probability=1.0, patch_probability=1.0, patch_gaussian=0.5)
    drawn = params.recipe.params
    for i, text in enumerate(clean_views(params)):
        left, top, width, height = drawn.erased[i]
        assert f"erased in {width} x {height} px at {left}, {top}" in text
        assert re.search(r"gaussian noise 0\.\d\d in \d+ x \d+ px", text)
