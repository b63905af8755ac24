"""Draws what ``statecast doctor`` prints in four situations, as the pages of docs/operations show it.

``python -m tests.support.doctor_pictures`` draws them again; a test compares what stands in them with what is printed today.
"""

from __future__ import annotations

import html
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Final
from unittest import mock

import jobs.doctor
from jobs.cli import run
from jobs.terminal import ShownConsole
from pipelines.producing.preflight import disk_space
from pipelines.producing.preflight.disk_space import FreeSpace
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict
from pipelines.stores.memory_store import OPENERS, MemoryStore
from pipelines.stores.store import Data, ObjectInfo
from tests.support.nodes import copied, localnet_home
from tests.support.published import signing_key

PICTURES: Final = Path(__file__).parents[2] / "docs" / "operations"

_WIDTH: Final = 118


class CarelessStore(MemoryStore):
    """Takes no notice of a put's condition."""

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        return MemoryStore.put(self, name, data)


@contextmanager
def _good(folder: Path) -> Iterator[list[str]]:
    (folder / "bucket").mkdir()
    yield ["--node-home", str(_home(folder)), "--to", str(folder / "bucket"), "--signing-key", str(signing_key())]


@contextmanager
def _faults(folder: Path) -> Iterator[list[str]]:
    home = _home(folder)
    config = json.loads((home / "config.json").read_text())
    config["store"]["state_snapshot_config"] = {"state_snapshot_type": "Disabled"}
    (home / "config.json").write_text(json.dumps(config))
    for file in sorted((home / "data" / "state_snapshot").rglob("CURRENT")):
        file.unlink()
    key = folder / "signing_key.json"
    key.write_bytes(signing_key().read_bytes())
    key.chmod(0o644)
    yield ["--node-home", str(home), "--to", "https://mirror.example/near", "--signing-key", str(key)]


@contextmanager
def _full(folder: Path) -> Iterator[list[str]]:
    with _good(folder) as options, mock.patch.object(disk_space, "free_space", lambda _folder: FreeSpace(1, 1 << 20, None, writable=True)):
        yield options


@contextmanager
def _careless(folder: Path) -> Iterator[list[str]]:
    with mock.patch.dict(OPENERS, {"bucket": CarelessStore}):
        yield ["--node-home", str(_home(folder)), "--to", "memory://bucket", "--signing-key", str(signing_key())]


def _home(folder: Path) -> Path:
    return copied(localnet_home(), folder)


SITUATIONS: Final[dict[str, Callable[[Path], AbstractContextManager[list[str]]]]] = {
    "doctor-good": _good,
    "doctor-three-faults": _faults,
    "doctor-full-disk": _full,
    "doctor-store-without-conditions": _careless,
}
"""By the picture's name."""


def drawn(name: str) -> str:
    """Run the command in a situation; return the picture of what it prints on a terminal. Folders have the names of an example."""
    console = ShownConsole(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    printed = jobs.doctor._print
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder, SITUATIONS[name](Path(folder)) as options:
        names = {
            f"{folder}/home": "/home/near/.near",
            f"{folder}/work": "/home/near/.cache/statecast",
            f"{folder}/bucket": "/srv/near",
            f"{folder}/signing_key.json": "/home/near/signing_key.json",
            str(signing_key()): "/home/near/signing_key.json",
            "memory://bucket": "s3://my-bucket/near",
        }

        def named(finding: PreflightFinding) -> PreflightFinding:
            texts = {field: getattr(finding, field) for field in ("found", "where", "remedy")}
            for field, (place, shown) in product(texts, names.items()):
                texts[field] = texts[field].replace(place, shown)
            return replace(finding, **texts)

        with (
            mock.patch.object(jobs.doctor, "open_console", lambda: console),
            mock.patch.object(jobs.doctor, "_print", lambda findings, failed: printed([*map(named, findings)], failed)),
            redirect_stdout(io.StringIO()),
        ):
            run(["doctor", "--in-process", "--work", f"{folder}/work", *options])
    # Its fonts would be fetched from elsewhere by whoever looks at the page.
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="statecast doctor", unique_id=name), flags=re.DOTALL)


def verdicts(picture: str) -> dict[str, str]:
    """Return what a picture shows: the verdict of each thing that was looked at, by its name."""
    texts = [html.unescape(text).replace("\xa0", " ").strip() for text in re.findall(r">([^<]*)</text>", picture)]
    found: dict[str, str] = {}
    verdict = ""
    for text in texts:
        if text in tuple(PreflightVerdict):
            verdict = text
        elif text.startswith("what  "):
            found[text.removeprefix("what").strip()] = verdict
    return found


def main() -> None:
    """Draw all."""
    for name in SITUATIONS:
        PICTURES.joinpath(f"{name}.svg").write_text(drawn(name))


if __name__ == "__main__":
    main()
