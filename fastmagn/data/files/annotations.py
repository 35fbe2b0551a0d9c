"""Images that lie in one folder, whose classes a file beside it names: Tiny-ImageNet's val, as it is unzipped.

val/images has val_0.JPEG and so on. val/val_annotations.txt has a line for each: its name, its class, and a box, which
is not used; between them are tabs.
"""

from collections import Counter
from pathlib import Path

from fastmagn.data.published.reading import check_inside, read_lines
from fastmagn.errors import InputError, printable, some

ANNOTATIONS, IMAGES = "val_annotations.txt", "images"


def read_annotations(file: Path) -> dict[str, list[str]]:
    """The images of each class, as paths relative to the file's folder; classes and images are sorted by name.

    Raises:
        InputError: The file cannot be read, or a line of it does not name an image and its class, or one names an image
            again.
    """
    rows = [line.split("\t") for line in read_lines(file)]
    faulty = next((row for row in rows if len(row) < 2 or not row[0] or not row[1]), None)
    if faulty is not None or not rows:
        found = "is empty" if faulty is None else f"has the line {printable(' '.join(faulty))[:80]!r}"
        raise InputError(
            f"{file}: {found}; expected IMAGE, CLASS and a box on each, with tabs between. Unzip it again."
        )
    check_inside(file, [name for name, *_ in rows])
    twice = [name for name, count in Counter(name for name, *_ in rows).items() if count > 1]
    if twice:
        raise InputError(f"{file}: names {some(twice)} twice; expected each image once. Unzip it again.")
    classes: dict[str, list[str]] = {}
    for class_name, name in sorted((class_name, name) for name, class_name, *_ in rows):
        classes.setdefault(class_name, []).append(f"{IMAGES}/{name}")
    return classes
