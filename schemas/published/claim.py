"""The claim of an epoch: who is producing which of its shards, and until when that is to be believed.

A claim saves work and nothing else: two producers of one epoch publish the same bytes, and the manifest is decided by the store. It is
neither signed nor secret. One object holds a lease for each producer, so that nodes that track different shards work side by side.

No I/O, no clock: `pipelines.bucket.epoch_claim` makes, renews and takes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schemas.json_document import FieldReader, decode_json, encode_json
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.published.object_layout import EpochLayout

CLAIM_BYTES_MAX: Final = 1 << 18
"""Largest claim that is read."""

LEASES_MAX: Final = 256
"""Most producers of one epoch."""

LEASE_SHARDS_MAX: Final = 4096
"""Most shards of one lease."""

LEASE_TTL_S_MAX: Final = 3600
"""Longest time that a lease is given for without being renewed: what can't be read is left alone for as long."""

_FORMAT = "urn:statecast:claim:v1"
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_TIME_PATTERN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@dataclass(frozen=True, slots=True)
class Holder:
    """A run of a producer."""

    host: str
    """The machine's name, for people."""
    pid: int
    run_id: str
    """32 hexadecimal digits, drawn again by each run: what tells two runs apart."""
    machine: str = ""
    """Digest of the boot and the process namespace that ``pid`` is of; empty where the system does not tell."""
    started: int = 0
    """When the process began, in the system's own ticks since the boot; with ``pid`` it names a process once and for all."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (run {self.run_id[:8]})"

    def to_json(self) -> dict[str, Any]:
        """Return the holder as JSON values."""
        return {"host": self.host, "pid": self.pid, "run_id": self.run_id, "machine": self.machine, "started": self.started}


@dataclass(frozen=True, slots=True)
class ProducerLease:
    """One producer's share of a claim."""

    holder: Holder
    shard_ids: tuple[int, ...]
    acquired: datetime
    renewed: datetime
    ttl_s: float
    """How long it counts without being renewed, in whole milliseconds."""

    @property
    def expires(self) -> datetime:
        """From when on it no longer counts, by the holder's clock."""
        return self.renewed + timedelta(seconds=self.ttl_s)

    def overlaps(self, shard_ids: Sequence[int]) -> bool:
        """Whether it is for one of these shards."""
        return not set(self.shard_ids).isdisjoint(shard_ids)

    def to_json(self) -> dict[str, Any]:
        """Return the lease as JSON values."""
        return {
            "holder": self.holder.to_json(),
            "shard_ids": list(self.shard_ids),
            "acquired": format_time(self.acquired),
            "renewed": format_time(self.renewed),
            "expires": format_time(self.expires),
            "ttl_ms": round(self.ttl_s * 1000),
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """What ``claim.json`` says."""

    layout: EpochLayout
    leases: tuple[ProducerLease, ...]

    def to_bytes(self) -> bytes:
        """Return the wire form, canonical JSON."""
        return encode_json(
            {
                "format": _FORMAT,
                "chain_id": self.layout.chain_id,
                "epoch_height": self.layout.epoch_height,
                "epoch_id": str(self.layout.epoch_id),
                "leases": [lease.to_json() for lease in self.leases],
            }
        )

    @classmethod
    def parse(cls, data: bytes, where: str) -> Claim:
        """Parse the wire form; unknown fields are ignored.

        Raises:
            ManifestError: not a claim.
        """
        reader = FieldReader(decode_json(data, JsonLimits(CLAIM_BYTES_MAX), where), where)
        reader.literal("format", _FORMAT)
        layout = EpochLayout(
            reader.text("chain_id", 64, CHAIN_ID_PATTERN), reader.number("epoch_height", 0, 2**64 - 1), reader.hash("epoch_id")
        )
        return cls(layout, tuple(_read_lease(lease) for lease in reader.inners("leases", LEASES_MAX)))


def _read_lease(reader: FieldReader) -> ProducerLease:
    shard_ids = reader.listed("shard_ids", LEASE_SHARDS_MAX)
    if any(isinstance(shard_id, bool) or not isinstance(shard_id, int) for shard_id in shard_ids):
        reader.fail("field shard_ids must be a list of numbers")
    holder = reader.inner("holder")
    lease = ProducerLease(
        holder=Holder(
            host=holder.text("host", 255),
            pid=holder.number("pid", 0, 2**63 - 1),
            run_id=holder.text("run_id", 32, r"[0-9a-f]{32}"),
            machine=holder.text("machine", 64, r"[0-9a-f]*"),
            started=holder.number("started", 0, 2**63 - 1),
        ),
        shard_ids=tuple(shard_ids),
        acquired=_read_time(reader, "acquired"),
        renewed=_read_time(reader, "renewed"),
        ttl_s=reader.number("ttl_ms", 1, LEASE_TTL_S_MAX * 1000) / 1000,
    )
    if reader.text("expires", 24, _TIME_PATTERN) != format_time(lease.expires):
        reader.fail("field expires must be ttl_ms after renewed")
    return lease


def format_time(moment: datetime) -> str:
    """Return a UTC time with milliseconds, as claims have it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _read_time(reader: FieldReader, name: str) -> datetime:
    text = reader.text(name, 24, _TIME_PATTERN)
    try:
        moment = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        reader.fail(f"field {name} is no time")
    if moment.year == datetime.max.year:
        # Nothing could be reckoned after it.
        reader.fail(f"field {name} is no time of a claim")
    return moment
