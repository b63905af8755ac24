"""Object names, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash, PartId
from schemas.published.object_layout import (
    EpochLayout,
    ObjectKind,
    ObjectName,
    catalogue_name,
    latest_name,
    parse_epoch_folder,
    parse_object_name,
    part_file_name,
    split_chain_url,
)
from schemas.published.torrent import piece_length_for
from tests.support.nodes import localnet

EPOCH_ID = CryptoHash.from_base58("DwAcBKgT8BW3YZ8VpVUtRURkdHx3jB6bwj5scRNk1c4N")
LAYOUT = EpochLayout("test-chain-klplt", 4, EPOCH_ID)
FOLDER = "chain_id=test-chain-klplt/epoch_height=4/epoch_id=DwAcBKgT8BW3YZ8VpVUtRURkdHx3jB6bwj5scRNk1c4N"


def test_parts_and_headers_have_the_names_that_nodes_read() -> None:
    """As neard's own dumper wrote them for a local chain."""
    assert LAYOUT.state_part(2, PartId(0, 1)) == f"{FOLDER}/shard_id=2/state_part_000000_of_000001"
    assert LAYOUT.state_header(2) == f"{FOLDER}/headers/shard_id=2/header"
    assert part_file_name(PartId(17, 3500)) == "state_part_000017_of_003500"


def test_a_dump_of_neard_is_recognised_whole() -> None:
    """Every file that neard's dumper wrote parses, as a part or a header."""
    dump = localnet() / "dump"
    names = [str(path.relative_to(dump)) for path in dump.glob("chain_id=*/**/*") if path.is_file()]
    kinds = [found.kind if (found := parse_object_name(name)) else None for name in names]
    assert len(names) > 10
    assert set(kinds) == {ObjectKind.STATE_PART, ObjectKind.STATE_HEADER}


def test_nothing_but_parts_lies_in_a_shards_folder() -> None:
    """Nodes count what lies there."""
    others = [
        LAYOUT.state_header(1),
        LAYOUT.shard_statement(1),
        LAYOUT.evidence(1, bytes(32)),
        LAYOUT.torrent(1),
        LAYOUT.delta_statement(EPOCH_ID, 1),
        LAYOUT.delta(EPOCH_ID, 1, 0),
        LAYOUT.manifest,
        LAYOUT.manifest_revision(1),
        LAYOUT.claim,
        latest_name(LAYOUT.chain_id),
        catalogue_name(LAYOUT.chain_id),
    ]
    assert LAYOUT.state_part(1, PartId(0, 1)).startswith(LAYOUT.shard_folder(1) + "/")
    assert not any(name.startswith(LAYOUT.shard_folder(1) + "/") for name in others)
    assert len(set(others)) == len(others)


SHARD_IDS = st.integers(0, 2**32 - 1)
NAMES = st.one_of(
    SHARD_IDS.map(lambda shard: (LAYOUT.state_header(shard), ObjectName(ObjectKind.STATE_HEADER, LAYOUT.chain_id, LAYOUT, shard))),
    SHARD_IDS.map(lambda shard: (LAYOUT.shard_statement(shard), ObjectName(ObjectKind.SHARD_STATEMENT, LAYOUT.chain_id, LAYOUT, shard))),
    SHARD_IDS.map(lambda shard: (LAYOUT.torrent(shard), ObjectName(ObjectKind.TORRENT, LAYOUT.chain_id, LAYOUT, shard))),
    st.tuples(SHARD_IDS, st.integers(1, 999_999)).flatmap(
        lambda found: st.integers(0, found[1] - 1).map(
            lambda idx: (
                LAYOUT.state_part(found[0], PartId(idx, found[1])),
                ObjectName(ObjectKind.STATE_PART, LAYOUT.chain_id, LAYOUT, found[0], PartId(idx, found[1])),
            )
        )
    ),
    st.tuples(SHARD_IDS, st.binary(min_size=32, max_size=32)).map(
        lambda found: (LAYOUT.evidence(*found), ObjectName(ObjectKind.EVIDENCE, LAYOUT.chain_id, LAYOUT, found[0], payload_sha256=found[1]))
    ),
    st.integers(1, 999_999).map(
        lambda revision: (
            LAYOUT.manifest_revision(revision),
            ObjectName(ObjectKind.MANIFEST_REVISION, LAYOUT.chain_id, LAYOUT, revision=revision),
        )
    ),
    st.tuples(st.binary(min_size=32, max_size=32).map(CryptoHash), SHARD_IDS, st.integers(0, 99_999)).flatmap(
        lambda found: st.sampled_from(
            [
                (
                    LAYOUT.delta_statement(*found[:2]),
                    ObjectName(ObjectKind.DELTA_STATEMENT, LAYOUT.chain_id, LAYOUT, found[1], base_epoch_id=found[0]),
                ),
                (
                    LAYOUT.delta(*found),
                    ObjectName(ObjectKind.DELTA, LAYOUT.chain_id, LAYOUT, found[1], base_epoch_id=found[0], delta_index=found[2]),
                ),
            ]
        )
    ),
    st.just((LAYOUT.manifest, ObjectName(ObjectKind.MANIFEST, LAYOUT.chain_id, LAYOUT))),
    st.just((LAYOUT.claim, ObjectName(ObjectKind.CLAIM, LAYOUT.chain_id, LAYOUT))),
    st.just((latest_name("c"), ObjectName(ObjectKind.LATEST, "c"))),
    st.just((catalogue_name("c"), ObjectName(ObjectKind.CATALOGUE, "c"))),
)


@given(NAMES)
def test_every_name_parses_back(pair: tuple[str, ObjectName]) -> None:
    """What the layout writes, it reads."""
    name, expected = pair
    assert parse_object_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "chain_id=c",
        "chain_id=c/other.json",
        "chain_id=c/epoch_height=4/shard_id=0/state_part_000000_of_000001",
        f"{FOLDER}/shard_id=0/state_part_000001_of_000001",
        f"{FOLDER}/shard_id=0/state_part_000000_of_000000",
        f"{FOLDER}/shard_id=0/state_part_00000_of_000001",
        f"{FOLDER}/shard_id=00/state_part_000000_of_000001",
        f"{FOLDER}/shard_id=0/extra",
        f"{FOLDER}/headers/shard_id=0/header2",
        f"{FOLDER}/manifests/000000.json",
        f"{FOLDER}/manifest.json/",
        f"{FOLDER}/evidence/shard_id=0/{'AB' * 32}.json",
        f"{FOLDER}/deltas/base_epoch_id=x/shard_id=0/delta_000000.arrow",
        f"{FOLDER}/deltas/base_epoch_id={EPOCH_ID}/shard_id=0/delta_0.arrow",
        f"{FOLDER}/deltas/base_epoch_id={EPOCH_ID}/shard_id=0/delta_100000.arrow",
        f"{FOLDER}/deltas/base_epoch_id={EPOCH_ID}/shard_id=0.json",
        FOLDER.replace("=4/", "=04/") + "/manifest.json",
        FOLDER.replace("=4/", f"={2**64}/") + "/manifest.json",
        FOLDER.replace("DwAc", "1DwAc") + "/manifest.json",
        FOLDER.replace("test-chain", "../chain") + "/manifest.json",
    ],
)
def test_what_the_layout_does_not_write_is_no_name(name: str) -> None:
    """Neither strangers nor other spellings are taken."""
    assert parse_object_name(name) is None


def test_an_epochs_folder_parses_back() -> None:
    """With and without the slash at its end."""
    assert LAYOUT.folder == FOLDER
    assert parse_epoch_folder(FOLDER) == parse_epoch_folder(FOLDER + "/") == LAYOUT
    assert parse_epoch_folder("chain_id=c/epoch_height=1") is None


def test_what_has_no_name_is_refused() -> None:
    """More parts than six digits, a chain id that climbs, a revision of zero."""
    with pytest.raises(InvalidInputError):
        part_file_name(PartId(0, 1_000_000))
    with pytest.raises(InvalidInputError):
        latest_name("../x")
    with pytest.raises(InvalidInputError):
        EpochLayout("a/b", 0, EPOCH_ID)
    with pytest.raises(InvalidInputError):
        LAYOUT.manifest_revision(0)


@pytest.mark.parametrize(
    ("memory_usage", "num_parts", "expected"),
    [
        (103, 1, 16 << 10),
        (128 << 10, 1, 16 << 10),
        ((128 << 10) + 1, 1, 32 << 10),
        (16 << 20, 1, 2 << 20),
        ((16 << 20) + 1, 1, 4 << 20),
        (30 << 20, 1, 4 << 20),
        (3000 << 20, 100, 4 << 20),
        (30 << 20, 1000, 16 << 10),
        (1 << 50, 1, 4 << 20),
    ],
)
def test_piece_length_follows_from_the_statement(memory_usage: int, num_parts: int, expected: int) -> None:
    """About eight pieces a part, a power of two from 16 KiB to 4 MiB."""
    assert piece_length_for(memory_usage, num_parts) == expected


@pytest.mark.parametrize(
    ("url", "root", "tail"),
    [
        ("gs://bucket/folder/", "gs://bucket/folder", ""),
        ("gs://bucket/folder/chain_id=c", "gs://bucket/folder", "chain_id=c"),
        (f"gs://bucket/{FOLDER}/", "gs://bucket", FOLDER),
        ("gs://bucket/chain_id=c/epoch_height=3", "gs://bucket", "chain_id=c/epoch_height=3"),
        (f"/chain_id=mainnet/{FOLDER}", "/chain_id=mainnet", FOLDER),
        (f"/data/chain_id=mainnet/epoch_height=1/copies/{FOLDER}", "/data/chain_id=mainnet/epoch_height=1/copies", FOLDER),
        ("/data/chain_id=mainnet/bucket", "/data/chain_id=mainnet/bucket", ""),
        ("/data/my_chain_id=mainnet", "/data/my_chain_id=mainnet", ""),
        ("/chain_id=c", "/", "chain_id=c"),
        ("chain_id=c", ".", "chain_id=c"),
        ("file:///chain_id=c", "file:///", "chain_id=c"),
        ("file:///", "file:///", ""),
        ("memory://chain_id=c", "memory://", "chain_id=c"),
        ("/", "/", ""),
        ("/a\nb/chain_id=c/latest.json", "/a\nb", "chain_id=c/latest.json"),
    ],
)
def test_a_url_is_cut_before_the_last_chain_that_it_names(url: str, root: str, tail: str) -> None:
    """A store may lie below a folder that is named like a chain's."""
    assert split_chain_url(url) == (root, tail)
