"""Producers that are killed: whatever the moment, the same command ends with the same bytes and never leaves a manifest too early."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import pytest

from pipelines.stores.held_folder import held_folder_prefix
from pipelines.stores.object_names import TEMPORARY_FOLDER
from tests.support.commands import epoch_folder, kill_when, lasting_objects_in, objects_in, start_process, statecast, statecast_process
from tests.support.nodes import localnet_home, node_a
from tests.support.published import produce, published_node_a, session_folder, signing_key


@lru_cache
def dataset_of_node_a() -> Path:
    """Export node a: a source without trie nodes, whose parts wait for their shard's root."""
    folder = session_folder() / "killed-dataset"
    home = node_a()
    outcome = statecast("export", "--node-home", home, "--context", home / "context.json", "--to", f"dataset://{folder}", "--in-process")
    assert outcome.code == 0, outcome.stderr
    return folder


def source_options(source: str) -> tuple[object, ...]:
    """Name node a, whose parts are published one by one, from a dataset of this run's or without one; or a dataset of before."""
    if source == "dataset":
        return ("--from", f"dataset://{dataset_of_node_a()}", "--num-parts", 5)
    without = ("--dataset", "none") if source == "direct" else ()
    return ("--node-home", node_a(), "--context", node_a() / "context.json", "--num-parts", 5, *without)


def start_production(to: Path, work: Path, *options: object, source: str = "node") -> subprocess.Popen[str]:
    """Start a production of node a in a process of its own."""
    return start_process(
        *("produce", *source_options(source), "--to", to),
        *("--signing-key", signing_key(), "--work", f"file://{work}", "--keep-work", *(options or ("--in-process",))),
    )


def assert_no_early_manifest(to: Path) -> None:
    """A manifest is there only when everything that it lists is there and right; a pointer only when a manifest is."""
    manifests = list(to.glob("chain_id=*/epoch_height=*/epoch_id=*/manifest.json"))
    pointers = list(to.glob("chain_id=*/latest.json"))
    assert len(pointers) <= len(manifests)
    for manifest in manifests:
        outcome = statecast("check", manifest.parent, "--in-process")
        assert outcome.code == 0, outcome.stderr


def assert_every_part_is_right(to: Path) -> None:
    """What lies under a part's name is that part's bytes, whole."""
    expected = objects_in(published_node_a())
    for name, digest in objects_in(to).items():
        if "state_part" in name:
            assert digest == expected[name]


def assert_no_early_statement(to: Path) -> None:
    """A statement is there only when all parts of its shard are."""
    for statement in to.rglob("statements/shard_id=*.json"):
        assert len(list(statement.parents[1].glob(f"{statement.stem}/state_part_*"))) == 5


def assert_rerun_ends_right(to: Path, work: Path, source: str = "node") -> None:
    """The same command finishes, and what it leaves is what an undisturbed run leaves."""
    outcome = produce(to, *source_options(source), work=work)
    assert outcome.code == 0, outcome.stderr
    assert lasting_objects_in(to) == lasting_objects_in(published_node_a())
    assert len(list(epoch_folder(to).glob("manifests/*.json"))) == 1
    assert statecast("check", to, "--in-process").code == 0


MOMENTS = {
    "a key range is exported": "work/dataset/**/range-000000.json",
    "a shard is exported": "work/dataset/**/shard.json",
    "boundary nodes are read": "work/build/**/boundary_nodes-000000.arrow",
    "the first part is built": "work/build/**/build-000000.json",
    "the first part is put": "out/**/state_part_000000_of_000005",
    "a part is built": "work/build/**/build-000002.json",
    "a part is put": "out/**/state_part_000003_of_000005",
    "a shard's last part is put": "out/**/state_part_000004_of_000005",
    "a statement is put": "out/**/statements/*.json",
    "a torrent is put": "out/**/torrents/*.torrent",
    "a revision is put": "out/**/manifests/000001.json",
    "the manifest is put": "out/**/manifest.json",
    "the pointer is moved": "out/**/latest.json",
}
"""What has just happened when the producer is killed, and the file that shows it."""

AT_ONCE = {
    "a key range is exported",
    "boundary nodes are read",
    "a part is built",
    "a part is put",
    "a torrent is put",
    "the manifest is put",
}
"""One of each kind of object; the others are among the long tests."""


@pytest.mark.parametrize("moment", [pytest.param(moment, marks=[] if moment in AT_ONCE else [pytest.mark.slow]) for moment in MOMENTS])
def test_a_producer_that_is_killed_loses_nothing(tmp_path: Path, moment: str) -> None:
    """SIGKILL as soon as a step has left its object, then the same command again."""
    to, work = tmp_path / "out", tmp_path / "work"
    process = start_production(to, work)
    kill_when(process, lambda: next(tmp_path.glob(MOMENTS[moment]), None) is not None)
    assert list(tmp_path.glob(MOMENTS[moment]))
    assert_no_early_manifest(to)
    assert_no_early_statement(to)
    assert_every_part_is_right(to)
    assert_rerun_ends_right(to, work)


LATE_MOMENTS = {
    "an interior is left": "work/build/**/interior-000001",
    "a part is built": "work/build/**/build-000002.json",
    "the root is sealed": "work/build/**/boundary_nodes-000000.arrow",
    "a part is put": "out/**/state_part_000001_of_000005",
}
"""The same for parts that wait for their shard's root."""


@pytest.mark.parametrize(
    "moment", [pytest.param(moment, marks=[] if moment == "an interior is left" else [pytest.mark.slow]) for moment in LATE_MOMENTS]
)
def test_a_producer_from_a_dataset_that_is_killed_loses_nothing(tmp_path: Path, moment: str) -> None:
    """No part is out before the shard's boundary nodes are left, and the same command ends the same."""
    to, work = tmp_path / "out", tmp_path / "work"
    process = start_production(to, work, source="dataset")
    kill_when(process, lambda: next(tmp_path.glob(LATE_MOMENTS[moment]), None) is not None)
    sealed = len(list(work.glob("build/**/boundary_nodes-000000.arrow")))
    assert len(list(to.glob("**/shard_id=*/"))) <= sealed
    assert_no_early_manifest(to)
    assert_no_early_statement(to)
    assert_every_part_is_right(to)
    assert_rerun_ends_right(to, work, "dataset")


DIRECT_MOMENTS = {
    "a key range is scanned": "work/build/**/scanned-*.json",
    "boundary nodes are read": "work/build/**/boundary_nodes-000000.arrow",
    "the first part is built": "work/build/**/build-000000.json",
    "a part is put": "out/**/state_part_000003_of_000005",
    "a statement is put": "out/**/statements/*.json",
    "the manifest is put": "out/**/manifest.json",
}
"""The same for a run that writes no dataset."""


@pytest.mark.parametrize(
    "moment", [pytest.param(moment, marks=[] if moment == "a part is put" else [pytest.mark.slow]) for moment in DIRECT_MOMENTS]
)
def test_a_producer_without_a_dataset_that_is_killed_loses_nothing(tmp_path: Path, moment: str) -> None:
    """The same objects as with one; no dataset and no interior was ever there."""
    to, work = tmp_path / "out", tmp_path / "work"
    process = start_production(to, work, "--in-process", source="direct")
    kill_when(process, lambda: next(tmp_path.glob(DIRECT_MOMENTS[moment]), None) is not None)
    assert_no_early_manifest(to)
    assert_no_early_statement(to)
    assert_every_part_is_right(to)
    assert not list(work.glob("dataset/**/*")) and not list(work.glob("build/**/interior-*"))
    assert_rerun_ends_right(to, work, "direct")


STEPS = {
    "nothing": (),
    "one part": ("**/shard_id=5/state_part_000003_of_000005", "**/manifest.json", "**/manifests/*", "**/latest.json"),
    "the statements": ("**/statements/*", "**/torrents/*", "**/manifest.json", "**/manifests/*", "**/latest.json"),
    "the torrents": ("**/torrents/*", "**/manifest.json", "**/manifests/*", "**/latest.json"),
    "the manifest and its revision": ("**/manifest.json", "**/manifests/*", "**/latest.json"),
    "the manifest": ("**/manifest.json", "**/latest.json"),
    "the pointer": ("**/latest.json",),
}
"""The steps that a killed producer had not reached, and the objects that are missing then."""


@pytest.mark.parametrize("step", STEPS)
def test_a_rerun_goes_on_after_every_step(tmp_path: Path, step: str) -> None:
    """Between any two steps: what is there stays, the rest is made, the first manifest stays the only one."""
    to = tmp_path / "out"
    shutil.copytree(published_node_a(), to)
    for pattern in STEPS[step]:
        for path in list(to.glob(pattern)):
            path.unlink()
    assert_rerun_ends_right(to, tmp_path / "work")


def test_a_half_written_object_never_has_a_name(tmp_path: Path) -> None:
    """A writer killed in the middle leaves its bytes in the temporary folder, which no listing shows and no check minds."""
    to = tmp_path / "out"
    shutil.copytree(published_node_a(), to)
    (to / ".statecast-tmp").mkdir(exist_ok=True)
    (to / ".statecast-tmp" / "0123456789abcdef").write_bytes(b"half")
    assert statecast("check", to, "--in-process", "--json").document["findings"] == []


KILLS = 20


def passing(moment_s: float) -> Callable[[], bool]:
    """Return what tells whether a moment of the monotonic clock has passed."""
    return lambda: time.monotonic() >= moment_s


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("mode", "source"), [("in-process", "node"), ("ray", "node"), ("in-process", "dataset"), ("in-process", "direct"), ("ray", "direct")]
)
def test_twenty_kills_at_random_moments(tmp_path: Path, mode: str, source: str) -> None:
    """Killed again and again, the production still finishes; the seed is printed."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    to, work = tmp_path / "out", tmp_path / "work"
    kills, ends = 0, 0
    first_s, last_s = (0.8, 4.0) if mode == "in-process" else (3.0, 16.0)
    while kills < KILLS:
        process = start_production(to, work, *(("--in-process",) if mode == "in-process" else ("--workers", 2)), source=source)
        if kill_when(process, passing(time.monotonic() + moments.uniform(first_s, last_s))):
            kills += 1
            assert_no_early_manifest(to)
            assert_no_early_statement(to)
            assert_every_part_is_right(to)
            continue
        ends += 1
        assert_rerun_ends_right(to, work, source)
        shutil.rmtree(to)
        shutil.rmtree(work)
    print(f"{kills} runs were killed, {ends} ended by themselves in between")
    assert_rerun_ends_right(to, work, source)


def has_more(look: Callable[[], set[Path]], before: set[Path]) -> bool:
    """Whether there is something that was not there before."""
    return not look() <= before


@pytest.mark.slow
def test_nothing_of_a_killed_export_is_left_after_the_next_one(tmp_path: Path) -> None:
    """A genesis file is sorted on disk: a whole copy of the state, which goes when the next run works in that folder."""
    temporary, dataset = tmp_path / "temporary", tmp_path / "dataset"
    temporary.mkdir()
    (dataset / TEMPORARY_FOLDER).mkdir(parents=True)
    arguments = ("export", "--from", f"genesis://{localnet_home()}/genesis.json", "--in-process", "--to", f"dataset://{dataset}")
    environment = {"TMPDIR": str(temporary)}

    def sorting() -> set[Path]:
        return {path for path in (dataset / TEMPORARY_FOLDER).iterdir() if path.name.startswith(held_folder_prefix("sort"))}

    killed = 0
    for _ in range(8):
        left = sorting()
        process = start_process(*arguments, environment=environment)
        killed += kill_when(process, partial(has_more, sorting, left))
        assert not sorting() & left, "those of before are gone"
    assert killed
    assert statecast_process(*arguments, environment=environment).code == 0
    assert not sorting() and not any(temporary.iterdir())
