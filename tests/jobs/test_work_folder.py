"""Sorted copies of a state lie in the folder that a run fills, and those of killed runs go with the next run there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from pipelines.near.files.external_sort import ExternalSort
from pipelines.stores.held_folder import held_folder_prefix
from pipelines.stores.object_names import TEMPORARY_FOLDER
from tests.support.commands import statecast
from tests.support.nodes import localnet_home


@pytest.mark.parametrize("command", ["produce", "export"])
def test_a_state_is_sorted_where_the_run_works(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where temporary files go, which may be small, or memory; nothing stays, nor what a killed run left."""
    folders: list[Path] = []
    begin = ExternalSort.__init__

    def noted(self: ExternalSort, folder: Path, *arguments: int) -> None:
        folders.append(folder)
        begin(self, folder, *arguments)

    monkeypatch.setattr(ExternalSort, "__init__", noted)
    work = tmp_path / "work"
    dead = work / TEMPORARY_FOLDER / f"{held_folder_prefix('sort')}abcdefgh"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    (dead / "run-000000.arrow").write_bytes(bytes(100))
    # One of its own: a process sorts a file once.
    genesis = shutil.copy(localnet_home() / "genesis.json", tmp_path)
    source = ("--from", f"genesis://{genesis}", "--in-process")
    places = {"produce": ("--to", tmp_path / "out", "--work", work, "--allow-unsigned"), "export": ("--to", f"dataset://{work}")}
    outcome = statecast(command, *source, *places[command])
    assert outcome.code == 0, outcome.stderr
    assert folders and all(folder.parent == work / TEMPORARY_FOLDER for folder in folders)
    assert Path(tempfile.gettempdir()) not in {folder.parent for folder in folders}
    assert not dead.exists()
