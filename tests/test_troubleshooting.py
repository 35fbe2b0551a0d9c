"""Every message that the page on troubleshooting quotes is one that the source can print."""

import ast
import functools
import re
from collections.abc import Iterator, Sequence

import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.errors import InputError
from tests.helpers.processes import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = [
    quoted.strip("`").removeprefix("error: ").removeprefix("warning: ")
    for quoted in re.findall(r"^> (`.+`)$", PAGE, re.MULTILINE)
]
# What the parser says of arguments.
TYPED = {
    ("--train.epoch", "3"): "--train.epoch: is not an option of python -m fastmagn.train. Did you mean 'train.epochs'?",
    ("--train.epochs", "abc"): "train.epochs: got 'abc'; expected a whole number.",
}
# What the system and the libraries say, within messages of ours.
FOREIGN = (
    "backend='inductor' raised: InvalidCxxCompiler: No working C++ compiler found",
    "libnvvm.so: cannot open shared object file",
    "libcuda.so.1: cannot open shared object file",
    "image file is truncated",
    "No space left on device",
    "Permission denied",
    "CUDA error: an illegal memory access was encountered",
)
VALUE = r"[^\s,]+(?:, ?[^\s,]+)*"  # a word, or several with commas between them
# The texts of the source that make up a message in which one stands in another, or of which none is half of it.
LAYOUT = ("CLASS/IMAGE in it, IMAGE one of *", ", *")
WITHOUT_FILES = "use --data.name digits, which needs no files"
DOWNLOAD = " with --data.download true"
ASSEMBLED = (
    (
        "frost",
        " left out, and with it every mCA that needs it; ",
        'pip install "fastmagn[corruptions]" brings its pictures.',
    ),
    ("numba-cuda ", "cannot be used (", ")", ": augment.backend auto makes the views of images on CUDA on the host."),
    (
        *("data.dir: ", ": no such file or folder; expected the images of ", " there", ". "),
        *("Name another --data.dir", ", ", "fetch them" + DOWNLOAD, ", or ", WITHOUT_FILES, "."),
    ),
    (
        *("data.dir: looked for ", " in ", "; missing ", "; expected ", ". Name the folder that holds "),
        *(" with --data.dir, fetch it" + DOWNLOAD, ", or " + WITHOUT_FILES, "."),
    ),
    (": has no class folders; expected ", *LAYOUT, "."),
    (
        *(": has one class folder, ", "; expected two or more, CLASS/IMAGE in it."),
        *(" The images lie in its subfolders ", ": if these are the classes, move them up."),
    ),
    (": ", " of ", " image files cannot be read: ", " (", ")", ". ", "They are", " left out."),
    (": files that are not used: ", " ", "hidden", ", ", " ", "of another kind", " (", ")", "."),
    ("without effect: ", " ", " (not read by method ", ")."),
    ("without effect: ", " ", " (needs ", "optim.schedule step", ")", "."),
    (
        *("config: ", " ", "does not exist", ", nor is it a shipped configuration, "),
        "such as digits_quickstart or paper/table1/magn_augmix.",
    ),
    (
        *(": got ", "; expected one of ", ".", " The configuration names the code of ", ". If you trust it, add "),
        *("--import", " ", "; code runs only if the command line names it."),
    ),
    ("run_dir: ", " is in use by ", "process ", " on ", "; stop it, or name another --run_dir."),
    (" ", "does not match its checksum: it is damaged", "; resuming from the checkpoint before, ", "."),
    (
        *(": ", "is empty", ", and ", "there is no older checkpoint", ". Put an intact copy in its place, remove "),
        ", or name another --run_dir to train from scratch.",
    ),
    (
        *("checkpoint of step ", " NOT SAVED in ", ": ", ". ", "The run continues and tries again every "),
        *(" steps and at the end of each epoch.", " Make room there."),
    ),
    (
        *("run_dir: the weights of step ", " could not be saved in ", ", and are lost; "),
        *("the same command resumes from ", ", which is older", ". Make room first."),
    ),
    (
        *(": ", "got a value that is not finite at step", " ", " (epoch ", "); expected a finite number. "),
        *("Lower optim.lr (it is ", "); ", "the last good checkpoint is ", "."),
    ),
    (
        *("logits are not finite for ", " at severity ", " (", " ", "image", ")"),
        ". Their accuracies, and every mean that needs them, are null in the results.",
    ),
    ("device: ", " failed (", "); ", "the same command resumes from ", "."),
    (
        *(": ", " ", "label", " ", "differ"),
        " from the test set's, so these are images of another set or in another order. ",
        "Make this set again with python -m fastmagn.corrupt, or give the test set it was made of.",
    ),
    (
        *(": has no ", ": training has not ended. To resume it: `"),
        *("python", " ", "-m", " ", "fastmagn.train", " ", "--config", " ", " ", "--run_dir", " ", "`."),
    ),
)
INVENTED = (
    "without effect: optim.step_at 60,120 (bananas, and nobody ever prints this).",
    "runs/first/checkpoints/last.pt is yellow, which nothing prints; "
    "resuming from the checkpoint before, step-00001234.pt.",
    "device: cuda failed (CUDA error); buy another one.",
    "interrupted by a black cat",
)


def parts(node: ast.expr) -> list[str]:
    """The constant parts of a string of the source; between each two, anything may stand."""
    found = [""]
    for value in node.values if isinstance(node, ast.JoinedStr) else [node]:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found[-1] += value.value
        else:
            found.append("")
    return found


def texts(tree: ast.AST) -> Iterator[list[str]]:
    """The strings of a module but its docstrings, and what `check(holds, field, got, expected)` says."""
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check" and len(node.args) == 4:
            *before, field = parts(node.args[1])
            *expected, last = parts(node.args[3])
            first, *others = [*expected, f"{last}."]
            yield [*before, f"{field}: got ", f"; expected {first}", *others]
        elif isinstance(node, ast.JoinedStr | ast.Constant) and node not in docstrings:
            yield parts(node)


@functools.cache
def known_texts() -> list[list[str]]:
    return [
        [*found[:-1], found[-1].rstrip("\n")]
        for path in sorted((ROOT / "fastmagn").rglob("*.py"))
        for found in texts(ast.parse(path.read_text()))
    ]


def fits(message: str, constants: Sequence[str]) -> bool:
    """Whether the message is these parts in their order, with at most a value between each two."""
    return re.fullmatch(f"(?:{VALUE})?".join(map(re.escape, constants)), message) is not None


def is_printed(message: str, known: list[list[str]]) -> bool:
    """Whether a text of the source prints the message and is at least half of it, or several do, as ASSEMBLED says."""
    halves = [found for found in known if 2 * sum(map(len, found)) >= len(message)]
    return any(fits(message, found) for found in [*halves, *(("", *found, "") for found in ASSEMBLED)])


def of_ours(message: str) -> str:
    """The message without its hint, and with a word in place of what is not said by fastmagn."""
    message = message.strip().partition(" Did you mean ")[0]
    for said in FOREIGN:
        message = message.replace(said, "SAID")
    return message


def test_each_message_is_still_in_the_source():
    known = known_texts()
    assert 15 <= len(QUOTED) <= 45
    for message in set(QUOTED) - set(TYPED.values()):
        assert is_printed(of_ours(message), known), message


def test_what_messages_are_assembled_from_is_in_the_source():
    constants = "\0".join(part for found in known_texts() for part in found)
    assert [part for found in ASSEMBLED for part in found if part not in constants] == []
    for found in ASSEMBLED:
        assert any(fits(of_ours(message), ("", *found, "")) for message in QUOTED), found
    assert [said for said in FOREIGN if said not in PAGE] == []


@pytest.mark.parametrize("message", INVENTED)
def test_what_nothing_prints_is_found_out(message):
    assert not is_printed(of_ours(message), known_texts())


def test_each_part_says_what_to_do():
    """A heading, a message, and at least one sentence."""
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        title, *rest = [line for line in part.splitlines() if line and not line.startswith("## ")]
        assert any(line.startswith("> ") for line in rest), title
        assert any(line[0] != ">" for line in rest), title


@pytest.mark.parametrize("arguments", TYPED)
def test_the_parser_says_what_the_page_quotes(arguments):
    with pytest.raises(InputError) as caught:
        parse_config(list(arguments), "python -m fastmagn.train", "")
    assert str(caught.value) == TYPED[arguments]
    assert TYPED[arguments] in QUOTED
