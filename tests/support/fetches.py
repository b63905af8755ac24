"""Fetches for tests: a published epoch of many parts, settings with short pauses, and a look at what a fetch left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from random import Random

from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_folder import WORK_FOLDER
from pipelines.fetching.fetch_progress import FetchProgress
from pipelines.fetching.fetch_result import FetchResult
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.limits import FetchLimits
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout
from schemas.published.public_key import PublicKey
from tests.support.commands import epoch_folder
from tests.support.native_wheel import can_verify
from tests.support.published import produce_localnet, public_key, session_folder

NUM_PARTS = 6
"""Parts a shard of the published localnet that is fetched here; it has four shards."""

PATIENCE_S = 120.0
"""More than any answer takes, on the slowest machine: a test that waits for so long is not about patience."""

QUICK = FetchLimits(
    backoff_first_s=0.05,
    backoff_max_s=0.4,
    retry_after_max_s=0.3,
    stall_s=PATIENCE_S,
    hedge_after_s=PATIENCE_S,
    unproven_after_s=PATIENCE_S,
    unproven_after_min_s=PATIENCE_S,
    silent_after_s=1.0,
    source_timeout_s=PATIENCE_S,
    lease_end_wait_s=PATIENCE_S,
)
"""Limits with short pauses after faults, and with patience: nothing is given up or asked for twice because a machine is slow."""


@lru_cache
def published_parts() -> Path:
    """Return the folder of the localnet, published in `NUM_PARTS` parts a shard as v1. It must not be changed."""
    folder = session_folder() / "localnet-parts"
    outcome = produce_localnet(folder, "--num-parts", NUM_PARTS, "--encoding", "v1")
    assert outcome.code == 0, outcome.stderr
    return folder


@lru_cache
def parts_manifest() -> Manifest:
    """Return the manifest of `published_parts`."""
    return published_manifest(published_parts())


def parts_layout() -> EpochLayout:
    """Return the names of the epoch in `published_parts`."""
    return layout_of(parts_manifest())


def published_manifest(root: Path) -> Manifest:
    """Return the manifest of the only epoch below a folder."""
    data = (epoch_folder(root) / "manifest.json").read_bytes()
    return Manifest.from_payload(parse_envelope(data, "test").payload, "test")


def layout_of(manifest: Manifest) -> EpochLayout:
    """Return the names of a manifest's epoch."""
    return manifest.layout


@dataclass
class Recorder:
    """A watcher that keeps all it hears."""

    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    progresses: list[FetchProgress] = field(default_factory=list)

    def progress(self, progress: FetchProgress) -> None:
        """Keep it."""
        self.progresses.append(progress)

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Keep it."""
        self.events.append((name, facts))

    def named(self, name: str) -> list[dict[str, object]]:
        """Return the facts of all events of a name."""
        return [facts for found, facts in self.events if found == name]


def settings_for(into: Path, url: str | Path, *more: str | Path, **changes: object) -> FetchSettings:
    """Return settings that trust the chain and the test's own key, and verify in threads."""
    manifest = parts_manifest()
    settings = FetchSettings(
        url=str(url),
        source_urls=tuple(map(str, more)),
        chain_id=manifest.chain_id,
        epoch="latest",
        shard_ids=(),
        into=into,
        # Without the wheel no state header is published, so that nothing leads from a block to the state roots.
        policy=TrustPolicy(TrustRule((PublicKey.parse(public_key()),)), manifest.sync_hash if can_verify() else None),
        limits=QUICK,
        kernel_name="auto",
        verify_workers=2,
        verify_in_threads=True,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


def fetch(settings: FetchSettings, recorder: Recorder | None = None, seed: int = 1) -> FetchResult:
    """Run a fetch."""
    return EpochFetch(settings, recorder or Recorder(), Random(seed)).run()


def final_names(into: Path) -> list[str]:
    """Return all names below a fetch's folder that are not its own working files."""
    names = [str(path.relative_to(into)) for path in sorted(into.rglob("*")) if path.is_file()]
    return [name for name in names if not name.startswith(WORK_FOLDER)]


def temporary_names(into: Path) -> list[str]:
    """Return what a fetch left of its own working files, but for lock and memory."""
    work = into / WORK_FOLDER
    return [path.name for path in work.rglob("*") if path.is_file() and path.name != "lock" and not path.name.startswith("accepted-")]


def wrong_final_names(into: Path, published: Path) -> list[str]:
    """Return the final names whose bytes are not the published ones."""
    return [
        name
        for name in final_names(into)
        if not (published / name).is_file() or (into / name).read_bytes() != (published / name).read_bytes()
    ]


def missing_names(into: Path, published: Path, shard_ids: Sequence[int] = ()) -> list[str]:
    """Return the parts, headers, statements and the manifest of the published epoch that the folder lacks."""
    manifest = published_manifest(published)
    layout = layout_of(manifest)
    wanted = [f"{layout.folder}/{name}" for name in manifest.subjects()]
    wanted += [layout.shard_statement(shard.shard_id) for shard in manifest.shards] + [layout.manifest]
    if shard_ids:
        others = {f"shard_id={shard.shard_id}" for shard in manifest.shards if shard.shard_id not in shard_ids}
        wanted = [name for name in wanted if not any(f"{other}/" in name or f"{other}." in name for other in others)]
    return [name for name in wanted if not (into / name).is_file()]


def is_whole(into: Path, published: Path) -> bool:
    """Return whether a folder has exactly the right files of an epoch."""
    return not wrong_final_names(into, published) and not missing_names(into, published) and not temporary_names(into)


def digest_of(folder: Path) -> str:
    """Return one digest of all final names and their bytes."""
    digest = hashlib.sha256()
    for name in final_names(folder):
        digest.update(json.dumps([name, hashlib.sha256((folder / name).read_bytes()).hexdigest()]).encode())
    return digest.hexdigest()
