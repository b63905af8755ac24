"""Epochs whose rows can't be read: they cost only themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.near.epoch.node_context import (
    epoch_context_from_node,
    list_epochs,
    open_node,
)
from pipelines.near.node.node_columns import EPOCH_INFO, STATE_SYNC_HASHES
from pipelines.producing.watch.watch_poll import look_at_node
from schemas.errors import EpochNotReadyError, IntegrityError
from schemas.ids import CryptoHash
from schemas.nearcore.borsh import BorshWriter
from schemas.nearcore.epoch_context import EpochContext
from tests.support.nodes import change_rows, check_context_against_node, copied, localnet_home

FUTURE_VERSION = b"\5" + (8).to_bytes(8, "little") + bytes(100)
"""A V6, of epoch 8 if its height stands where it always stood."""


def unknown_kickout() -> bytes:
    """Return a V4 of epoch 9 in which a validator was kicked out for an unknown reason."""
    writer = BorshWriter().u8(3).u64(9)
    # validators, their indices, settlements, hidden validators, fishermen, their indices, stake changes, rewards
    for _ in range(9):
        writer.u32(0)
    return writer.u32(1).byte_vec(b"kicked").u8(99).fixed(bytes(100)).to_bytes()


ROWS: dict[bytes, bytes | None] = {
    CryptoHash(bytes(31) + b"\1"): FUTURE_VERSION,
    CryptoHash(bytes(31) + b"\2"): unknown_kickout(),
    CryptoHash(bytes(31) + b"\3"): b"\3",
}
FUTURE, KICKOUT, SHORT = map(CryptoHash, ROWS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the real node's home, with the rows. It must not be changed."""
    home = copied(localnet_home(), tmp_path_factory.mktemp("unreadable"))
    change_rows(home / "data", EPOCH_INFO, ROWS)
    return home


@pytest.fixture(scope="module")
def context() -> EpochContext:
    """The newest epoch's context."""
    return epoch_context_from_node(localnet_home())


def test_they_are_listed_apart(home: Path) -> None:
    """With what is wrong, and with the height where it can be told."""
    listing = list_epochs(home)
    assert listing.epochs == list_epochs(localnet_home()).epochs
    assert [(epoch.epoch_id, epoch.epoch_height) for epoch in listing.unreadable] == [(FUTURE, 8), (KICKOUT, 9), (SHORT, None)]
    assert "V6 is no known version" in listing.unreadable[0].failure.problem
    assert "99 is no known reason" in listing.unreadable[1].failure.problem


def test_the_others_are_to_be_had(home: Path, context: EpochContext) -> None:
    """By height, by id and as the newest; and what is given is checked against them."""
    for selector in ("6", str(context.epoch_id), "latest"):
        assert epoch_context_from_node(home, selector) == context
    assert epoch_context_from_node(home, "4") == epoch_context_from_node(localnet_home(), "4")
    check_context_against_node(context, home)
    assert look_at_node(home).epochs[-1].epoch_id == context.epoch_id


@pytest.mark.parametrize("selector", ["8", "9", str(FUTURE), str(KICKOUT), str(SHORT)])
def test_who_asks_for_one_is_told_what_is_wrong_with_it(home: Path, selector: str) -> None:
    """Again and again."""
    for _ in range(2):
        with pytest.raises(IntegrityError, match="EpochInfo of epoch 1111"):
            epoch_context_from_node(home, selector)


def test_an_epoch_that_is_not_known_may_be_one_of_them(home: Path) -> None:
    """Not every row tells its height."""
    with pytest.raises(EpochNotReadyError, match="does not know epoch 77, unless it is one of 3"):
        epoch_context_from_node(home, "77")


def test_a_context_of_one_is_not_taken_for_unknown_to_the_node(home: Path, context: EpochContext) -> None:
    """Nothing could be compared."""
    with open_node(home) as node, pytest.raises(IntegrityError, match="V6"):
        node.check(replace(context, epoch_id=FUTURE), "a file")


@pytest.mark.parametrize("epoch_id", [FUTURE, SHORT])
def test_the_newest_one_is_not_passed_over(tmp_path: Path, context: EpochContext, epoch_id: CryptoHash) -> None:
    """A command that wants the newest epoch gets no older one; a watcher sees it beside the others."""
    home = copied(localnet_home(), tmp_path)
    change_rows(home / "data", EPOCH_INFO, ROWS)
    change_rows(home / "data", STATE_SYNC_HASHES, {epoch_id: bytes(32)})
    with pytest.raises(IntegrityError, match=str(epoch_id)):
        epoch_context_from_node(home)
    view = look_at_node(home)
    assert [epoch.epoch_height for epoch in view.epochs] == [5, 6]
    assert [epoch.epoch_id for epoch in view.unreadable] == [epoch_id]
    assert view == look_at_node(home)
    assert epoch_context_from_node(home, "6") == context
