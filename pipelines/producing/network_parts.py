"""An epoch out of nearcore's own network: other nodes' headers and parts, each verified before it is kept, published like any.

Parts are cut by nearcore as they are published, so no records are collected: what validates against the trusted state root is the part, and
what it decodes to is encoded again here, so that the bytes are those of every producer. Peers are asked by this process alone: their
limits leave nothing for more machines, and every connection takes a place among a node's peers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.part_check import PartDigests
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FoundStateHeader
from pipelines.nearpeer.state_answer import decode_answered_part
from pipelines.nearpeer.state_hosts import StateHosts
from pipelines.producing.build.build_part import count_kinds
from pipelines.producing.build.plan_parts import PartInterval, decide_num_parts
from pipelines.producing.build.shard_state import Kinds, ShardState, add_kinds
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.publish.publish_part import PartPlace, PublishedPart
from pipelines.producing.publish.shard_publisher import ProducedShard
from schemas.errors import FetchError, IntegrityError, InvalidInputError, SourceError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.peer.state_response import StateResponse
from schemas.nearcore.state_header import STORED_HEADER_FORM, HeaderOrigin, StateHeader, prove_state_root
from schemas.nearcore.state_part import Encoding, decode_state_part, encode_state_part
from schemas.published.torrent import PartPieces

TAKE_TASK_MEMORY_BYTES: Final = 600 << 20
"""Most memory of one part that is taken: as it came, decoded, its records, encoded, and what is read back."""

VerifyHeader = Callable[[bytes, CryptoHash, int], object]
"""Verifies all of a header of a sync hash and a shard id; raises InvalidInputError, SourceError or IntegrityError."""


@dataclass(frozen=True, slots=True)
class TakenHeader:
    """A shard's state header as peers gave it; its state root is that of the context."""

    proven: StateHeader
    found: FoundStateHeader
    """What may be published of it."""


@dataclass(frozen=True, slots=True)
class NetworkParts:
    """Peers, and what judges the headers that they give."""

    hosts: StateHosts
    verify_header: VerifyHeader

    def describe(self) -> str:
        """Return what is read, in one line for people."""
        return f"{self.hosts.count} peer{'s' * (self.hosts.count != 1)} of nearcore's network"

    def header(self, context: EpochContext, shard: ShardContext) -> TakenHeader:
        """Return a shard's header, of which chunk, state root and root node are proved from the sync hash.

        It may be published if all of it verifies. A host whose header does not, in what proves no state root, may be right where the
        endpoint is wrong: another is asked, and this one's parts are taken.

        Raises:
            FetchError: no peer gives a header that proves the state root.
        """
        tried: set[str] = set()
        first: TakenHeader | None = None
        while True:
            try:
                url, taken = self.hosts.get(
                    (shard.shard_id, context.sync_hash, None), lambda response, _: self._judge(context, shard, response), frozenset(tried)
                )
            except FetchError:
                if first is None:
                    raise
                return first
            tried.add(url)
            first = first or taken
            if taken.found.data is not None:
                return taken

    def _judge(self, context: EpochContext, shard: ShardContext, response: StateResponse) -> TakenHeader:
        where = f"state header of shard {shard.shard_id}"
        if response.header is None:
            raise IntegrityError(problem="no header came", where=where)
        data = STORED_HEADER_FORM + bytes(response.header)
        proven = prove_state_root(data, context.sync_hash, context.block_headers, where)
        if proven.chunk.shard_id != shard.shard_id or proven.state_root != shard.state_root:
            raise IntegrityError(problem=f"it is of shard {proven.chunk.shard_id}, state root {proven.state_root}", where=where)
        try:
            self.verify_header(data, context.sync_hash, shard.shard_id)
        except (IntegrityError, SourceError, InvalidInputError) as error:
            return TakenHeader(proven, FoundStateHeader(None, reason=f"the peers' can't be verified: {error.problem}"))
        return TakenHeader(proven, FoundStateHeader(data, HeaderOrigin.COPIED, is_verified=True))


@dataclass(frozen=True, slots=True)
class PartContent:
    """What a part that validated holds."""

    digests: PartDigests
    pieces: PartPieces
    first_key: bytes | None
    """Of its records; None for a part without records."""
    kinds: Kinds

    @property
    def records(self) -> int:
        """Records of all kinds."""
        return sum(count for _, count, _ in self.kinds)


@dataclass(frozen=True, slots=True)
class TakePartTask:
    """Takes one part from the peers, where nothing right is in the store already. Runs in this process: it holds the peers."""

    hosts: StateHosts
    place: PartPlace
    piece_length: int
    sync_hash: CryptoHash
    shard_id: int
    part_id: PartId
    state_root: CryptoHash
    encoding: Encoding
    zstd_level: int
    kernel_name: str

    def run(self) -> tuple[PartContent, bool]:
        """Take the part; return what is in it, and whether it was in the store already.

        Raises:
            FetchError: no peer gives it.
            ObjectMismatchError, StoreError: as `PartPlace.put`.
        """
        kernel = choose_kernel(self.kernel_name)

        def judge(response: StateResponse, where: str) -> tuple[bytes, PartContent]:
            decoded = decode_answered_part(response, where)
            # Judged before it is encoded: what is wrong is its sender's fault.
            decoded_sha256 = kernel.validate_sorted(decoded, self.state_root, self.part_id)
            data = encode_state_part(decoded, self.encoding, self.zstd_level)
            return data, self._content(kernel, data, decoded, decoded_sha256)

        def judge_stored(data: bytes) -> PartContent:
            decoded = decode_state_part(data, self.encoding)
            return self._content(kernel, data, decoded, kernel.validate_sorted(decoded, self.state_root, self.part_id))

        question = (self.shard_id, self.sync_hash, self.part_id.idx)
        return self.place.put(lambda: self.hosts.get(question, judge)[1], judge_stored)

    def _content(self, kernel: Kernel, data: bytes, decoded: pa.Buffer, decoded_sha256: bytes) -> PartContent:
        stored_sha256, pieces = kernel.digest_object(data, self.piece_length)
        records = kernel.apply(decoded, self.state_root, self.part_id).records
        first_key = next((batch.column(0)[0].as_py() for batch in records if batch.num_rows), None)
        digests = PartDigests(len(data), stored_sha256.hex(), decoded.size, decoded_sha256.hex())
        return PartContent(digests, pieces, first_key, count_kinds(records))


@dataclass(frozen=True, slots=True)
class NetworkProduction:
    """Takes an epoch's shards from peers."""

    runner: StageRunner
    """Its executor runs tasks in this process."""
    kernel: Kernel
    network: NetworkParts
    publisher: EpochPublisher
    context: EpochContext
    """With all state roots, and the headers of the sync block and its parent."""
    num_parts: int | None = None
    """None for as many as nearcore makes, which is what its nodes give."""

    def take(self, shard: ShardContext) -> ProducedShard:
        """Take a shard's header and all its parts, and store the parts.

        Raises:
            FetchError: no peer gives the header or a part; parts that were stored stay, and a rerun takes the others.
            ManifestError, InvalidInputError, StoreError: passed on.
        """
        context = self.context
        assert shard.state_root is not None, "the context is of a chain"
        header = self.network.header(context, shard)
        state = ShardState(
            shard_uid=shard.shard_uid,
            state_root=shard.state_root,
            root_node=header.proven.root_node,
            memory_usage=header.proven.memory_usage,
            num_parts=decide_num_parts(header.proven.memory_usage, self.num_parts),
            root_was_known=True,
            kinds=(),
        )
        self.publisher.refuse_other_shard(context, shard.shard_uid, shard.state_root, state.num_parts)
        tasks = [self._task(shard, state, PartId(idx, state.num_parts)) for idx in range(state.num_parts)]
        taken = self.runner.run(
            "take",
            str(shard.shard_uid),
            tasks,
            TaskNeeds(TAKE_TASK_MEMORY_BYTES),
            lambda taken: Amount(taken[0].records, taken[0].digests.stored_size, 1),
        )
        kinds = add_kinds(content.kinds for content, _ in taken)

        def verify(data: bytes) -> None:
            self.network.verify_header(data, context.sync_hash, shard.shard_id)

        return ProducedShard(replace(state, kinds=kinds), _with_intervals(taken), header.found, verify)

    def _task(self, shard: ShardContext, state: ShardState, part_id: PartId) -> TakePartTask:
        publisher = self.publisher
        return TakePartTask(
            hosts=self.network.hosts,
            place=publisher.part_place(self.context, shard.shard_id, part_id),
            piece_length=state.piece_length,
            sync_hash=self.context.sync_hash,
            shard_id=shard.shard_id,
            part_id=part_id,
            state_root=state.state_root,
            encoding=publisher.encoding,
            zstd_level=publisher.zstd_level,
            kernel_name=self.kernel.name,
        )


def _with_intervals(taken: Sequence[tuple[PartContent, bool]]) -> tuple[PublishedPart, ...]:
    """Say which keys the parts hold: each begins at its first key, one without records where the next begins, the first at the empty key."""
    parts: list[PublishedPart] = []
    end: bytes | None = None
    for idx, (content, reused) in reversed(list(enumerate(taken))):
        begin = end if content.first_key is None else content.first_key
        assert begin is not None or idx == 0, "the last part has the shard's last record"
        interval = PartInterval(PartId(idx, len(taken)), (begin if idx else b"") or b"", end)
        parts.append(PublishedPart(interval, content.records, content.digests, content.pieces, reused))
        end = begin
    return tuple(reversed(parts))
