"""Which shard a record is looked for in. Presence proves itself; absence counts only in the right shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.errors import IntegrityError, InvalidInputError, MalformedValueError
from schemas.ids import ShardUId
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.trie_key import TrieKeyKind, parse_trie_key
from schemas.published.proof import KeyClaim, PrefixClaim, ShardChoice, TrieProof


def choose_shard(
    offered: Sequence[ShardUId],
    *,
    num_shards: int,
    shard_id: int | None,
    account_id: str | None,
    shard_layout: ShardLayout | None,
    has_account: Callable[[ShardUId], bool],
) -> tuple[ShardUId, ShardChoice]:
    """Return the shard to look in and how it was chosen.

    Args:
        offered: shards that can be proven from.
        num_shards: shards that there are.
        shard_id: named by the user.
        shard_layout: the state's own; None where it is not known.
        has_account: tells whether a shard has the account's own record: all records of an account are in one shard.
    Raises:
        InvalidInputError: the shard is not offered, or can't be told.
    """
    if shard_id is not None:
        return _offered(offered, [uid for uid in offered if uid.shard_id == shard_id], f"shard {shard_id}"), ShardChoice.OPTION
    # A layout of several shards knows more than a source that names one alone.
    has_choice = shard_layout is not None and len(shard_layout.shard_ids) > 1 and account_id is not None
    if num_shards == 1 and len(offered) == 1 and not has_choice:
        return offered[0], ShardChoice.ONLY_SHARD
    if account_id is None:
        raise InvalidInputError(
            problem="which shard the key is in is not said", remedy=f"Give --shard-id or --account; here are {_list(offered)}."
        )
    if shard_layout is not None:
        uid = shard_layout.shard_uids[shard_layout.shard_index_of(account_id)]
        found = [other for other in offered if other == uid]
        return _offered(offered, found, f"shard {uid}, where the shard layout has {account_id},"), ShardChoice.SHARD_LAYOUT
    with_account = next((uid for uid in offered if has_account(uid)), None)
    if with_account is None:
        raise InvalidInputError(
            problem=f"no shard here has the account {account_id}, and the shard layout is not known, so its shard can't be told",
            remedy=f"Name the shard with --shard-id, or the shard layout with --shard-layout; here are {_list(offered)}.",
        )
    return with_account, ShardChoice.ACCOUNT_RECORD


def check_shard(proof: TrieProof, shard_layout: ShardLayout, where: str) -> None:
    """Make sure that a proof is of the shard that a layout assigns its account to.

    Raises:
        IntegrityError: it is of another.
        InvalidInputError: the trie key is of no one account.
    """
    account_id = _account_of(proof.claim)
    if account_id is None:
        raise InvalidInputError(
            problem="the proof's trie key belongs to no one account, so a shard layout says nothing of its shard",
            where=where,
            remedy="Leave --shard-layout out.",
        )
    uid = shard_layout.shard_uids[shard_layout.shard_index_of(account_id)]
    if uid != proof.shard_uid:
        raise IntegrityError(
            problem=f"the shard layout has {account_id} in shard {uid}, the proof is of shard {proof.shard_uid}", where=where
        )


def _account_of(claim: KeyClaim | PrefixClaim) -> str | None:
    try:
        key = parse_trie_key(claim.trie_key if isinstance(claim, KeyClaim) else claim.trie_key_prefix)
    except MalformedValueError:
        return None
    # A global contract is in every shard, not only in its deployer's.
    if key.kind in (TrieKeyKind.GLOBAL_CONTRACT_CODE, TrieKeyKind.GLOBAL_CONTRACT_NONCE):
        return None
    # Other prefixes than of a contract's own keys may go on as the ids of other accounts.
    return key.account_id if isinstance(claim, KeyClaim) or key.kind is TrieKeyKind.CONTRACT_DATA else None


def _offered(offered: Sequence[ShardUId], found: Sequence[ShardUId], name: str) -> ShardUId:
    if len(found) != 1:
        raise InvalidInputError(problem=f"{name} is not here", remedy=f"Here are {_list(offered)}.")
    return found[0]


def _list(shard_uids: Sequence[ShardUId]) -> str:
    return ", ".join(map(str, shard_uids)) or "no shards"
