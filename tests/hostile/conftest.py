"""Commands given attack files, in this process: what each got, that nothing ran, and that nobody called the network."""

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from fastmagn.errors import EXIT_INPUT_ERROR
from fastmagn.machine.command import run_command

LONGEST_LINE = 1000


class Attack:
    """One attack's folder, and the marker file that its payload would make.

    Args:
        folder: Empty, for the attack's files.
        table: What each attack of the session got: surface, attack, outcome.
    """

    def __init__(self, folder: Path, table: list[tuple[str, str, str]], capture: pytest.CaptureFixture) -> None:
        self.folder, self.table, self.capture = folder, table, capture
        self.marker = folder / "marker"
        self.connections: list[object] = []

    def note(self, surface: str, attack: str, outcome: str) -> None:
        self.table.append((surface, attack, outcome.replace(f"{self.folder}/", "").removeprefix("error: ")[:100]))

    def run(self, main: Callable[[list[str]], int], *arguments: str | Path) -> tuple[int, str]:
        """The status and the standard error of a command; a traceback is a failed test."""
        before, sys.argv = sys.argv, ["command", *map(str, arguments)]
        try:
            with pytest.raises(SystemExit) as left:
                run_command(main)
        finally:
            sys.argv = before
        return left.value.code, self.capture.readouterr().err

    def refused(
        self, surface: str, attack: str, main: Callable[[list[str]], int], *arguments: str | Path, says: str
    ) -> str:
        """That the command ends with status 2 and one printable line that holds `says`, and nothing ran."""
        status, errors = self.run(main, *arguments)
        line = errors.splitlines()[-1]
        assert status == EXIT_INPUT_ERROR, errors
        assert line.startswith("error: "), errors
        assert says in line, line
        assert line.isprintable()
        assert len(line) < LONGEST_LINE
        assert "Traceback" not in errors
        assert not self.marker.exists()
        self.note(surface, attack, f"refused: {line.removeprefix('error: ')}")
        return line


@pytest.fixture(scope="session")
def outcomes() -> Iterator[list[tuple[str, str, str]]]:
    """Every attack of the session; printed at its end (with pytest -s)."""
    rows: list[tuple[str, str, str]] = []
    yield rows
    table = Table(title=f"{len(rows)} attacks, none executed")
    for header in ("surface", "attack", "got"):
        table.add_column(header)
    for row in rows:
        table.add_row(*row)
    console = Console(width=150, highlight=False, markup=False)
    console.print()
    console.print(table)


@pytest.fixture
def attack(
    tmp_path: Path, outcomes: list, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Attack]:
    """An attack's folder, with the network watched: whoever connects or asks for a name fails the test."""
    monkeypatch.chdir(tmp_path)
    trial = Attack(tmp_path, outcomes, capsys)

    def refuse(*arguments: object, **_: object) -> None:
        trial.connections.append(arguments[-1])
        raise OSError("the network is watched")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield trial
    assert not trial.marker.exists()
    assert trial.connections == []
