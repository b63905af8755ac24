"""Mirrors for tests: settings with short pauses, and what makes two stores equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from pipelines.execution.stage_runner import silent_runner
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.mirroring.epoch_choice import EpochChoice
from pipelines.mirroring.mirror_epochs import MirroredEpoch, MirrorRun, MirrorSettings
from pipelines.mirroring.store_target import StoreTerms
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.published.object_layout import ObjectKind, parse_object_name
from schemas.published.public_key import PublicKey
from tests.support.fetches import QUICK, Recorder
from tests.support.productions import signer
from tests.support.stored_bytes import stored_bytes
from tests.support.stored_epochs import CHAIN_ID

NOT_COPIED = (ObjectKind.CLAIM, ObjectKind.LEASE, ObjectKind.SCRUB, ObjectKind.EVIDENCE)
"""What is of one store alone."""


def policy_of(*names: str) -> TrustPolicy:
    """Return the policy that trusts the tests' own keys of these names."""
    return TrustPolicy(TrustRule(tuple(PublicKey.parse(str(signer(name).public_key)) for name in names or ("first",)), 1))


def mirror_settings(source: str, destination: str, epochs: str, work: Path, *more: str, **changes: Any) -> MirrorSettings:
    """Return settings that trust the first of the tests' keys and verify in threads."""
    fetch = FetchSettings(
        url=source,
        source_urls=more,
        chain_id=CHAIN_ID,
        epoch="latest",
        shard_ids=(),
        into=work,
        policy=policy_of(),
        limits=QUICK,
        kernel_name="auto",
        verify_workers=2,
        verify_in_threads=True,
    )
    fetch = replace(fetch, **{name: changes.pop(name) for name in list(changes) if hasattr(fetch, name)})
    terms = changes.pop("terms", None) or StoreTerms(policy=fetch.policy)
    return MirrorSettings(fetch, destination, EpochChoice.parse(epochs), terms, **{"once": True, **changes})


def mirror(settings: MirrorSettings, recorder: Recorder | None = None, *, rebuilds: bool = False) -> list[MirroredEpoch]:
    """Run a mirror; it rebuilds parts in this process."""
    runner = silent_runner() if rebuilds else None
    return MirrorRun(settings, recorder or Recorder(), Random(1), runner=runner).run()


def contents(url: str, is_wanted: Callable[[str], bool] = lambda _: True) -> dict[str, bytes]:
    """Return all objects of a store that a mirror copies, by name."""
    store = open_store(url)
    found = {}
    for info in store.list():
        parsed = parse_object_name(info.name)
        if parsed is not None and parsed.kind not in NOT_COPIED and is_wanted(info.name):
            found[info.name] = stored_bytes(store, info.name)
    return found
