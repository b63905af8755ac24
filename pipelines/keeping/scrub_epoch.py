"""Reads back what is stored of an epoch and compares it with the manifest: documents all, parts, deltas and decoded tables by sample or all.

Parts are compared by size and digest; what they decode to was judged before they were published, and is `check_epoch`'s to judge
again. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pipelines.bittorrent.published_torrent import TORRENT_BYTES_MAX, read_torrent
from pipelines.bittorrent.torrents import recompose_torrent
from pipelines.bucket.published_epoch import StoredManifest, read_manifest, read_manifest_revision
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.keeping.check_deltas import DeltaReading
from pipelines.keeping.check_epoch import CHECK_TASK_MEMORY_BYTES, find_foreign
from pipelines.keeping.check_part import CheckedPart, part_tasks
from pipelines.keeping.findings import Finding, Findings
from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.keeping.scrub_tables import ScrubbedTables, TablesScrub
from pipelines.keeping.stored_ladder import thin_steps
from pipelines.stores.open_store import open_store
from pipelines.stores.store import ObjectInfo
from pipelines.trust.signatures import TrustRule, agreed_signers, verified_signers
from schemas.errors import EpochNotReadyError, InvalidInputError, ManifestError, SignatureError
from schemas.published.dsse import Envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name

MISSING_REVISIONS_MAX: Final = 100
"""Most revisions of a manifest that one scrub finds missing: a revision is only a number that somebody wrote."""


@dataclass(frozen=True, slots=True)
class ScrubbedEpoch:
    """What the scrub of one epoch found."""

    layout: EpochLayout
    window: SampleWindow
    stored: StoredManifest | None
    """The manifest that everything was compared with; None where none can be believed."""
    parts: int
    """Listed by the manifest; each was looked up by name and size."""
    parts_read: int
    bytes_read: int
    """Of parts."""
    findings: tuple[Finding, ...]
    """By name."""
    steps: tuple[EpochLayout, ...] = ()
    """By which an epoch is had that is kept as deltas: its parts are not missed."""
    delta_objects: int = 0
    """Of the deltas that the manifest lists; each was looked up by name and size."""
    delta_objects_read: int = 0
    delta_bytes_read: int = 0
    tables: ScrubbedTables | None = None
    """None where the manifest names no tables."""

    @property
    def harmful(self) -> tuple[Finding, ...]:
        """What is wrong, missing, or in the way of nodes."""
        return tuple(finding for finding in self.findings if not finding.harmless)


@dataclass(slots=True)
class EpochScrub:
    """The scrub of one epoch."""

    runner: StageRunner
    store_url: str
    layout: EpochLayout
    window: SampleWindow
    trust: TrustRule | None
    tables_url: str | None = None
    """Where the epoch's decoded tables are; None for what the manifest says."""
    _told_about_torrents: bool = False

    def run(self) -> ScrubbedEpoch:
        """Scrub the epoch; what is wrong with it is a result, not an error.

        Raises:
            EpochNotReadyError: there is no manifest.
            SignatureError: the manifest can be read, and neither it nor an older revision has a signature of a trusted key.
            StoreError: the store can't be read.
        """
        store = open_store(self.store_url)
        findings = Findings(store, self.layout)
        listed = {info.name: info for info in store.list(self.layout.folder)}
        if self.layout.manifest not in listed:
            raise EpochNotReadyError(
                problem="there is no manifest: the epoch is not published, not yet, or no more", where=f"{store.url}/{self.layout.manifest}"
            )
        stored = self._manifest(findings, listed)
        if stored is None:
            return ScrubbedEpoch(self.layout, self.window, None, 0, 0, 0, tuple(findings.found))
        self._check_revisions(findings, stored, listed)
        for shard in stored.manifest.shards:
            self._check_statement(findings, shard, stored.manifest)
            findings.header(shard)
            self._check_torrent(findings, shard, stored.manifest)
        # Parts that a collection let go, since they can be rebuilt, are not missing.
        steps = thin_steps(store, stored.manifest, self._judge)
        parts, checked = self._check_parts(findings, stored.manifest, listed, is_thin=bool(steps))
        sizes = {info.name: info.size for info in listed.values()}
        deltas = DeltaReading(self.runner, store, self.layout, self.window, self._judge, sizes.get).read(stored.manifest.deltas, "scrub")
        tables = TablesScrub(
            runner=self.runner,
            store=store,
            stored=stored,
            url=self.tables_url,
            is_trusted=self.trust is not None,
            judge=self._judge,
            window=self.window,
        ).run()
        findings.files((*deltas.wrong, *(() if tables is None else tables.wrong)))
        findings.found += find_foreign(self.layout, stored.manifest, listed)
        return ScrubbedEpoch(
            layout=self.layout,
            window=self.window,
            stored=stored,
            parts=parts,
            parts_read=len(checked),
            bytes_read=sum(part.size for part in checked),
            findings=tuple(sorted(findings.found, key=lambda finding: finding.object_name)),
            steps=steps,
            delta_objects=deltas.objects,
            delta_objects_read=deltas.objects_read,
            delta_bytes_read=deltas.size,
            tables=tables,
        )

    def _manifest(self, findings: Findings, listed: dict[str, ObjectInfo]) -> StoredManifest | None:
        """Return the manifest to compare with: the newest, or where that is damaged the newest revision that can be believed."""
        try:
            stored = read_manifest(findings.store, self.layout, self._judge)
            if stored is None:
                raise EpochNotReadyError(problem="the manifest was just deleted", where=self.layout.manifest)
            return stored
        except (ManifestError, InvalidInputError) as error:
            findings.wrong(self.layout.manifest, error.problem)
            refusal = error
        for revision in sorted(_revisions(listed), reverse=True):
            try:
                older = read_manifest_revision(findings.store, self.layout, revision, self._judge)
                if older is not None and older.manifest.revision == revision:
                    return older
            except (ManifestError, InvalidInputError):
                continue
        if isinstance(refusal, SignatureError):
            raise refusal
        return None

    def _judge(self, envelope: Envelope) -> None:
        """Raise ManifestError where none of the trusted keys has signed: one is enough for a manifest."""
        if self.trust is not None:
            agreed_signers([envelope], TrustRule(self.trust.keys), self.layout.manifest)

    def _check_revisions(self, findings: Findings, stored: StoredManifest, listed: dict[str, ObjectInfo]) -> None:
        revisions = _revisions(listed)
        absent = (revision for revision in range(1, stored.manifest.revision + 1) if revision not in revisions)
        for revision in islice(absent, MISSING_REVISIONS_MAX):
            findings.missing(self.layout.manifest_revision(revision))
        for revision in sorted(revisions):
            name = self.layout.manifest_revision(revision)
            try:
                found = read_manifest_revision(findings.store, self.layout, revision)
            except ManifestError as error:
                findings.wrong(name, error.problem)
                continue
            problem = None if found is None else self._revision_problem(found, revision, stored)
            if problem is not None:
                findings.wrong(name, problem)

    def _revision_problem(self, found: StoredManifest, revision: int, stored: StoredManifest) -> str | None:
        if found.manifest.revision != revision:
            return f"it is revision {found.manifest.revision}"
        if revision == stored.manifest.revision and found.envelope.payload != stored.envelope.payload:
            return "it is another manifest than the newest of the same revision"
        return None if signatures_hold(found.envelope, self.trust) else "the signature of a trusted key does not hold"

    def _check_statement(self, findings: Findings, shard: ManifestShard, manifest: Manifest) -> None:
        found = findings.statement(shard, manifest)
        if found is None or self.trust is None:
            return
        name = self.layout.shard_statement(shard.shard_id)
        try:
            agreed_signers([found[1]], self.trust, f"{findings.store.url}/{name}")
        except ManifestError as error:
            findings.wrong(name, error.problem)

    def _check_torrent(self, findings: Findings, shard: ManifestShard, manifest: Manifest) -> None:
        if shard.torrent is None:
            return
        name = self.layout.torrent(shard.shard_id)
        data = findings.read(name, TORRENT_BYTES_MAX)
        if data is None:
            return
        try:
            problem = torrent_problem(data, shard, manifest, name)
        except InvalidInputError:
            if not self._told_about_torrents:
                self.runner.progress.note("torrents are not compared: libtorrent is not installed (extra p2p)")
                self._told_about_torrents = True
            return
        if problem is not None:
            findings.wrong(name, problem)

    def _check_parts(
        self, findings: Findings, manifest: Manifest, listed: dict[str, ObjectInfo], *, is_thin: bool
    ) -> tuple[int, list[CheckedPart]]:
        """Look every part up by name and size; read those of the sample that are there with the right size."""
        tasks = [task for shard in manifest.shards for task in part_tasks(self.store_url, self.layout, manifest, shard)]
        chosen = self.window.choose(_relative(task.object_name, self.layout) for task in tasks)
        to_read = []
        for task in tasks:
            info = listed.get(task.object_name)
            if info is None:
                if not is_thin:
                    findings.missing(task.object_name)
            elif info.size != task.stored.size:
                findings.wrong(task.object_name, f"it has {info.size} bytes, the manifest says {task.stored.size}")
            elif _relative(task.object_name, self.layout) in chosen:
                to_read.append(task)
        checked = self.runner.run("scrub", "", to_read, TaskNeeds(CHECK_TASK_MEMORY_BYTES), _amount)
        findings.parts(checked)
        return len(tasks), checked


def torrent_problem(data: bytes, shard: ManifestShard, manifest: Manifest, where: str) -> str | None:
    """Return what keeps a torrent file from being the published one, or None.

    Raises:
        InvalidInputError: libtorrent is not installed.
    """
    try:
        same = recompose_torrent(read_torrent(data, shard, where), manifest.web_seeds, manifest.trackers) == data
    except ManifestError as error:
        return error.problem
    return None if same else "it has other web seeds or trackers than the manifest, or something else besides them"


def signatures_hold(envelope: Envelope, trust: TrustRule | None) -> bool:
    """Whether no signature that names a trusted key is broken; one of a key that is not (or no longer) trusted says nothing."""
    if trust is None:
        return True
    claimed = {key for key in trust.keys if key.key_id in {found.key_id for found in envelope.signatures}}
    return verified_signers(envelope, trust.keys) == claimed


def _revisions(names: Iterable[str]) -> set[int]:
    found = (parse_object_name(name) for name in names)
    return {name.revision for name in found if name is not None and name.kind is ObjectKind.MANIFEST_REVISION and name.revision is not None}


def _relative(name: str, layout: EpochLayout) -> str:
    return name.removeprefix(f"{layout.folder}/")


def _amount(part: CheckedPart) -> Amount:
    return Amount(size=part.size, parts=1)
