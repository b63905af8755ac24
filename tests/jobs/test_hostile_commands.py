"""Every command that reads published epochs, against each hostile kind of source: the right result or a typed error that names it, in bounded time and memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.command_fleet import FleetResult, run_fleet
from tests.support.commands import epoch_folder
from tests.support.fetches import missing_names, parts_layout, published_parts, wrong_final_names
from tests.support.hostile_server import KINDS, HostileServer, hostile_server
from tests.support.published import public_key

pytestmark = pytest.mark.slow

ONE_SOURCE_TIMEOUT_S = 400.0
"""A store's patience is three minutes a document, and one answer more."""

BESIDE_TIMEOUT_S = 240.0

DATA_BYTES_MAX = 1 << 30
RESIDENT_BYTES_MAX = 900 << 20

TYPED = {2, 3, 10, 11, 12, 20, 21, 22, 30, 31, 32}
"""Exit codes but for the unexpected failure."""

HARMLESS = ("bad-length",)
"""What keeps the bytes right."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    """One server for all sources."""
    with hostile_server(published_parts(), tmp_path_factory.mktemp("hostile") / "log") as running:
        yield running


def assert_bounded(result: FleetResult, command: object) -> None:
    """Whatever it says: no traceback, and no more memory than that."""
    assert "Traceback" not in result.stderr, (command, result.stderr[-2000:])
    assert result.resident_bytes < RESIDENT_BYTES_MAX, (command, result.resident_bytes >> 20)


@pytest.mark.parametrize("command", ["check", "inspect"])
def test_a_command_with_one_source_ends_with_a_typed_error_that_names_it(command: str, server: HostileServer) -> None:
    """Each of all kinds alone; beside them the honest one, which it can read."""
    epoch = parts_layout().folder
    trust = ("--trust-key", public_key())
    urls = {kind: f"{server.url(kind)}/{epoch}" for kind in ("honest", *KINDS)}
    arguments: dict[str, tuple[object, ...]] = {
        "check": ("--in-process", *trust),
        "inspect": ("--json",),
    }
    results = run_fleet(
        [(command, url, *arguments[command]) for url in urls.values()], timeout_s=ONE_SOURCE_TIMEOUT_S, data_bytes_max=DATA_BYTES_MAX
    )
    by_kind = dict(zip(urls, results, strict=True))
    assert by_kind["honest"].code == 0, by_kind["honest"].stderr
    wrong = []
    for kind, result in by_kind.items():
        assert_bounded(result, (command, kind))
        is_right = result.code == 0 and kind in ("honest", *HARMLESS)
        is_refused = result.code in TYPED and (f"/{kind}/" in result.stderr or f"/{kind}/" in result.stdout)
        if not is_right and not is_refused:
            wrong.append((kind, result.code, round(result.seconds), result.stderr[-400:]))
    assert wrong == []


def test_a_mirror_from_sixty_three_hostile_sources_and_an_honest_one_is_right(server: HostileServer, tmp_path: Path) -> None:
    """The same objects at the destination, and every source that was asked in vain is named with its fault."""
    hostile = [server.url(KINDS[number % len(KINDS)], "all", number) for number in range(62)]
    urls = [hostile[0], *hostile[1:40], server.url("honest"), *hostile[40:]]
    to, work = tmp_path / "to", tmp_path / "work"
    more = [word for url in urls[1:] for word in ("--source", url)]
    chain = ("--chain-id", parts_layout().chain_id)
    (result,) = run_fleet(
        [("mirror", urls[0], to, *more, *chain, "--work", work, "--trust-key", public_key(), "--no-rebuild", "--json")],
        timeout_s=BESIDE_TIMEOUT_S,
        data_bytes_max=DATA_BYTES_MAX,
    )
    assert result.code == 0, result.stderr
    assert_bounded(result, "mirror")
    assert missing_names(to, published_parts()) == [] and wrong_final_names(to, published_parts()) in ([], [_catalogue(to)])
    for url in hostile:
        assert url in result.stdout and (f'"source_id":"{url}"' in result.stdout.replace(" ", ""))


def _catalogue(folder: Path) -> str:
    (found,) = folder.rglob("catalogue.json")
    return str(found.relative_to(folder))


def _link_to(target: str, path: Path) -> None:
    path.symlink_to(target)


def _huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 42)


ODD_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "endless device": partial(_link_to, "/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path),
    "huge file": _huge_file,
}
"""What lies where an object should, by who makes it at a path."""


def test_a_folder_whose_manifest_is_no_file_is_refused_by_every_command(tmp_path: Path) -> None:
    """None hangs on a pipe, reads a device or fills the memory."""
    commands, named = [], []
    for kind, make in ODD_FILES.items():
        root = tmp_path / kind.replace(" ", "-")
        shutil.copytree(published_parts(), root)
        epoch = epoch_folder(root)
        path = epoch / "manifest.json"
        path.unlink()
        make(path)
        trust = ("--trust-key", public_key())
        into = tmp_path / f"into-{root.name}"
        made = {
            "check": (epoch, "--in-process", *trust),
            "prove": (epoch, "--account", "test.near", "--shard-id", 0, *trust),
            "get": (epoch, "--account", "test.near", "--in-process", *trust),
            "inspect": (epoch,),
            "fetch": (root, "--into", into / "fetch", "--no-lease", "--verify-workers", 1, *trust),
            "mirror": (root, into / "mirror", "--work", into / "work", "--no-rebuild", *trust),
            "restore": (root, "--to", into / "dataset", "--in-process"),
            "scrub": (root, "--in-process", *trust),
        }
        commands += [(command, *arguments) for command, arguments in made.items()]
        named += [(command, kind) for command in made]
    results = run_fleet(commands, timeout_s=BESIDE_TIMEOUT_S, data_bytes_max=DATA_BYTES_MAX)
    wrong = []
    for (command, kind), result in zip(named, results, strict=True):
        assert_bounded(result, (command, kind))
        if result.code not in {0, *TYPED}:
            wrong.append((command, kind, result.code, round(result.seconds), result.stderr[-500:]))
        if command in ("check", "restore") and result.code == 0:
            wrong.append((command, kind, 0, 0, result.stdout[-500:]))
    assert wrong == []
