"""How the shard of a proof is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipelines.proving.shard_choice import check_shard, choose_shard
from pipelines.proving.wanted_record import WantedRecord
from schemas.errors import IntegrityError, InvalidInputError
from schemas.ids import ShardUId
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.trie_key import account_key, contract_data_key, delayed_receipt_indices_key
from schemas.published.proof import ShardChoice
from tests.support.proofs import small_proof

FIRST, SECOND = ShardUId(1, 4), ShardUId(1, 9)
LAYOUT = ShardLayout(kind="V2", version=1, shard_ids=(9, 4), boundary_accounts=("m.near",))


def _choose(
    offered: tuple[ShardUId, ...] = (FIRST, SECOND),
    num_shards: int = 2,
    shard_id: int | None = None,
    account_id: str | None = "alice.near",
    layout: ShardLayout | None = None,
    holder: ShardUId | None = None,
) -> tuple[ShardUId, ShardChoice]:
    return choose_shard(
        offered,
        num_shards=num_shards,
        shard_id=shard_id,
        account_id=account_id,
        shard_layout=layout,
        has_account=lambda uid: uid == holder,
    )


def test_the_user_comes_first() -> None:
    """A named shard is taken whatever the layout and the records say."""
    assert _choose(shard_id=9, layout=LAYOUT, holder=FIRST) == (SECOND, ShardChoice.OPTION)


def test_the_layout_comes_next() -> None:
    """A shard layout decides by the account id, without a look at the records."""
    assert _choose(layout=LAYOUT, holder=FIRST) == (SECOND, ShardChoice.SHARD_LAYOUT)
    assert _choose(layout=LAYOUT, account_id="m.near") == (FIRST, ShardChoice.SHARD_LAYOUT)


def test_the_record_decides_without_a_layout() -> None:
    """Without a layout it is the shard that has the account's record."""
    assert _choose(holder=SECOND) == (SECOND, ShardChoice.ACCOUNT_RECORD)


def test_the_only_shard_needs_no_choice() -> None:
    """A chain of one shard leaves nothing to choose; one shard of several does."""
    assert _choose(offered=(FIRST,), num_shards=1, account_id=None) == (FIRST, ShardChoice.ONLY_SHARD)
    with pytest.raises(InvalidInputError):
        _choose(offered=(FIRST,), num_shards=2)


def test_a_layout_of_several_shards_knows_better_than_one_that_is_offered_alone() -> None:
    """As where a manifest lists one shard and tells of no other."""
    assert _choose(offered=(SECOND,), num_shards=1, layout=LAYOUT) == (SECOND, ShardChoice.SHARD_LAYOUT)
    with pytest.raises(InvalidInputError, match=r"shard s9\.v1, where the shard layout has alice\.near, is not here"):
        _choose(offered=(FIRST,), num_shards=1, layout=LAYOUT)


def test_what_can_not_be_told_is_refused() -> None:
    """An account that no shard has, no account at all, and shards that are not here are refused."""
    calls: tuple[dict[str, Any], ...] = ({}, {"account_id": None}, {"shard_id": 5}, {"offered": (FIRST,), "layout": LAYOUT})
    for arguments in calls:
        with pytest.raises(InvalidInputError, match="s4"):
            _choose(**arguments)


@pytest.mark.parametrize(
    "wanted",
    [
        WantedRecord(None, account_key("zoe.near")),
        WantedRecord(None, contract_data_key("zoe.near", b"k")),
        WantedRecord(None, contract_data_key("zoe.near", b""), is_prefix=True),
    ],
    ids=["account", "contract data", "contract data prefix"],
)
def test_a_proof_must_be_of_the_shard_of_its_account(wanted: WantedRecord) -> None:
    """The layout has the account in one shard; a proof out of the other does not count."""
    proof = small_proof([(b"\x07", b"one")], wanted)
    check_shard(replace(proof, shard_uid=FIRST), LAYOUT, "here")
    with pytest.raises(IntegrityError, match="zoe"):
        check_shard(replace(proof, shard_uid=SECOND), LAYOUT, "here")


@pytest.mark.parametrize(
    "wanted",
    [
        WantedRecord(None, delayed_receipt_indices_key()),
        WantedRecord(None, b"\x12\x00" + bytes(32)),
        WantedRecord(None, b"\x12\x01\x08\x00\x00\x00zoe.near"),
        WantedRecord(None, account_key("zoe"), is_prefix=True),
        WantedRecord(None, b"\xfe"),
    ],
    ids=["queue", "global contract by hash", "global contract by account", "prefix of accounts", "unknown"],
)
def test_a_key_of_no_one_account_is_in_no_shard_by_the_layout(wanted: WantedRecord) -> None:
    """Neither right nor wrong: the option can't be used."""
    proof = small_proof([(b"\x07", b"one")], wanted)
    with pytest.raises(InvalidInputError, match="no one account"):
        check_shard(replace(proof, shard_uid=FIRST), LAYOUT, "here")
