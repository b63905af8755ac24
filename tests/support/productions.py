"""Small shards, built and published in this process, with other producers that come in between."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pipelines.dataset.dataset_header import VerifyStateHeader
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.flat_state_source import FoundStateHeader
from pipelines.producing.build.work_folder import work_folder_for
from pipelines.producing.build_shard import BuiltShard, build_planned, plan_shard
from pipelines.producing.publish.epoch_publisher import EpochPublisher, PublishedEpoch
from pipelines.producing.publish.key_file import load_signer
from pipelines.producing.publish.publish_part import PartPlace, PublishPartTask
from pipelines.producing.publish.shard_publisher import ProducedShard, PublishedShard
from pipelines.producing.publish.signing import Signer
from pipelines.stores.memory_store import OPENERS, MemoryStore
from pipelines.stores.store import Store
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_header import HeaderOrigin
from schemas.nearcore.state_part import Encoding
from schemas.published.object_layout import EpochLayout
from tests.support.faulty_store import Fault, FaultyStore, Schedule
from tests.support.list_source import context_of, list_source
from tests.support.published import signing_key
from tests.support.records import Pairs

PAIRS: Pairs = [(b"\x00" + f"account{number:03d}.near".encode(), bytes([number]) * (number * 50)) for number in range(120)]
"""Records of a small shard, some with values over the inlining limit."""


def small_shard(pairs: Pairs = PAIRS, num_parts: int = 3) -> BuiltShard:
    """Export and build a shard in memory."""
    runner = silent_runner()
    url = f"memory://{uuid.uuid4().hex}"
    (dataset,) = export_epoch(runner, list_source(pairs), context_of(None), ExportSettings(url))
    kernel = choose_kernel("auto")
    planned = plan_shard(runner, kernel, dataset, work_folder_for(url, dataset), num_parts)
    return build_planned(runner, kernel, planned, list_source(pairs))


def context(built: BuiltShard) -> EpochContext:
    """Return the epoch that a built shard alone makes up."""
    return context_of(built.state_root)


def publish_tasks(
    built: BuiltShard,
    store_url: str,
    encoding: Encoding = Encoding.V1,
    zstd_level: int = 1,
    *,
    of_epoch: EpochContext | None = None,
    shard_id: int = 0,
) -> list[PublishPartTask]:
    """Return the tasks that publish a shard's parts, as parts of the epoch that it alone makes up or of another one."""
    layout = EpochLayout.of(of_epoch or context(built))
    return [
        PublishPartTask(
            work=built.planned.work,
            plan=plan,
            state_root=built.state_root,
            place=PartPlace(store_url, layout.state_part(shard_id, plan.part_id)),
            encoding=encoding,
            zstd_level=zstd_level,
            kernel_name="auto",
            piece_length=built.planned.piece_length,
        )
        for plan in built.planned.plans
    ]


def fitting_header(built: BuiltShard, begin: bytes = b"header") -> bytes:
    """Return bytes that end as a state header of this shard does."""
    return begin + len(built.root_node).to_bytes(4, "little") + built.root_node + built.planned.memory_usage.to_bytes(8, "little")


def header_of(data: bytes | None) -> FoundStateHeader:
    """Return these bytes as a verified state header; None as none."""
    return FoundStateHeader(data, None if data is None else HeaderOrigin.COPIED, is_verified=data is not None)


def signer(name: str = "first") -> Signer:
    """Return a producer's key."""
    return load_signer(signing_key(name))


@dataclass(frozen=True, slots=True)
class Producer:
    """One producer of a built shard."""

    built: BuiltShard
    publisher: EpochPublisher
    state_header: bytes | None = None
    verify_header: VerifyStateHeader | None = None

    def produced(self) -> ProducedShard:
        """Publish the parts and return the shard."""
        parts = tuple(task.run() for task in publish_tasks(self.built, self.publisher.store_url))
        return ProducedShard(self.built.state, parts, header_of(self.state_header), self.verify_header)

    def put_shard(self) -> PublishedShard:
        """Publish the parts and what is around them."""
        return self.publisher.put_shard(context(self.built), self.produced())

    def publish(self) -> PublishedEpoch:
        """Publish everything."""
        return self.publisher.finish(context(self.built), [self.put_shard()], [0])


def producer(built: BuiltShard, store_url: str, key: str | None = "first", state_header: bytes | None = None) -> Producer:
    """Return a producer with a key of its own, or unsigned."""
    return Producer(built, EpochPublisher(store_url, None if key is None else signer(key), Encoding.V1, 1), state_header)


def new_store_url() -> str:
    """Return the URL of an empty store in memory."""
    return f"memory://{uuid.uuid4().hex}"


def inject(patch: pytest.MonkeyPatch, store_url: str, schedule: Schedule) -> list[FaultyStore]:
    """Put a schedule of faults before a store in memory, wherever this process opens it; return the store, once it was opened.

    The actors that the schedule itself runs see the store without faults.
    """
    opened: list[FaultyStore] = []
    scheduling: list[bool] = []

    def schedule_once(method: str, name: str, number: int) -> Fault | None:
        scheduling.append(True)
        try:
            return schedule(method, name, number)
        finally:
            scheduling.pop()

    def open_faulty(name: str) -> Store:
        inner = MemoryStore(name)
        if scheduling:
            return inner
        if not opened:
            opened.append(FaultyStore(inner, schedule_once))
        return opened[0]

    patch.setitem(OPENERS, store_url.removeprefix("memory://"), open_faulty)
    return opened


def meanwhile(method: str, name: str, other: Callable[[], object], times: int = 1) -> Schedule:
    """Run another actor right before a call of a method on an object whose name holds ``name``."""
    left = [times]

    def act(called: str, called_name: str, _number: int) -> None:
        if called == method and name in called_name and left[0]:
            left[0] -= 1
            other()

    return act
