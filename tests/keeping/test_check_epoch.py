"""The check of an epoch whose manifest and statements are of two minds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.bucket.published_epoch import read_manifest
from pipelines.execution.stage_runner import silent_runner
from pipelines.keeping.check_epoch import CheckResult, EpochCheck
from pipelines.keeping.findings import FindingKind
from pipelines.producing.publish.signing import sign_payload
from pipelines.stores.open_store import open_store
from pipelines.trust.signatures import TrustRule
from schemas.errors import ManifestError, SignatureError
from schemas.published.dsse import Envelope
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.manifest import MissingKind, MissingObject
from schemas.published.manifest_shard import ManifestHeader, ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.public_key import PublicKey
from tests.support.productions import context, fitting_header, new_store_url, producer, small_shard


def without_header(shard: ManifestShard) -> ManifestShard:
    """List no header."""
    return replace(shard, header=None)


def with_other_header(shard: ManifestShard) -> ManifestShard:
    """List a header of another digest."""
    return replace(shard, header=ManifestHeader(1, "0" * 64))


def with_other_root(shard: ManifestShard) -> ManifestShard:
    """List another state root."""
    return replace(shard, state_root=type(shard.state_root)(b"\1" * 32))


def with_other_statement(shard: ManifestShard) -> ManifestShard:
    """List another statement."""
    return replace(shard, statement_sha256="0" * 64)


@pytest.mark.parametrize("change", [without_header, with_other_header, with_other_root, with_other_statement])
def test_a_manifest_that_contradicts_its_statement_is_found(change: object) -> None:
    """Every object is as it was published, but the manifest speaks of it in another way."""
    assert callable(change)
    built, store_url = small_shard(), new_store_url()
    producer(built, store_url, state_header=fitting_header(built)).publish()
    store, layout = open_store(store_url), EpochLayout.of(context(built))
    stored = read_manifest(store, layout)
    assert stored is not None
    shard = change(stored.manifest.shards[0])
    missing = stored.manifest.missing
    if shard.header is None:
        missing = (MissingObject(MissingKind.STATE_HEADER, "left out", 0), *missing)
    order = sorted(missing, key=lambda found: (-1 if found.shard_id is None else found.shard_id, found.kind))
    lying = replace(stored.manifest, shards=(shard,), missing=tuple(order))
    store.put(layout.manifest, sign_payload(lying.to_payload(), ()).to_bytes())

    result = EpochCheck(silent_runner(), "auto", store_url, layout, (), None).run()

    assert not result.is_good
    assert (FindingKind.WRONG, layout.shard_statement(0)) in [(found.kind, found.object_name) for found in result.findings]


def test_a_check_with_keys_asks_for_signatures_first() -> None:
    """What no trusted key has signed is not parsed, and neither is a statement that the manifest does not name."""
    built, store_url = small_shard(), new_store_url()
    producer(built, store_url, state_header=fitting_header(built)).publish()
    store, layout = open_store(store_url), EpochLayout.of(context(built))
    junk = Envelope(b"no JSON at all", PAYLOAD_TYPE).to_bytes()

    def check(trust: TrustRule | None) -> CheckResult:
        return EpochCheck(silent_runner(), "auto", store_url, layout, (), trust).run()

    store.put(layout.shard_statement(0), junk)
    assert [found.problem for found in check(None).findings] == ["it is not the statement that the manifest names by its sha256"]
    store.put(layout.manifest, junk)
    with pytest.raises(ManifestError, match="not JSON"):
        check(None)
    with pytest.raises(SignatureError):
        check(TrustRule((PublicKey(bytes(32)),)))
