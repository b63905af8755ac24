"""Looks many records up in many published epochs: each part that can hold one of them is read once, verified, and searched for all.

Where the shard layout says which shard an account is in, its records are looked for there; where it is not known, or no trusted key
stands behind it, in every shard, so that absence is absence from the whole state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Final, TypeVar

from pipelines.proving.node_readers import NodesByHash
from pipelines.proving.published_state import PublishedState, part_of_key
from pipelines.proving.walk_proof import read_value, walk_to_key
from pipelines.proving.wanted_record import WantedRecord
from pipelines.stores.store import Store
from pipelines.trust.policy import TrustPolicy
from schemas.errors import EpochNotReadyError
from schemas.ids import ZERO_HASH, ShardUId
from schemas.nearcore.block import BlockHeader, decode_block_header
from schemas.nearcore.shard_layout import ShardLayout
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import StatementPart

CONNECTIONS: Final = 8
"""Parts that are read and verified at once where nothing else is said; each takes some three times its size of memory."""

Result = TypeVar("Result")

EPOCHS_AT_ONCE: Final = 4
"""Epochs whose statements are held at once."""

WANTED_MAX: Final = 1_000_000
"""Most records that are looked up; their answers of one epoch are held at once."""


@dataclass(frozen=True, slots=True)
class GetRequest:
    """What is looked up where, and whom to believe."""

    store: Store
    wanted: tuple[WantedRecord, ...]
    """Single keys of accounts, each once."""
    policy: TrustPolicy
    shard_layout: ShardLayout | None = None
    """The user's own; None to take each manifest's, where it has one."""
    kernel_name: str = "auto"
    connections: int = CONNECTIONS


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """What an epoch says of one wanted record."""

    shard_uid: ShardUId | None
    """Where it is, or should be; None where it is absent and was looked for in every shard."""
    value: bytes | None
    """None where it is absent."""


@dataclass(frozen=True, slots=True)
class EpochAnswer:
    """What an epoch says of all wanted records."""

    layout: EpochLayout
    block: BlockHeader | None
    """The block whose chunks commit to the state; None where the manifest has no block headers."""
    found: tuple[FoundRecord, ...]
    """In the order of the wanted ones."""
    signers: tuple[str, ...]
    """Pinned keys behind the manifest."""
    parts_read: int
    bytes_read: int


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """What looking the wanted records up in an epoch reads."""

    layout: EpochLayout
    parts: int
    size: int
    """Stored bytes of those."""


@dataclass(frozen=True, slots=True)
class _WantedPart:
    shard_uid: ShardUId
    part: StatementPart
    indices: tuple[int, ...]
    """Of the wanted records whose keys the part's interval has."""


def get_records(request: GetRequest, layouts: Sequence[EpochLayout]) -> Iterator[EpochAnswer]:
    """Look the wanted records up in some epochs.

    Yields:
        The epochs' answers, as they are done.
    Raises:
        EpochNotReadyError: an epoch, or a shard or part that is needed, is not published.
        ManifestError: a manifest or statement is not believed.
        ObjectMismatchError, IntegrityError: an object is not what was published, or a part is none of the state root.
        StoreError: the store can't be read.
    """
    stopped = Event()
    with _workers(request.connections, "part") as parts:
        yield from _each_epoch(layouts, lambda layout: _answer(request, layout, parts, stopped), stopped)


def plan_get(request: GetRequest, layouts: Sequence[EpochLayout]) -> Iterator[EpochPlan]:
    """Tell which parts would be read; reads manifests and statements alone.

    Raises:
        As `get_records`, but for what only parts show.
    """

    def plan(layout: EpochLayout) -> EpochPlan:
        state = PublishedState.open(request.store, layout, request.policy, request.kernel_name)
        parts = _wanted_parts(request, state)
        stored = [state.listed(wanted.shard_uid).part(wanted.part.part_id) for wanted in parts]
        return EpochPlan(layout, len(parts), sum(part.size for part in stored if part is not None))

    yield from _each_epoch(layouts, plan, Event())


@contextmanager
def _workers(count: int, name: str, stopped: Event | None = None) -> Iterator[ThreadPoolExecutor]:
    """Give threads; what waits is given up when the block ends early, and ``stopped`` tells those at work."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    finally:
        if stopped is not None:
            stopped.set()
        pool.shutdown(cancel_futures=True)


def _each_epoch(layouts: Sequence[EpochLayout], work: Callable[[EpochLayout], Result], stopped: Event) -> Iterator[Result]:
    """Yield results as they come. After a failure those that are begun still come, so that nothing is done in vain, and then the failure."""
    failure: BaseException | None = None
    with _workers(EPOCHS_AT_ONCE, "epoch", stopped) as pool:
        futures = [pool.submit(work, layout) for layout in layouts]
        for future in as_completed(futures):
            error = None if future.cancelled() else future.exception()
            if error is not None and failure is None:
                failure = error
                for other in futures:
                    other.cancel()
            elif error is None and not future.cancelled():
                yield future.result()
    if failure is not None:
        raise failure


def _answer(request: GetRequest, layout: EpochLayout, pool: ThreadPoolExecutor, stopped: Event) -> EpochAnswer:
    state = PublishedState.open(request.store, layout, request.policy, request.kernel_name)
    futures: dict[Future[list[bytes | None]], _WantedPart] = {}
    for wanted in _wanted_parts(request, state):
        futures[pool.submit(_search, request, state, wanted, stopped)] = wanted
    found = [FoundRecord(_shard_by_layout(request, state, record), None) for record in request.wanted]
    try:
        for future in as_completed(futures):
            wanted = futures[future]
            for index, value in zip(wanted.indices, future.result(), strict=True):
                if value is not None:
                    found[index] = FoundRecord(wanted.shard_uid, value)
    finally:
        for future in futures:
            future.cancel()
    signers = tuple(map(str, state.believed.signers))
    return EpochAnswer(layout, _committing_block(state), tuple(found), signers, len(state.parts_read), state.bytes_read)


def _search(request: GetRequest, state: PublishedState, wanted: _WantedPart, stopped: Event) -> list[bytes | None]:
    """Read one part and return the values of the records that it can hold."""
    if stopped.is_set():
        raise CancelledError
    nodes = NodesByHash(state.read_part(wanted.shard_uid, wanted.part), state.part_name(wanted.shard_uid, wanted.part.part_id))
    state_root, values = state.listed(wanted.shard_uid).state_root, []
    for index in wanted.indices:
        key = request.wanted[index].trie_key
        path = walk_to_key(nodes, state_root, key)
        values.append(None if path.value is None else read_value(nodes, key, path.value))
    return values


def _wanted_parts(request: GetRequest, state: PublishedState) -> list[_WantedPart]:
    """Return the parts that can hold wanted records, each once."""
    manifest = state.believed.manifest
    indices: dict[ShardUId, list[int]] = defaultdict(list)
    for index, record in enumerate(request.wanted):
        shard_uid = _shard_by_layout(request, state, record)
        for uid in [shard.shard_uid for shard in manifest.shards] if shard_uid is None else [shard_uid]:
            indices[uid].append(index)
        if shard_uid is None and manifest.missing_shard_ids:
            raise _not_published(state, f"shards {', '.join(map(str, manifest.missing_shard_ids))} are")
    parts: dict[tuple[ShardUId, int], tuple[StatementPart, list[int]]] = {}
    for uid, chosen in indices.items():
        if uid not in {shard.shard_uid for shard in manifest.shards}:
            raise _not_published(state, f"shard {uid} is")
        if state.listed(uid).state_root == ZERO_HASH:
            continue
        statement = state.shard(uid).statement
        for index in chosen:
            part = part_of_key(statement, request.wanted[index].trie_key)
            parts.setdefault((uid, part.part_id), (part, []))[1].append(index)
    return [_WantedPart(uid, part, tuple(chosen)) for (uid, _), (part, chosen) in parts.items()]


def _shard_by_layout(request: GetRequest, state: PublishedState, record: WantedRecord) -> ShardUId | None:
    """Return the shard that an account's records are in; None where no layout that counts says so."""
    policy, manifest = request.policy, state.believed.manifest
    # By a trusted block alone the state roots are true, and a layout need not be.
    believes_layout = policy.trusted_block is None or policy.keys is not None
    layout = request.shard_layout or (manifest.shard_layout if believes_layout else None)
    if layout is not None and record.account_id is not None:
        return layout.shard_uids[layout.shard_index_of(record.account_id)]
    has_one = len(manifest.shards) == 1 and not manifest.missing_shard_ids
    return manifest.shards[0].shard_uid if has_one else None


def _not_published(state: PublishedState, what: str) -> EpochNotReadyError:
    return EpochNotReadyError(
        problem=f"{what} not published of epoch {state.layout.epoch_height}", where=f"{state.store.url}/{state.layout.folder}"
    )


def _committing_block(state: PublishedState) -> BlockHeader | None:
    manifest = state.believed.manifest
    if not manifest.block_headers:
        return None
    where = f"{state.store.url}/{state.layout.manifest}"
    sync_block = decode_block_header(manifest.block_headers[0], where, manifest.sync_hash)
    return decode_block_header(manifest.block_headers[1], where, sync_block.prev_hash)
