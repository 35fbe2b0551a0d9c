"""With data.download off no command asks for a name or a connection; `attack` fails the test otherwise."""

from fastmagn import evaluate, train
from fastmagn.evaluation import corrupt_command
from fastmagn.theory import command as theory

SHORT = ["--device", "cpu", "--train.max_steps", "1", "--train.batch_size", "64", "--eval.num_images", "20"]


def test_no_command_calls_the_network(attack):
    run = attack.folder / "run"
    assert attack.run(train.main, *SHORT, "--eval.corruption_set", "c15", "--run_dir", run)[0] == 0
    assert attack.run(evaluate.main, "--run", run)[0] == 0
    assert attack.run(theory.main, run, "--out", "geometry", "--num_images", "8")[0] == 0
    made = ["--dataset", "digits", "--num_images", "2", "--corruption_set", "c15", "--out", "set"]
    assert attack.run(corrupt_command.main, *made)[0] == 0
    attack.note("network", "train, evaluate, theory, corrupt", "no connection, no name asked for")


def test_absent_images_are_not_fetched(attack):
    for name in ("cifar10", "cifar100"):
        arguments = ["--data.name", name, "--data.dir", attack.folder, "--run_dir", "run"]
        attack.refused("network", f"{name} absent, download off", train.main, *arguments, says="--data.download true")


def test_a_network_by_the_name_of_a_hub_is_not_fetched(attack):
    for name in ("timm:hf_hub:someone/something", "timm:hf-hub:someone/something", "timm:local-dir:/tmp/x", "hub:x"):
        arguments = [*SHORT, "--model.name", name, "--run_dir", "run"]
        attack.refused("network", f"model.name {name}", train.main, *arguments, says="model.name: got")
