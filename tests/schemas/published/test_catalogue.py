"""Catalogues, leases and what a scrub remembers: written, read back, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.errors import InvalidInputError, ManifestError
from schemas.published.catalogue import CATALOGUE_BYTES_MAX, Catalogue, CatalogueEpoch, PublishedListing
from schemas.published.lease import LEASE_TTL_MAX_S, ReaderLease
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name
from schemas.published.scrub_state import WHOLE_PPM, ScrubState
from tests.support.published_values import CHAIN_ID, EPOCH_ID, make_manifest

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LAYOUT = EpochLayout(CHAIN_ID, 7, EPOCH_ID)


def make_catalogue() -> Catalogue:
    """Two epochs, one of them damaged and about to go."""
    listed = CatalogueEpoch(7, EPOCH_ID, PublishedListing.of(make_manifest(), "ab" * 32))
    damaged = CatalogueEpoch.damaged(EpochLayout(CHAIN_ID, 6, EPOCH_ID), "not JSON\n\x00é" * 100)
    return Catalogue(CHAIN_ID).with_epoch(listed).with_epoch(replace(damaged, leaving_since=NOW))


def test_a_catalogue_comes_back() -> None:
    """Ascending by height, whatever the order in which epochs came."""
    catalogue = make_catalogue()
    assert Catalogue.parse(catalogue.to_bytes(), "test") == catalogue
    assert [epoch.epoch_height for epoch in catalogue.epochs] == [6, 7]


def test_a_listing_says_what_the_manifest_says() -> None:
    """Shards, parts, bytes, completeness."""
    listing = PublishedListing.of(make_manifest(), "ab" * 32)
    assert (listing.is_complete, listing.revision, listing.protocol_version) == (False, 1, 82)
    assert [(shard.num_parts, shard.parts, shard.has_header, shard.has_torrent) for shard in listing.shards] == [
        (3, 3, True, True),
        (0, 0, True, False),
    ]
    assert listing.size == 500 + 501 + 502


def test_unknown_fields_are_ignored() -> None:
    """A later version may say more."""
    document = json.loads(make_catalogue().to_bytes())
    document["new"] = document["epochs"][0]["new"] = 1
    assert Catalogue.parse(json.dumps(document).encode(), "test") == make_catalogue()


def _drop(document: dict[str, Any]) -> None:
    del document["epochs"][1]["manifest"]["complete"]


def _twice(document: dict[str, Any]) -> None:
    document["epochs"].append(document["epochs"][0])


def _too_many_parts(document: dict[str, Any]) -> None:
    document["epochs"][1]["manifest"]["shards"][0]["parts"] = 4


def _no_flag(document: dict[str, Any]) -> None:
    document["epochs"][1]["manifest"]["complete"] = 1


def _other_format(document: dict[str, Any]) -> None:
    document["format"] = "urn:statecast:catalogue:v2"


def _no_time(document: dict[str, Any]) -> None:
    document["epochs"][0]["leaving_since"] = "2026-13-01T00:00:00Z"


def _other_shard_uid(document: dict[str, Any]) -> None:
    document["epochs"][1]["manifest"]["shards"][0]["shard_uid"] = "x"


@pytest.mark.parametrize("damage", [_drop, _twice, _too_many_parts, _no_flag, _other_format, _no_time, _other_shard_uid])
def test_a_damaged_catalogue_is_refused(damage: Callable[[dict[str, Any]], None]) -> None:
    """As a whole."""
    document = json.loads(make_catalogue().to_bytes())
    damage(document)
    with pytest.raises(ManifestError):
        Catalogue.parse(json.dumps(document).encode(), "test")


def test_limits_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an endless catalogue is read nor one of too many epochs written."""
    with pytest.raises(ManifestError):
        Catalogue.parse(b" " * (CATALOGUE_BYTES_MAX + 1), "test")
    monkeypatch.setattr("schemas.published.catalogue.EPOCHS_MAX", 1)
    with pytest.raises(InvalidInputError, match="gc"):
        make_catalogue().to_bytes()


def test_a_mark_is_set_and_taken_back() -> None:
    """One of an epoch that is not listed makes an entry; taking none back changes nothing."""
    other = EpochLayout(CHAIN_ID, 8, EPOCH_ID)
    marked = make_catalogue().marked(LAYOUT, NOW).marked(other, NOW)
    assert [epoch.leaving_since for epoch in marked.epochs] == [NOW] * 3
    assert marked.marked(LAYOUT, None).without([other]) == make_catalogue()
    assert make_catalogue().marked(other, None) == make_catalogue()


def test_a_lease_comes_back() -> None:
    """What is parsed is what was written."""
    lease = ReaderLease("process 1 on host", "fetch", NOW, NOW + timedelta(minutes=15))
    assert ReaderLease.parse(lease.to_bytes(), "test") == lease


@pytest.mark.parametrize("ttl_s", [-1, LEASE_TTL_MAX_S + 1])
def test_a_lease_without_end_is_refused(ttl_s: int) -> None:
    """No lease holds an epoch without end, or before it was written."""
    with pytest.raises(ManifestError):
        ReaderLease.parse(ReaderLease("x", "fetch", NOW, NOW + timedelta(seconds=ttl_s)).to_bytes(), "test")


def test_the_memory_of_a_scrub_comes_back() -> None:
    """Its place lies within the epoch."""
    state = ScrubState(7, WHOLE_PPM - 1, NOW)
    assert ScrubState.parse(state.to_bytes(), "test") == state
    with pytest.raises(ManifestError):
        ScrubState.parse(replace(state, next_ppm=WHOLE_PPM).to_bytes(), "test")


def test_names_of_leases_and_of_the_scrub_parse_back() -> None:
    """In one spelling."""
    lease = parse_object_name(LAYOUT.lease("ab" * 16))
    assert lease is not None and (lease.kind, lease.epoch, lease.lease_id) == (ObjectKind.LEASE, LAYOUT, "ab" * 16)
    scrub = parse_object_name(LAYOUT.scrub)
    assert scrub is not None and (scrub.kind, scrub.epoch) == (ObjectKind.SCRUB, LAYOUT)
    for name in (f"{LAYOUT.leases_folder}/{'AB' * 16}.json", f"{LAYOUT.leases_folder}/x.json", f"{LAYOUT.folder}/leases"):
        assert parse_object_name(name) is None
    with pytest.raises(InvalidInputError):
        LAYOUT.lease("../claim")
