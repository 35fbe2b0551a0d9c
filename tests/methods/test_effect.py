"""What a run says of fields that change nothing in it, against steps that are taken with and without them."""

from pathlib import Path

import pytest
import torch

from fastmagn.config.command_line import given_fields, parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import InputError
from fastmagn.extend import add_method
from fastmagn.methods.effect import unread, without_effect
from fastmagn.methods.standard import STANDARD
from fastmagn.methods.table import METHODS, get_method
from fastmagn.train import main
from tests.helpers import smooth_network
from tests.helpers.own_code import forgotten
from tests.helpers.small_runs import DEFAULT, assert_same_weights, knows_the_network, small
from tests.helpers.steps import start_run, take_steps

# Another value of every field that some methods read and others do not.
OTHER = {
    "augment.aug_severity": "9",
    "augment.random_aug_severity": "true",
    "augment.mixture_width": "2",
    "augment.mixture_depth": "3",
    "augment.all_operations": "true",
    "augment.num_noise_samples": "2",
    "augment.sigma_max": "0.4",
    "augment.rse_sigma": "0.3",
    "mixing.cutout_px": "10",
    "mixing.mixup_alpha": "0.3",
    "mixing.cutmix_alpha": "0.3",
    "mixing.cutmix_probability": "1",
    "prime.color_frequencies": "5",
    "prime.color_variance": "0.5",
    "prime.displacement_cut": "20",
    "prime.filter_std": "1",
    "prime.official": "true",
    "spectra.variant": "p",
    "spectra.pair_probability": "1",
    "spectra.single_probability": "1",
    "spectra.blur_px": "5",
    "spectra.blur_sigma_px": "2",
    "spectra.official": "true",
    "afa.mean_strength": "40",
    "afa.min_strength": "20",
    "afa.max_frequency": "3",
    "noisymix.alpha": "0.3",
    "noisymix.additive_noise": "1",
    "noisymix.multiplicative_noise": "1",
    "noisymix.noise_sparsity": "0.1",
    "noisymix.official": "true",
    "attack.epsilon": "0.1",
    "attack.steps": "3",
    "attack.step_scale": "1",
    "attack.random_start": "false",
    "loss.consistency_weight": "7",
    "loss.jsd_weight": "5",
    "loss.trades_weight": "6",
    "loss.detach_weight": "true",
    "loss.detach_target": "true",
}
WITH_MAGN = ("standard+magn", "apr+magn", "augmix_no_jsd+magn", "prime+magn")


@pytest.fixture(autouse=True)
def _smooth_network(monkeypatch):
    knows_the_network(monkeypatch)


def stepped(folder: Path, method: str, fields: list[str]) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The parts of the loss of one step with these fields at their other values, and the weights after it."""
    changes = [word for field in fields for word in (f"--{field}", OTHER[field])]
    network = "resnet_small" if method == "noisymix" else smooth_network.NAME  # noisymix mixes maps between stages
    settings = ["--model.name", network, "--train.batch_size", "8", "--attack.steps", "2"]
    run = start_run(small(folder, "--method", method, *settings, *changes))
    return take_steps(run, 1), run.model.state_dict()


@pytest.mark.parametrize("method", [*METHODS, *WITH_MAGN])
def test_fields_that_a_method_does_not_read_change_no_step(method, tmp_path):
    rest = [field for field in OTHER if field not in get_method(method).fields_read()]
    changes = [word for field in rest for word in (f"--{field}", OTHER[field])]
    config = parse_config(["--method", method, *changes], "test", "")
    assert {named.split()[0] for named in unread(config, OTHER).split(", ")} == set(rest)
    assert unread(config, []) == ""
    parts, weights = stepped(tmp_path, method, [])
    parts_of_rest, weights_of_rest = stepped(tmp_path, method, [field for field in rest if field != "attack.steps"])
    assert parts_of_rest == parts
    assert_same_weights(weights_of_rest, weights)


@pytest.mark.parametrize("field", OTHER)
def test_a_field_changes_the_steps_of_a_method_that_reads_it(field, tmp_path):
    method = next(method for method in METHODS if field in get_method(method).fields_read())
    (parts, weights), (other_parts, other_weights) = stepped(tmp_path, method, []), stepped(tmp_path, method, [field])
    same = all(torch.equal(other_weights[name], value) for name, value in weights.items())
    assert not (same and other_parts == parts)


def test_every_field_that_only_some_methods_read_is_tried():
    sections = ("mixing.", "prime.", "spectra.", "afa.", "noisymix.", "attack.", "loss.")
    fields = {field for field in flatten(Config()) if field.startswith(sections)} - {"loss.label_smoothing"}
    assert fields <= OTHER.keys()
    read = {field for method in METHODS for field in get_method(method).fields_read()}
    assert fields | read == OTHER.keys() | {"eval.rse_draws"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--optim.step_at", "60,120"], ["optim.step_at 60,120 (needs optim.schedule step)"]),
        (["--optim.step_at", "60", "--optim.schedule", "step"], []),
        (
            ["--optim.step_at", "60", "--optim.step_epochs", "9", "--optim.schedule", "step"],
            ["optim.step_epochs 9 (needs optim.schedule step, and no optim.step_at)"],
        ),
        (["--optim.restart_epochs", "5"], ["optim.restart_epochs 5 (needs optim.schedule cosine_restarts)"]),
        (["--optim.swa_lr_ratio", "0.2"], ["optim.swa_lr_ratio 0.2 (needs train.swa_fraction)"]),
        (["--optim.swa_lr_ratio", "0.2", "--train.swa_fraction", "0.2"], []),
        (["--optim.filter_lr_ratio", "4"], ["optim.filter_lr_ratio 4.0 (needs optim.name muon)"]),
        (
            ["--optim.beta1", "0.8", "--optim.beta2", "0.9"],
            ["optim.beta1 0.8, optim.beta2 0.9 (needs optim.name adamw)"],
        ),
        (
            ["--optim.name", "adamw", "--optim.momentum", "0.8", "--optim.beta2", "0.9"],
            ["optim.momentum 0.8 (needs optim.name sgd or muon)"],
        ),
        (
            ["--train.compile", "false", "--train.compile_mode", "max-autotune"],
            ["train.compile_mode max-autotune (needs train.compile)"],
        ),
        (["--train.compile_mode", "max-autotune"], []),
        (
            ["--data.image_size", "64", "--data.min_crop_area", "0.5"],
            ["data.image_size 64, data.min_crop_area 0.5 (needs image files)"],
        ),
        (["--data.train_shards", "a.tar"], ["data.train_shards a.tar (needs data.name webdataset or hf)"]),
        (["--data.name", "webdataset", "--data.label_column", "y"], []),
        (
            ["--augment.randaugment_num_ops", "3", "--augment.policy", "trivialaugment"],
            ["augment.randaugment_num_ops 3 (needs augment.policy randaugment)"],
        ),
        (["--augment.policy_interpolation", "bilinear", "--augment.policy", "trivialaugment"], []),
        (
            ["--augment.policy_interpolation", "bilinear", "--augment.policy", "own.yaml"],
            ["augment.policy_interpolation bilinear (needs a policy by name in augment.policy)"],
        ),
        (
            ["--augment.erase_square_px", "8", "--augment.erase_probability", "1", "--augment.erase_min_area", "0.1"],
            ["augment.erase_min_area 0.1 (needs augment.erase_probability, and no augment.erase_square_px)"],
        ),
        (
            ["--augment.patch_max_area", "0.5", "--augment.patch_clip", "false"],
            [
                "augment.patch_max_area 0.5, augment.patch_clip False (needs the strength of a noise, such as"
                " augment.patch_gaussian, and augment.patch_probability)"
            ],
        ),
        (["--augment.patch_max_area", "0.5", "--augment.patch_l2", "1"], []),
        (["--spectra.variant", "s", "--spectra.pair_probability", "1"], []),
        (
            ["--method", "apr", "--spectra.variant", "s", "--spectra.pair_probability", "1"],
            ["spectra.pair_probability 1.0 (needs spectra.variant p or ps)"],
        ),
        (["--eval.fourier_images", "9"], ["eval.fourier_images 9 (needs eval.fourier)"]),
        (["--loss.label_smoothing", "0.1", "--augment.rotation_deg", "5"], []),
    ],
)
def test_what_is_said_of_fields_that_need_others(arguments, expected):
    assert without_effect(parse_config(arguments, "test", ""), decodes_files=False) == expected


def test_fields_of_files_count_where_images_are_decoded():
    config = parse_config(["--data.name", "folder", "--data.image_size", "64"], "test", "")
    assert without_effect(config, decodes_files=True) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--loss.label_smoothing", "0.1", "--augment.rotation_deg", "5", "--augment.sigma_max", "0.2"], ""),
        (["--eval.rse_draws", "3", "--method", "rse"], ""),
        (["--eval.rse_draws", "3", "--augment.sigma_max", "0.3"], "eval.rse_draws 3"),
        (
            ["--attack.steps", "3", "--method", "apr+magn", "--loss.jsd_weight", "1"],
            "attack.steps 3, loss.jsd_weight 1.0",
        ),
        (["--loss.consistency_weight", "1", "--method", "apr+magn"], ""),
    ],
)
def test_what_is_said_of_fields_that_other_methods_read(arguments, expected):
    assert unread(parse_config(arguments, "test", ""), given_fields(arguments)) == expected


def test_nothing_is_said_of_the_fields_that_an_own_method_may_read():
    fields = ["--mixing.cutout_px", "8", "--augment.randaugment_magnitude", "5", "--augment.erase_square_px", "8"]
    fields += ["--spectra.variant", "s", "--spectra.pair_probability", "1"]
    with forgotten():
        add_method("my_method", STANDARD)
        for method in ("my_method", "my_method+magn"):
            config = parse_config(["--method", method, *fields, "--optim.step_at", "1"], "test", "")
            assert unread(config, given_fields(fields)) == ""
            assert without_effect(config, decodes_files=False) == ["optim.step_at 1 (needs optim.schedule step)"]


@pytest.mark.parametrize(("lr", "is_told"), [("0.1", True), ("0.001", False)])
def test_a_learning_rate_for_sgd_is_told_with_adamw(lr, is_told, tmp_path, capsys):
    """It is the default."""
    run = [*DEFAULT, "--run_dir", str(tmp_path / "run"), "--train.max_steps", "1", "--train.compile", "false"]
    assert main([*run, "--optim.name", "adamw", "--optim.lr", lr]) == 0
    told = "warning: optim.lr: 0.1 is a learning rate for sgd; adamw usually takes 0.00001 to 0.01.\n"
    assert (told in capsys.readouterr().out) == is_told


def test_a_run_says_it_in_two_lines_and_resumes_only_as_it_began(tmp_path, capsys):
    """A file may have fields of other methods."""
    (tmp_path / "recipe.yaml").write_text("mixing: {mixup_alpha: 0.5}\noptim: {step_at: 1}\n")
    begun = [*DEFAULT, "--run_dir", str(tmp_path / "run"), "--train.max_steps", "1", "--train.compile", "false"]
    begun = ["--config", str(tmp_path / "recipe.yaml"), *begun]
    with pytest.warns(match=r"^without effect: mixing\.cutout_px 8 \(not read by method magn_augmix\)\.$"):
        assert main([*begun, "--mixing.cutout_px", "8"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "without effect" in line]
    assert line == "warning: without effect: optim.step_at 1 (needs optim.schedule step)."
    with pytest.raises(InputError, match=r"^mixing\.cutout_px: got 16; expected 8, with which"):
        main(begun)


def test_a_folder_of_images_that_digits_does_not_read_is_named():
    config = parse_config(["--data.dir", "photos"], "test", "")
    (text,) = without_effect(config, decodes_files=False)
    assert text == "data.dir photos (needs a data.name with files, such as folder, or eval.ood)"
    for name, value in (("data.name", "folder"), ("eval.ood", "cifar10")):
        config = parse_config(["--data.dir", "photos", f"--{name}", value], "test", "")
        assert not without_effect(config, decodes_files=True)
