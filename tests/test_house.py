"""The direction of imports: rooms import only rooms below them, and nothing imports itself by a detour.

`python -m tests.test_house` prints the rooms on their floors.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The lowest first. A room is a folder of fastmagn/ or a file in it; rooms in one row do not import each other.
ROWS = (
    ("errors", "version", "archives", "fastmagn_kernels"),
    ("registry", "losses"),
    ("__init__", "config"),
    ("machine", "augment", "corruptions", "models"),
    ("data", "methods", "runs", "warming"),
    ("evaluation", "extend"),
    ("training",),
    ("train", "exporting", "reporting", "theory"),
    ("evaluate", "corrupt", "export", "report", "sweeping", "warm_up"),
    ("sweep",),
    ("__main__",),
)
MAX_FLOORS = 9


def modules() -> dict[str, Path]:
    """Every module of fastmagn and of its kernels, by its dotted name."""
    found = {}
    for root in (ROOT, ROOT / "kernels"):
        for path in sorted((root / ("fastmagn" if root == ROOT else "fastmagn_kernels")).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a module imports, at its top or inside a function; not those for type checkers only."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def room(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "fastmagn_kernels":
        return parts[0]
    return parts[1] if len(parts) > 1 else "__init__"


def module_graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imported(name, path, known)) - {name} for name, path in known.items()}


def room_graph() -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {}
    for name, targets in module_graph().items():
        rooms.setdefault(room(name), set()).update({room(target) for target in targets} - {room(name)})
    return rooms


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """How many imports lead from each node down to one that imports nothing, at most; counted from 1."""
    height: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        height[node] = 1 + max((height[target] for target in graph[node]), default=0)
    return height


def test_no_module_imports_itself_by_a_detour():
    try:
        TopologicalSorter(module_graph()).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def test_rooms_import_only_rooms_below_them():
    row = {name: i for i, names in enumerate(ROWS) for name in names}
    assert set(row) == set(room_graph()), "every room has its row in ROWS"
    upwards = [
        f"{name} imports {target}"
        for name, targets in module_graph().items()
        for target in sorted(targets)
        if room(name) != room(target) and row[room(target)] >= row[room(name)]
    ]
    assert not upwards


def test_there_are_few_floors():
    assert max(floors(room_graph()).values()) <= MAX_FLOORS


def test_every_room_is_in_the_table_of_contributing():
    table = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = {room for row in ROWS for room in row} - {"__init__", "__main__", "fastmagn_kernels"}
    assert [room for room in sorted(rooms) if f"`{room}/`" not in table and f"`{room}.py`" not in table] == []


def main() -> None:
    heights = floors(room_graph())
    for floor in sorted(set(heights.values()), reverse=True):
        print(f"{floor}: {', '.join(sorted(name for name, height in heights.items() if height == floor))}")
    print(f"{len(heights)} rooms, {max(heights.values())} floors; modules on {max(floors(module_graph()).values())}")


if __name__ == "__main__":
    main()
