"""Drives the check of a published epoch: manifest, signatures, statements, headers, parts, torrents, and what does not belong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from pipelines.bittorrent.published_torrent import TORRENT_BYTES_MAX
from pipelines.bittorrent.torrents import build_torrent
from pipelines.bucket.published_epoch import Judge, StoredManifest, read_manifest
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.keeping.check_deltas import CheckedDeltas, DeltaReading, DeltasCheck, DeltaTrial
from pipelines.keeping.check_part import CheckedPart, CheckPartTask, part_tasks
from pipelines.keeping.check_tables import CheckedTables, TablesCheck
from pipelines.keeping.findings import Finding, FindingKind, Findings
from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.keeping.stored_ladder import sizes_in
from pipelines.kernel.choice import choose_kernel
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from pipelines.trust.chain import prove_blocks
from pipelines.trust.policy import check_state_header
from pipelines.trust.signatures import TrustRule, agreed_signers
from schemas.errors import (
    EpochNotReadyError,
    InvalidInputError,
    StoreDeniedError,
    StoreNotListedError,
)
from schemas.ids import CryptoHash, PartId
from schemas.published.dsse import Envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name, part_file_name, shard_folder_name
from schemas.published.public_key import PublicKey
from schemas.published.scrub_state import WHOLE_PPM
from schemas.published.shard_statement import ShardStatement

WHOLE_EPOCH: Final = SampleWindow(WHOLE_PPM)
"""Every part."""

_LOOKUPS: Final = 8
"""Parts that are looked up at once."""

CHECK_TASK_MEMORY_BYTES = 500 << 20
"""Peak memory of checking one part: both forms of it and its records."""


_NEVER_FOREIGN = (
    ObjectKind.MANIFEST,
    ObjectKind.MANIFEST_REVISION,
    ObjectKind.EVIDENCE,
    ObjectKind.TABLES_STATEMENT,
    ObjectKind.CLAIM,
    ObjectKind.LEASE,
    ObjectKind.SCRUB,
    ObjectKind.DELTA,
    ObjectKind.DELTA_STATEMENT,
)


@dataclass(frozen=True, slots=True)
class CheckedShard:
    """The result of the check of one shard."""

    listed: ManifestShard
    """What was checked."""
    parts_right: int
    parts_checked: int
    """Parts that were read, or found missing or of another size."""
    records: int
    size: int
    """Stored bytes that were read."""
    read_right: tuple[int, ...]
    """Ids of parts that were read and are right."""


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest and who has signed it."""

    stored: StoredManifest
    signers: frozenset[PublicKey]
    """Trusted keys; none without a trust rule."""


def read_signed_manifest(store: Store, layout: EpochLayout, trust: TrustRule | None) -> SignedManifest:
    """Return an epoch's manifest.

    Raises:
        EpochNotReadyError: there is none.
        ManifestError: it can't be parsed, or no trusted key has signed it.
        StoreError: the store can't be read.
    """
    where = f"{store.url}/{layout.manifest}"
    signers: set[PublicKey] = set()
    stored = read_manifest(store, layout, signature_judge(trust, where, signers))
    if stored is None:
        raise EpochNotReadyError(problem="there is no manifest: the epoch is not published, or not yet", where=where)
    return SignedManifest(stored, frozenset(signers))


def signature_judge(trust: TrustRule | None, where: str, signers: set[PublicKey]) -> Judge:
    """Return what raises where no trusted key has signed an envelope, and else adds to ``signers`` those that have.

    A manifest is one publisher's word, so one trusted key is enough for it; the threshold counts on the statements.
    """

    def judge(envelope: Envelope) -> None:
        if trust is not None:
            signers.update(agreed_signers([envelope], TrustRule(trust.keys), where))

    return judge


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of the check of an epoch."""

    stored: StoredManifest
    shards: tuple[CheckedShard, ...]
    findings: tuple[Finding, ...]
    signers: tuple[str, ...]
    """Trusted keys that signed the manifest or a statement; none without a trust rule."""
    tables: CheckedTables | None = None
    """None where the manifest names no tables."""
    deltas: CheckedDeltas | None = None
    """None where the manifest lists no deltas."""
    unlisted: str = ""
    """Why what does not belong there was not looked for; empty where it was."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong, missing, or in the way."""
        return all(finding.harmless for finding in self.findings)


@dataclass(frozen=True, slots=True)
class EpochCheck:
    """A check of one epoch: what its driver needs."""

    runner: StageRunner
    kernel_name: str
    store_url: str
    layout: EpochLayout
    shard_ids: tuple[int, ...]
    """Shards to check; none means all."""
    trust: TrustRule | None
    trusted_block: CryptoHash | None = None
    """Hash of the sync block or of its parent, which ties the state roots to the chain."""
    tables_url: str | None = None
    """Where the epoch's decoded tables are; None for what the manifest says."""
    window: SampleWindow = WHOLE_EPOCH
    """Which of each shard's parts are read; the others are looked up by name and size, and tables only where ``tables_url`` is given."""
    trial: DeltaTrial | None = None
    """Applies deltas to their bases; None to read them back alone."""
    signed: SignedManifest | None = None
    """The manifest, where it was read before; None to read it."""
    remnants_url: str | None = None
    """Where parts lie that a collection has not let go yet, of an epoch that was rebuilt in ``store_url``: they are read too."""

    def run(self) -> CheckResult:
        """Check the epoch.

        Raises:
            EpochNotReadyError: there is no manifest.
            ManifestError: the manifest can't be parsed, the trust rule does not hold, or nothing leads from the trusted block to a
                shard's state root.
            StoreError: the store can't be read.
        """
        store = open_store(self.store_url)
        where = f"{store.url}/{self.layout.manifest}"
        signed = self.signed or read_signed_manifest(store, self.layout, self.trust)
        stored, signers = signed.stored, set(signed.signers)
        judge = signature_judge(self.trust, where, signers)
        blocks = None if self.trusted_block is None else prove_blocks(self.trusted_block, stored.manifest, where)
        findings = Findings(store, self.layout)
        shards = []
        for listed in self._chosen(stored):
            found = findings.statement(listed, stored.manifest)
            if found is None:
                continue
            statement, envelope = found
            if self.trust is not None:
                signers.update(agreed_signers([envelope], self.trust, f"{store.url}/{self.layout.shard_statement(listed.shard_id)}"))
            shards.append(self._check_shard(stored, listed, statement, findings))
            header = findings.header(listed)
            # One that is listed and not right is noted, and leads nowhere.
            if (header is None) == (listed.header is None):
                check_state_header(blocks, statement, header, f"{store.url}/{self.layout.state_header(listed.shard_id)}")
        tables = TablesCheck(
            runner=self.runner,
            kernel=choose_kernel(self.kernel_name),
            store=store,
            stored=stored,
            shard_ids=[listed.shard_id for listed in self._chosen(stored)],
            url=self.tables_url,
            is_trusted=self.trust is not None,
            judge=judge,
            left_out="" if self.window.is_full or self.tables_url is not None else "a sample of the parts was asked for",
        ).run()
        findings.files(() if tables is None else tables.wrong)
        reading = DeltaReading(self.runner, store, self.layout, self.window, judge, sizes_in(store, self.layout))
        compared = {shard.listed.shard_id: shard.read_right for shard in shards}
        deltas = DeltasCheck(reading, stored.manifest, self.trial, compared).run()
        findings.files(() if deltas is None else deltas.wrong)
        # What is not listed is not looked for; that is no fault of the epoch.
        unlisted = ""
        try:
            findings.found += find_foreign(self.layout, stored.manifest, (info.name for info in store.list(self.layout.folder)))
        except (StoreNotListedError, StoreDeniedError) as error:
            unlisted = error.problem
        return CheckResult(stored, tuple(shards), tuple(findings.found), tuple(sorted(map(str, signers))), tables, deltas, unlisted)

    def _chosen(self, stored: StoredManifest) -> Sequence[ManifestShard]:
        for shard_id in self.shard_ids:
            if stored.manifest.shard(shard_id) is None:
                listed = ", ".join(str(shard.shard_id) for shard in stored.manifest.shards)
                raise InvalidInputError(problem=f"shard {shard_id} is not in the manifest", remedy=f"It lists {listed}.")
        return [shard for shard in stored.manifest.shards if not self.shard_ids or shard.shard_id in self.shard_ids]

    def _check_shard(self, stored: StoredManifest, listed: ManifestShard, statement: ShardStatement, findings: Findings) -> CheckedShard:
        tasks = part_tasks(self.store_url, self.layout, stored.manifest, listed, statement=statement, kernel_name=self.kernel_name)
        chosen = self.window.choose(task.object_name for task in tasks)
        to_read = [task for task in tasks if task.object_name in chosen]
        checked = self.runner.run("check", str(listed.shard_uid), to_read, TaskNeeds(CHECK_TASK_MEMORY_BYTES), _amount)
        read_right = tuple(task.part_id.idx for task, part in zip(to_read, checked, strict=True) if part.problem is None)
        checked += self._look_up(findings.store, [task for task in tasks if task.object_name not in chosen])
        checked += self._read_remnants(stored, listed)
        findings.parts(checked)
        self._check_torrent(stored.manifest, listed, checked, findings)
        return CheckedShard(
            listed=listed,
            parts_right=sum(part.problem is None for part in checked),
            parts_checked=len(checked),
            records=sum(part.records for part in checked),
            size=sum(part.size for part in checked),
            read_right=read_right,
        )

    def _read_remnants(self, stored: StoredManifest, listed: ManifestShard) -> list[CheckedPart]:
        """Return which parts are wrong of those that lie where an epoch is published that is kept as deltas."""
        if self.remnants_url is None:
            return []
        there = {info.name for info in open_store(self.remnants_url).list(self.layout.shard_folder(listed.shard_id))}
        tasks = [task for task in part_tasks(self.remnants_url, self.layout, stored.manifest, listed) if task.object_name in there]
        checked = self.runner.run("check", str(listed.shard_uid), tasks, TaskNeeds(CHECK_TASK_MEMORY_BYTES), _amount)
        return [part for part in checked if part.problem is not None]

    def _look_up(self, store: Store, tasks: Sequence[CheckPartTask]) -> list[CheckedPart]:
        """Return which of the parts that are not read are missing, or have another size."""
        found = []
        with ThreadPoolExecutor(_LOOKUPS) as pool:
            for task, info in zip(tasks, pool.map(lambda task: store.info(task.object_name), tasks), strict=True):
                if info is None:
                    found.append(CheckedPart(task.object_name, 0, 0, missing=True, problem="it is missing", pieces=None))
                elif info.size != task.stored.size:
                    problem = f"it has {info.size} bytes, the manifest says {task.stored.size}"
                    found.append(CheckedPart(task.object_name, 0, 0, missing=False, problem=problem, pieces=None))
        return found

    def _check_torrent(self, manifest: Manifest, listed: ManifestShard, checked: Sequence[CheckedPart], findings: Findings) -> None:
        """Build the torrent again from the parts' own pieces and compare; needs all parts right, and libtorrent."""
        if listed.torrent is None:
            return
        name = self.layout.torrent(listed.shard_id)
        data = findings.read(name, TORRENT_BYTES_MAX)
        if data is None:
            return
        pieces = [part.pieces for part in checked if part.pieces is not None]
        if len(pieces) != listed.num_parts:
            return
        files = [(part_file_name(PartId(idx, listed.num_parts)), one.size, one) for idx, one in enumerate(pieces)]
        try:
            torrent = build_torrent(
                shard_folder_name(listed.shard_id), files, listed.torrent.piece_length, manifest.web_seeds, manifest.trackers
            )
        except InvalidInputError:
            self.runner.progress.note(f"torrent of shard {listed.shard_id} not checked: libtorrent is not installed (extra p2p)")
            return
        if (torrent.info_hash_v1.hex(), torrent.info_hash_v2.hex()) != (listed.torrent.info_hash_v1, listed.torrent.info_hash_v2):
            findings.wrong(name, "the manifest's info hashes are not those of the parts")
        elif data != torrent.data:
            findings.wrong(name, "it is not the torrent of these parts, web seeds and trackers")


def find_foreign(layout: EpochLayout, manifest: Manifest, names: Iterable[str]) -> list[Finding]:
    """Find objects in the epoch's folder that neither manifest nor layout know.

    Args:
        names: of all objects in the epoch's folder.
    """
    expected = {f"{layout.folder}/{name}" for name in manifest.subjects()}
    listed = {shard.shard_id for shard in manifest.shards}
    findings = []
    for name in names:
        if name in expected:
            continue
        parsed = parse_object_name(name)
        if parsed is not None and parsed.kind in _NEVER_FOREIGN:
            continue
        if parsed is not None and parsed.kind in (ObjectKind.SHARD_STATEMENT, ObjectKind.TORRENT) and parsed.shard_id in listed:
            continue
        inside = name.removeprefix(f"{layout.folder}/").startswith(("shard_id=", "headers/"))
        problem = "it is not in the manifest, and nodes count every object of this folder" if inside else "it is not of this layout"
        findings.append(Finding(FindingKind.FOREIGN, name, problem, harmless=not inside))
    return findings


def _amount(part: CheckedPart) -> Amount:
    return Amount(records=part.records, size=part.size, parts=1)
