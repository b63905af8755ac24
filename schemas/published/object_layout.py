"""Every object name, made and parsed in one place.

The names of state parts and state headers are nearcore's. A node counts whatever lies in a shard's folder as parts, so everything
that nearcore does not know lies at the level of the epoch or above::

    chain_id=C/latest.json                                             pointer to the newest complete epoch
    chain_id=C/catalogue.json                                          what is known of every epoch
    chain_id=C/epoch_height=H/epoch_id=E/
        shard_id=S/state_part_000000_of_000004                         nearcore's; nothing else in this folder
        headers/shard_id=S/header                                      nearcore's
        statements/shard_id=S.json                                     DSSE envelope of a shard statement
        statements/tables.json                                         DSSE envelope of the tables statement
        evidence/shard_id=S/SHA256.json                                a shard statement that contradicts another one
        torrents/shard_id=S.torrent
        deltas/base_epoch_id=B/statements/shard_id=S.json              DSSE envelope of a delta statement: what changed since epoch B
        deltas/base_epoch_id=B/shard_id=S/delta_000000.arrow           the changed records of some keys
        manifest.json                                                  DSSE envelope of the newest manifest
        manifests/000001.json                                          every revision of the manifest, never changed
        claim.json                                                     who is producing this epoch
        leases/ID.json                                                 a reader of this epoch
        scrub.json                                                     how far the scrubs of this epoch are

Source: nearcore chain/client/src/sync/external.rs, location_prefix, part_filename. Names are relative to the store's folder. No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN, EpochContext
from schemas.nearcore.epoch_folder import epoch_folder

NUM_PARTS_MAX = 999_999
"""nearcore's part names have six digits, and its reader takes exactly six."""

REVISION_MAX = 999_999
"""Most revisions of an epoch's manifest."""

DELTA_OBJECTS_MAX = 100_000
"""Most objects of a delta; their names have six digits."""

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_LEASE_ID = re.compile(r"[0-9a-f]{32}")


class ObjectKind(Enum):
    """What an object is, by its name."""

    LATEST = "latest"
    CATALOGUE = "catalogue"
    STATE_PART = "state_part"
    STATE_HEADER = "state_header"
    SHARD_STATEMENT = "shard_statement"
    TABLES_STATEMENT = "tables_statement"
    EVIDENCE = "evidence"
    TORRENT = "torrent"
    DELTA_STATEMENT = "delta_statement"
    DELTA = "delta"
    MANIFEST = "manifest"
    MANIFEST_REVISION = "manifest_revision"
    CLAIM = "claim"
    LEASE = "lease"
    SCRUB = "scrub"


@dataclass(frozen=True, slots=True)
class EpochLayout:
    """The names of one epoch's objects."""

    chain_id: str
    epoch_height: int
    epoch_id: CryptoHash

    def __post_init__(self) -> None:
        _check_chain_id(self.chain_id)
        if not 0 <= self.epoch_height < 2**64:
            raise InvalidInputError(problem="an epoch height is an unsigned 64-bit number", where=str(self.epoch_height))

    @classmethod
    def of(cls, context: EpochContext) -> EpochLayout:
        """Return the layout of a context's epoch."""
        return cls(context.chain_id, context.epoch_height, context.epoch_id)

    @property
    def folder(self) -> str:
        """The epoch's folder, without a trailing slash."""
        return epoch_folder(self.chain_id, self.epoch_height, self.epoch_id)

    @property
    def manifest(self) -> str:
        """The newest manifest."""
        return f"{self.folder}/manifest.json"

    @property
    def claim(self) -> str:
        """The claim of the producer at work."""
        return f"{self.folder}/claim.json"

    @property
    def scrub(self) -> str:
        """How far the scrubs of the epoch are."""
        return f"{self.folder}/scrub.json"

    @property
    def leases_folder(self) -> str:
        """The folder of all leases."""
        return f"{self.folder}/leases"

    def lease(self, lease_id: str) -> str:
        """The lease of a reader.

        Raises:
            InvalidInputError: not 32 lowercase hexadecimal digits.
        """
        if _LEASE_ID.fullmatch(lease_id) is None:
            raise InvalidInputError(problem="a lease id has 32 lowercase hexadecimal digits", where=lease_id[:80])
        return f"{self.leases_folder}/{lease_id}.json"

    def shard_folder(self, shard_id: int) -> str:
        """The folder that holds a shard's parts and nothing else."""
        return f"{self.folder}/{shard_folder_name(shard_id)}"

    def state_part(self, shard_id: int, part_id: PartId) -> str:
        """A state part."""
        return f"{self.shard_folder(shard_id)}/{part_file_name(part_id)}"

    def state_header(self, shard_id: int) -> str:
        """A shard's state header."""
        return f"{self.folder}/headers/{shard_folder_name(shard_id)}/header"

    def shard_statement(self, shard_id: int) -> str:
        """A shard's statement."""
        return f"{self.folder}/statements/{shard_folder_name(shard_id)}.json"

    @property
    def tables_statement(self) -> str:
        """The statement of the epoch's decoded tables."""
        return f"{self.folder}/statements/tables.json"

    def evidence(self, shard_id: int, payload_sha256: bytes) -> str:
        """A shard statement that contradicts another one, named by its payload's digest."""
        return f"{self.folder}/evidence/{shard_folder_name(shard_id)}/{payload_sha256.hex()}.json"

    def torrent(self, shard_id: int) -> str:
        """A shard's torrent file."""
        return f"{self.folder}/torrents/{shard_folder_name(shard_id)}.torrent"

    def delta_statement(self, base_epoch_id: CryptoHash, shard_id: int) -> str:
        """The statement of what changed in a shard since another epoch."""
        return f"{self.folder}/{_delta_folder(base_epoch_id)}/statements/{shard_folder_name(shard_id)}.json"

    def delta(self, base_epoch_id: CryptoHash, shard_id: int, index: int) -> str:
        """One object of what changed in a shard since another epoch, from 0.

        Raises:
            InvalidInputError: no such object can be.
        """
        return f"{self.folder}/{delta_object_name(base_epoch_id, shard_id, index)}"

    def manifest_revision(self, revision: int) -> str:
        """One revision of the manifest, from 1.

        Raises:
            InvalidInputError: not a revision.
        """
        if not 1 <= revision <= REVISION_MAX:
            raise InvalidInputError(problem=f"a revision lies between 1 and {REVISION_MAX}", where=str(revision))
        return f"{self.folder}/manifests/{revision:06d}.json"


@dataclass(frozen=True, slots=True)
class ObjectName:
    """A name taken apart. What does not belong to the kind is None."""

    kind: ObjectKind
    chain_id: str
    epoch: EpochLayout | None = None
    shard_id: int | None = None
    part_id: PartId | None = None
    revision: int | None = None
    payload_sha256: bytes | None = None
    lease_id: str | None = None
    base_epoch_id: CryptoHash | None = None
    """Of a delta and its statement: the epoch that it leads from."""
    delta_index: int | None = None


def chain_folder(chain_id: str) -> str:
    """The folder of a chain."""
    return f"chain_id={chain_id}"


PROBE_FOLDER = "statecast-probe"
"""Folder of what is put into a store only to try it."""


def probe_name(probe_id: str) -> str:
    """An object that is put to try a store: below a folder ``leases``, for that is what a producer may delete anywhere in its bucket.

    Args:
        probe_id: 32 lowercase hexadecimal digits.
    """
    return f"{PROBE_FOLDER}/leases/{probe_id}"


def latest_name(chain_id: str) -> str:
    """The pointer to the newest complete epoch of a chain."""
    return f"{chain_folder(_check_chain_id(chain_id))}/latest.json"


def catalogue_name(chain_id: str) -> str:
    """The catalogue of a chain's epochs."""
    return f"{chain_folder(_check_chain_id(chain_id))}/catalogue.json"


def shard_folder_name(shard_id: int) -> str:
    """The last level of a shard's folder, and the name inside its torrent."""
    assert shard_id >= 0, shard_id
    return f"shard_id={shard_id}"


def delta_object_name(base_epoch_id: CryptoHash, shard_id: int, index: int) -> str:
    """The name of a delta's object, relative to the epoch's folder.

    Raises:
        InvalidInputError: no such object can be.
    """
    if not 0 <= index < DELTA_OBJECTS_MAX:
        raise InvalidInputError(problem=f"a delta has at most {DELTA_OBJECTS_MAX} objects", where=str(index))
    return f"{_delta_folder(base_epoch_id)}/{shard_folder_name(shard_id)}/delta_{index:06d}.arrow"


def part_file_name(part_id: PartId) -> str:
    """The last level of a part's name.

    Raises:
        InvalidInputError: more parts than nearcore's names can tell.
    Source: nearcore chain/client/src/sync/external.rs, part_filename.
    """
    if part_id.total > NUM_PARTS_MAX:
        raise InvalidInputError(problem=f"a shard has at most {NUM_PARTS_MAX} parts", where=str(part_id))
    return f"state_part_{part_id.idx:06d}_of_{part_id.total:06d}"


def parse_object_name(name: str) -> ObjectName | None:
    """Take a name apart; None when it is not of this layout, or not exactly as this module writes it."""
    match = _CHAIN.fullmatch(name)
    if match is None:
        return None
    chain_id, rest = match["chain_id"], match["rest"]
    if rest in ("latest.json", "catalogue.json"):
        return ObjectName(ObjectKind(rest.removesuffix(".json")), chain_id)
    match = _EPOCH.fullmatch(rest)
    if match is None:
        return None
    try:
        epoch = EpochLayout(chain_id, int(match["epoch_height"]), CryptoHash.from_base58(match["epoch_id"]))
        found = _parse_in_epoch(epoch, match["rest"])
        # Only the spelling that is written counts: no leading zeros, no other base58 of the same hash.
        return found if found is not None and _made_again(found) == name else None
    except InvalidInputError:
        return None


def parse_epoch_folder(folder: str) -> EpochLayout | None:
    """Take an epoch's folder apart; None when it is none."""
    found = parse_object_name(f"{folder.rstrip('/')}/manifest.json")
    return found.epoch if found is not None and found.kind is ObjectKind.MANIFEST else None


def without_manifest_name(url: str) -> str:
    """Return the URL of the folder that a manifest's URL is in; every other URL as it is."""
    folder = url.rstrip("/").removesuffix("/manifest.json")
    return folder if folder and folder != url.rstrip("/") else url


def split_chain_url(url: str) -> tuple[str, str]:
    """Cut a URL or a path into the store's or dataset's, and what it names in there: ``chain_id=…`` and what follows; empty where nothing.

    The last folder of such a name counts, and only where the URL ends there or goes on into an epoch's folder: a store may itself lie
    below a folder of that name. No slash is left at the end of either.
    """
    cleaned = url.rstrip("/") or url[:1]
    match = _IN_STORE.fullmatch(cleaned)
    if match is None:
        return (url if cleaned.endswith(":") else cleaned), ""
    head = match["head"]
    root = head.rstrip("/") or head[:1] or "."
    return (head if root.endswith(":") else root), match["tail"]


_IN_STORE = re.compile(r"(?P<head>(?:.*/)?)(?P<tail>chain_id=[^/]*(?:/(?:epoch_height=|latest\.json|catalogue\.json).*)?)", re.DOTALL)
_CHAIN = re.compile(rf"chain_id=(?P<chain_id>{CHAIN_ID_PATTERN})/(?P<rest>.+)")
_EPOCH = re.compile(r"epoch_height=(?P<epoch_height>\d{1,20})/epoch_id=(?P<epoch_id>[^/]{1,44})/(?P<rest>.+)")
_SHARD = r"shard_id=(?P<shard_id>\d{1,20})"
_DELTA = r"deltas/base_epoch_id=(?P<base_epoch_id>[^/]{1,44})"
_IN_EPOCH: tuple[tuple[ObjectKind, re.Pattern[str]], ...] = (
    (ObjectKind.STATE_PART, re.compile(_SHARD + r"/state_part_(?P<part_id>\d{6})_of_(?P<num_parts>\d{6})")),
    (ObjectKind.STATE_HEADER, re.compile(rf"headers/{_SHARD}/header")),
    (ObjectKind.SHARD_STATEMENT, re.compile(rf"statements/{_SHARD}\.json")),
    (ObjectKind.TABLES_STATEMENT, re.compile(r"statements/tables\.json")),
    (ObjectKind.EVIDENCE, re.compile(rf"evidence/{_SHARD}/(?P<sha256>{_SHA256_HEX.pattern})\.json")),
    (ObjectKind.TORRENT, re.compile(rf"torrents/{_SHARD}\.torrent")),
    (ObjectKind.DELTA_STATEMENT, re.compile(rf"{_DELTA}/statements/{_SHARD}\.json")),
    (ObjectKind.DELTA, re.compile(rf"{_DELTA}/{_SHARD}/delta_(?P<delta_index>\d{{6}})\.arrow")),
    (ObjectKind.MANIFEST, re.compile(r"manifest\.json")),
    (ObjectKind.MANIFEST_REVISION, re.compile(r"manifests/(?P<revision>\d{6})\.json")),
    (ObjectKind.CLAIM, re.compile(r"claim\.json")),
    (ObjectKind.LEASE, re.compile(rf"leases/(?P<lease_id>{_LEASE_ID.pattern})\.json")),
    (ObjectKind.SCRUB, re.compile(r"scrub\.json")),
)


def _parse_in_epoch(epoch: EpochLayout, rest: str) -> ObjectName | None:
    for kind, pattern in _IN_EPOCH:
        match = pattern.fullmatch(rest)
        if match is not None:
            found = match.groupdict()
            return ObjectName(
                kind,
                epoch.chain_id,
                epoch,
                shard_id=int(found["shard_id"]) if "shard_id" in found else None,
                part_id=PartId(int(found["part_id"]), int(found["num_parts"])) if "part_id" in found else None,
                revision=int(found["revision"]) if "revision" in found else None,
                payload_sha256=bytes.fromhex(found["sha256"]) if "sha256" in found else None,
                lease_id=found.get("lease_id"),
                base_epoch_id=CryptoHash.from_base58(found["base_epoch_id"]) if "base_epoch_id" in found else None,
                delta_index=int(found["delta_index"]) if "delta_index" in found else None,
            )
    return None


def _made_again(found: ObjectName) -> str:
    """Return the name that this module makes of its parts."""
    assert found.epoch is not None
    epoch, shard_id = found.epoch, found.shard_id if found.shard_id is not None else 0
    match found.kind:
        case ObjectKind.STATE_PART:
            assert found.part_id is not None
            return epoch.state_part(shard_id, found.part_id)
        case ObjectKind.STATE_HEADER:
            return epoch.state_header(shard_id)
        case ObjectKind.SHARD_STATEMENT:
            return epoch.shard_statement(shard_id)
        case ObjectKind.TABLES_STATEMENT:
            return epoch.tables_statement
        case ObjectKind.EVIDENCE:
            assert found.payload_sha256 is not None
            return epoch.evidence(shard_id, found.payload_sha256)
        case ObjectKind.TORRENT:
            return epoch.torrent(shard_id)
        case ObjectKind.DELTA_STATEMENT:
            assert found.base_epoch_id is not None
            return epoch.delta_statement(found.base_epoch_id, shard_id)
        case ObjectKind.DELTA:
            assert found.base_epoch_id is not None
            assert found.delta_index is not None
            return epoch.delta(found.base_epoch_id, shard_id, found.delta_index)
        case ObjectKind.MANIFEST_REVISION:
            assert found.revision is not None
            return epoch.manifest_revision(found.revision)
        case ObjectKind.CLAIM:
            return epoch.claim
        case ObjectKind.LEASE:
            assert found.lease_id is not None
            return epoch.lease(found.lease_id)
        case ObjectKind.SCRUB:
            return epoch.scrub
    return epoch.manifest


def _delta_folder(base_epoch_id: CryptoHash) -> str:
    return f"deltas/base_epoch_id={base_epoch_id}"


def _check_chain_id(chain_id: str) -> str:
    if re.fullmatch(CHAIN_ID_PATTERN, chain_id) is None:
        raise InvalidInputError(problem=f"chain_id must match {CHAIN_ID_PATTERN}", where=repr(chain_id[:80]))
    return chain_id
