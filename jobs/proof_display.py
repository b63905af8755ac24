"""How ``prove`` and ``verify-proof`` show a proof: as JSON values, and for people."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any, Final

from rich.console import Console

from jobs.terminal import coloured
from pipelines.proving.verify_trie_proof import VerifiedProof
from pipelines.proving.walk_proof import Ending
from schemas.errors import IntegrityError
from schemas.nearcore.access_key import AccessKey, decode_access_key
from schemas.nearcore.account import Account, decode_account
from schemas.nearcore.record_kind import record_kind_name
from schemas.published.proof import KeyClaim, PrefixClaim, ShardChoice

UNPROVEN: Final = ("chain_id", "epoch_height", "shard_chosen_by")
"""Fields that the proof's maker states without proof."""

_YOCTO_DIGITS: Final = 24
_VALUE_SHOWN_MAX: Final = 120
_KEYS_SHOWN_MAX: Final = 20

_ENDINGS: Final = {
    Ending.VALUE: "there",
    Ending.EMPTY_TRIE: "absent: the shard's state is empty",
    Ending.NO_CHILD: "absent: no child of a branch goes on with this key",
    Ending.NO_VALUE: "absent: keys go on below it, but it has no value itself",
    Ending.OTHER_EXTENSION: "absent: an extension goes another way",
    Ending.OTHER_LEAF: "absent: a leaf with another key is in its place",
}
_CHOICES: Final = {
    ShardChoice.OPTION: "named by --shard-id",
    ShardChoice.SHARD_LAYOUT: "by the shard layout",
    ShardChoice.ACCOUNT_RECORD: "it has the account's record",
    ShardChoice.ONLY_SHARD: "the only one",
}


def proof_document(verified: VerifiedProof) -> dict[str, Any]:
    """Return what a verified proof says, as JSON values."""
    proof = verified.proof
    document: dict[str, Any] = {
        "holds": True,
        "tied_to": list(verified.tied_to),
        "chain_id": proof.chain_id,
        "epoch_height": proof.epoch_height,
        "epoch_id": None if proof.epoch_id is None else str(proof.epoch_id),
        "shard_uid": str(proof.shard_uid),
        "shard_chosen_by": str(proof.shard_chosen_by),
        "state_root": str(proof.state_root),
        "state_after_block": None if proof.block_hash is None else str(proof.block_hash),
        "chunk_in_block": None if verified.chunk is None else str(verified.chunk.block.hash),
        "child_block": None if verified.chunk is None or verified.chunk.child is None else str(verified.chunk.child.hash),
        "num_nodes": len(proof.nodes),
        "unproven": [name for name in UNPROVEN if name != "shard_chosen_by" or not verified.is_right_shard],
    }
    if isinstance(proof.claim, PrefixClaim):
        values = [{"trie_key": key.hex(), "value": base64.b64encode(value).decode()} for key, value in proof.claim.values]
        return {**document, "kind": "prefix", "trie_key_prefix": proof.claim.trie_key_prefix.hex(), "values": values}
    key, value = proof.claim.trie_key, proof.claim.value
    return {
        **document,
        "kind": "key",
        "record_kind": _kind(key),
        "trie_key": key.hex(),
        "present": value is not None,
        "ending": None if verified.ending is None else str(verified.ending),
        "value": None if value is None else base64.b64encode(value).decode(),
        "decoded": None if value is None else _decoded(key, value),
    }


def print_proof(console: Console, verified: VerifiedProof) -> None:
    """Print what a verified proof says."""
    proof = verified.proof
    rows: list[tuple[str, str]] = []
    match proof.claim:
        case KeyClaim(key, value):
            assert verified.ending is not None, "the way to one key ends somewhere"
            rows += [("record", f"{_kind(key)}, trie key {key.hex()}"), ("answer", _ENDINGS[verified.ending])]
            if value is not None:
                decoded = _decoded(key, value)
                rows += [("value", _shown(value))] if decoded is None else [(name, _plain(name, item)) for name, item in decoded.items()]
        case PrefixClaim(prefix, values):
            rows += [("prefix", f"{_kind(prefix)}, trie keys from {prefix.hex()}"), ("answer", f"{len(values):,} keys, and no others")]
            rows += [
                ("", f"{key[len(prefix) :].hex() or '(the prefix itself)'} = {_shown(value)}") for key, value in values[:_KEYS_SHOWN_MAX]
            ]
            rows += [("", f"… and {len(values) - _KEYS_SHOWN_MAX:,} more")] if len(values) > _KEYS_SHOWN_MAX else []
    epoch = "" if proof.epoch_height is None else f", epoch {proof.epoch_height} ({proof.epoch_id})"
    rows += [
        ("shard", f"{proof.shard_uid} of {proof.chain_id}{epoch}; {_CHOICES[proof.shard_chosen_by]}"),
        ("state root", str(proof.state_root)),
    ]
    if proof.block_hash is not None:
        rows.append(("state after block", str(proof.block_hash)))
    if verified.chunk is not None:
        child = "" if verified.chunk.child is None else f", its child is {verified.chunk.child.hash}"
        rows.append(("named in block", f"{verified.chunk.block.hash} at height {verified.chunk.block.height}{child}"))
    rows.append(("proof", f"{len(proof.nodes):,} trie nodes"))
    for name, text in rows:
        console.print(f"{name.replace('_', ' '):<17} {text}", highlight=False, soft_wrap=True)
    if verified.is_right_shard:
        console.print(f"shard {proof.shard_uid} is where the given shard layout has the account", highlight=False, soft_wrap=True)
    elif not isinstance(proof.claim, KeyClaim) or proof.claim.value is None:
        # A proof from another shard holds as well; nothing in the headers says which accounts a shard has.
        console.print(
            coloured(
                f"what is absent is absent from shard {proof.shard_uid}; ",
                ("that the record belongs there is the word of the proof's maker", "yellow"),
            ),
            soft_wrap=True,
        )
    if verified.tied_to:
        console.print(f"the proof holds, tied to {' and '.join(verified.tied_to)}", highlight=False, soft_wrap=True)
    else:
        console.print(coloured("the proof holds; ", ("nothing tied its state root to the chain", "yellow")), soft_wrap=True)


def _kind(key: bytes) -> str:
    return record_kind_name(key[0] if key else None)


def _decoded(key: bytes, value: bytes) -> dict[str, Any] | None:
    """Return what an account or access key says; None for other kinds, and for a value that is none."""
    try:
        match key[:1]:
            case b"\x00":
                return _account(decode_account(value))
            case b"\x02":
                return _access_key(decode_access_key(value))
    except IntegrityError:
        return None
    return None


def _account(account: Account) -> dict[str, Any]:
    contract = account.contract
    return {
        "amount": str(account.amount),
        "locked": str(account.locked),
        "storage_usage": account.storage_usage,
        "contract": str(contract.kind),
        **({} if contract.code_hash is None else {"code_hash": str(contract.code_hash)}),
        **({} if contract.account_id is None else {"contract_account_id": contract.account_id}),
        "account_version": str(account.version),
    }


def _access_key(access_key: AccessKey) -> dict[str, Any]:
    limits, gas_key = access_key.function_call, access_key.gas_key
    decoded: dict[str, Any] = {"nonce": access_key.nonce, "permission": str(access_key.permission)}
    if limits is not None:
        decoded |= {
            "allowance": None if limits.allowance is None else str(limits.allowance),
            "receiver_id": limits.receiver_id,
            "method_names": list(limits.method_names),
        }
    return decoded if gas_key is None else decoded | {"balance": str(gas_key.balance), "num_nonces": gas_key.num_nonces}


def _plain(name: str, item: Any) -> str:
    if name in ("amount", "locked", "allowance", "balance"):
        return "unlimited" if item is None else f"{Decimal(item).scaleb(-_YOCTO_DIGITS).normalize():f} NEAR"
    return ", ".join(item) or "(all)" if isinstance(item, list) else str(item)


def _shown(value: bytes) -> str:
    text = value.decode("ascii", "replace")
    shown = text if text.isascii() and text.isprintable() else f"base64:{base64.b64encode(value[:_VALUE_SHOWN_MAX]).decode()}"
    return (
        f"{shown[:_VALUE_SHOWN_MAX]}{'…' if len(shown) > _VALUE_SHOWN_MAX or len(value) > _VALUE_SHOWN_MAX else ''} ({len(value):,} bytes)"
    )
