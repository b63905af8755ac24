"""Many records out of many published epochs at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from os import PathLike, fspath

import pyarrow as pa

from pipelines.bucket.locate_epoch import locate_epoch
from pipelines.proving.answer_table import AnswerKind, answer_schema, answer_table
from pipelines.proving.find_published import find_published, missing_epochs
from pipelines.proving.get_records import CONNECTIONS, GetRequest, get_records
from pipelines.proving.wanted_file import unrepeated, wanted_of_kind
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError
from statecast.trust import Trust


def get(
    url: str | PathLike[str],
    *,
    trust: Trust,
    accounts: Sequence[str] = (),
    access_keys: Sequence[tuple[str, str]] = (),
    contract_keys: Sequence[tuple[str, str]] = (),
    epochs: Collection[int] | None = None,
    connections: int = CONNECTIONS,
) -> pa.Table:
    """Look accounts, access keys or contract entries up in published epochs: each part that is needed is read once and verified.

    Args:
        url: of a bucket or a folder that holds one chain's epochs, or of a chain in it (``…/chain_id=…``).
        accounts: account ids.
        access_keys: account ids, each with a public key (``ed25519:…``).
        contract_keys: account ids, each with a key of its contract's storage: a text, ``hex:…`` or ``base64:…``.
        epochs: heights; None for the latest epoch.
        connections: most parts at once.
    Returns:
        A row an epoch and record, ascending by epoch, then in the order asked for: epoch, block, shard, what was asked for, ``exists``, and
        the columns that the decoded tables have of such a record.
    Raises:
        InvalidInputError: not one of the three lists is given, or an entry of it has another form.
        EpochNotReadyError: an epoch is not published; it is named, with those that are.
        ManifestError: a manifest or statement is not believed.
        IntegrityError, ObjectMismatchError: a part is not what was published, or is none of the state root.
        StoreError: the store can't be read.
    """
    given: dict[AnswerKind, Sequence[tuple[str, str | None]]] = {
        AnswerKind.ACCOUNT: [(name, None) for name in accounts],
        AnswerKind.ACCESS_KEY: access_keys,
        AnswerKind.CONTRACT_DATA: contract_keys,
    }
    kinds = [kind for kind, entries in given.items() if entries]
    if len(kinds) != 1:
        raise InvalidInputError(problem="one of accounts, access_keys and contract_keys must be given")
    (kind,) = kinds
    wanted = unrepeated([wanted_of_kind(kind, account_id, key) for account_id, key in given[kind]])
    root, newest = locate_epoch(fspath(url))
    store = open_store(root)
    layouts, missing = ([newest], []) if epochs is None else find_published(store, newest.chain_id, epochs)
    if missing:
        raise missing_epochs(store, newest.chain_id, missing)
    request = GetRequest(store, wanted, trust.policy(), connections=connections)
    answers = {answer.layout: answer_table(answer, wanted, kind) for answer in get_records(request, layouts)}
    return pa.concat_tables([answer_schema(kind).empty_table(), *(answers[layout] for layout in layouts)])
