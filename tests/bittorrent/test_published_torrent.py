"""A torrent is believed for its info hashes, and must then be of the manifest's parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.bittorrent.published_torrent import check_torrent, read_torrent
from pipelines.bittorrent.torrents import recompose_torrent
from schemas.errors import ManifestError
from schemas.published.manifest_shard import ManifestShard, ManifestTorrent
from tests.support.random_epochs import PART_SIZES, PIECE_BYTES, RandomEpoch, publish_random_epoch

lt = pytest.importorskip("libtorrent", reason="the extra p2p is not installed")


@pytest.fixture(scope="module")
def epoch(tmp_path_factory: pytest.TempPathFactory) -> RandomEpoch:
    """An epoch of one shard."""
    return publish_random_epoch(tmp_path_factory.mktemp("bucket"))


def test_the_published_torrent_passes(epoch: RandomEpoch) -> None:
    """Every piece is found in the part and at the place that it says, and is what it should be."""
    torrent = read_torrent(epoch.torrent(), epoch.manifest.shards[0], "here")
    parts = list(epoch.parts().values())
    seen = 0
    for part_id, file in torrent.files.items():
        for piece in range(file.first_piece, file.first_piece + file.num_pieces):
            start, stop = torrent.piece_bytes(part_id, piece)
            assert torrent.is_piece(piece, parts[part_id][start:stop])
            assert not torrent.is_piece(piece, bytes(stop - start))
            seen += stop - start
    assert seen == sum(PART_SIZES)


def test_a_shard_of_one_part_is_not_padded(tmp_path: Path) -> None:
    """Its last piece is hashed as it is."""
    epoch = publish_random_epoch(tmp_path, shards={0: [PIECE_BYTES + 5]})
    torrent = read_torrent(epoch.torrent(), epoch.manifest.shards[0], "here")
    (part,) = epoch.parts().values()
    assert torrent.is_piece(1, part[PIECE_BYTES:])


def test_parameters_have_no_foreign_addresses(epoch: RandomEpoch) -> None:
    """Web seeds and trackers in the file are not covered by the info hashes, so they are left out."""
    document = lt.bdecode(epoch.torrent())
    document[b"url-list"] = b"http://elsewhere.example/"
    document[b"announce"] = b"http://elsewhere.example/announce"
    torrent = read_torrent(lt.bencode(document), epoch.manifest.shards[0], "here")
    assert (torrent.parameters().url_seeds, torrent.parameters().trackers) == ([], [])


def changed(data: bytes, change: dict[bytes, Any]) -> bytes:
    """Return a torrent with another info dictionary."""
    document = lt.bdecode(data)
    document[b"info"].update(change)
    encoded: bytes = lt.bencode(document)
    return encoded


@pytest.mark.parametrize("damage", ["other_shard", "other_name", "not_a_torrent", "cut", "empty"])
def test_another_torrent_is_refused(tmp_path: Path, epoch: RandomEpoch, damage: str) -> None:
    """Whatever stands under the name: another torrent, one that was changed, or none."""
    make: dict[str, Callable[[], bytes]] = {
        "other_shard": lambda: publish_random_epoch(tmp_path, seed=8).torrent(),
        "other_name": lambda: changed(epoch.torrent(), {b"name": b"shard_id=1"}),
        "not_a_torrent": lambda: b"<html>",
        "cut": lambda: epoch.torrent()[:-30],
        "empty": lambda: b"",
    }
    with pytest.raises(ManifestError):
        read_torrent(make[damage](), epoch.manifest.shards[0], "here")


@pytest.mark.parametrize("which", ["info_hash_v1", "info_hash_v2"])
def test_each_info_hash_counts(epoch: RandomEpoch, which: str) -> None:
    """One of them right is not enough."""
    shard = epoch.manifest.shards[0]
    assert shard.torrent is not None
    zeros: dict[str, Any] = {which: "00" * (len(getattr(shard.torrent, which)) // 2)}
    wrong = replace(shard, torrent=replace(shard.torrent, **zeros))
    with pytest.raises(ManifestError, match="info hashes"):
        read_torrent(epoch.torrent(), wrong, "here")


def other_size(shard: ManifestShard) -> ManifestShard:
    """The shard with one part a byte longer."""
    return replace(shard, parts=(replace(shard.parts[0], size=shard.parts[0].size + 1), *shard.parts[1:]))


def other_root(shard: ManifestShard) -> ManifestShard:
    """The shard with another pieces root."""
    return replace(shard, parts=(replace(shard.parts[0], pieces_root="ee" * 32), *shard.parts[1:]))


def fewer_parts(shard: ManifestShard) -> ManifestShard:
    """The shard without its last part."""
    return replace(shard, parts=shard.parts[:-1])


def other_piece_length(shard: ManifestShard) -> ManifestShard:
    """The shard with larger pieces."""
    assert isinstance(shard.torrent, ManifestTorrent)
    return replace(shard, torrent=replace(shard.torrent, piece_length=2 * PIECE_BYTES))


@pytest.mark.parametrize("contradict", [other_size, other_root, fewer_parts, other_piece_length])
def test_a_manifest_that_contradicts_its_torrent_is_refused(epoch: RandomEpoch, contradict: Any) -> None:
    """Right info hashes of a torrent with other files than the listed parts."""
    info = lt.load_torrent_buffer(epoch.torrent()).ti
    with pytest.raises(ManifestError, match="not the parts"):
        check_torrent(info, contradict(epoch.manifest.shards[0]), "here")


def _with(data: bytes, name: bytes, value: object) -> bytes:
    """Return a torrent file with another value, or with two of that name where the value is a pair."""
    document = lt.bdecode(data)
    if not isinstance(value, tuple):
        return bytes(lt.bencode(document | {name: value}))
    first, second = (lt.bencode({name: document[name] if one is None else one})[1:-1] for one in value)
    return bytes(data.replace(lt.bencode({name: document[name]})[1:-1], first + second))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"piece layers", []),
        (b"piece layers", {}),
        (b"piece layers", 5),
        (b"piece layers", (None, {})),
        (b"piece layers", (None, [])),
        (b"info", (None, {b"name": b"x"})),
        (b"info", (None, 5)),
    ],
    ids=str,
)
def test_a_torrent_file_that_its_parser_takes_for_less_than_it_says_is_not_written_again(
    epoch: RandomEpoch, name: bytes, value: object
) -> None:
    """libtorrent passes over piece layers of another type, and takes the first of two; what is written has all of them, and them right."""
    torrent = read_torrent(_with(epoch.torrent(), name, value), epoch.manifest.shards[0], "here")
    with pytest.raises(ManifestError):
        recompose_torrent(torrent, (), ())


def test_a_torrent_file_is_written_again_without_what_is_not_the_manifests(epoch: RandomEpoch) -> None:
    """The same bytes, whatever else was in it."""
    document = lt.bdecode(epoch.torrent())
    more = {b"comment": b"x", b"announce": b"http://elsewhere.example/announce", b"piece layers": document[b"piece layers"]}
    torrent = read_torrent(lt.bencode(document | more), epoch.manifest.shards[0], "here")
    assert recompose_torrent(torrent, epoch.manifest.web_seeds, epoch.manifest.trackers) == epoch.torrent()
