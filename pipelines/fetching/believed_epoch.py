"""Opens a fetch's sources and finds out what to believe of the epoch: manifest, shard statements, state headers.

Nothing of what sources say is used before `pipelines.trust.policy` has judged it. Parts are not touched, and nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.epoch_location import EpochUrl, find_published_epochs, parse_epoch_url
from pipelines.fetching.fetch_folder import FetchFolder
from pipelines.fetching.fetch_part import FetchPart
from pipelines.fetching.fetch_progress import FetchWatcher
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.limits import SOURCES_MAX
from pipelines.fetching.source import Source
from pipelines.fetching.source_account import SourceAccount, open_account
from pipelines.fetching.source_from_url import TORRENT, open_source, unique_urls
from pipelines.fetching.throttle import Throttle
from pipelines.stores.durable_file import disk_errors
from pipelines.stores.pace import Pace
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import BelievedManifest, BelievedStatement, check_state_header, choose_manifest, choose_statement
from schemas.errors import EpochNotReadyError, FetchError, InvalidInputError, ManifestError, StatecastError
from schemas.ids import PartId
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class BelievedShard:
    """A shard whose statement, and header where a block is trusted, were judged."""

    listed: ManifestShard
    statement: BelievedStatement
    header: bytes | None
    parts: tuple[FetchPart, ...]

    @property
    def shard_id(self) -> int:
        """The shard's id."""
        return self.listed.shard_id

    @property
    def size(self) -> int:
        """Stored bytes of all parts."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True)
class BelievedEpoch:
    """What is fetched."""

    layout: EpochLayout
    manifest: BelievedManifest
    accepted: AcceptedManifests
    """What was accepted before, with this manifest."""
    shards: tuple[BelievedShard, ...]

    @property
    def parts(self) -> list[FetchPart]:
        """All parts of all shards."""
        return [part for shard in self.shards for part in shard.parts]


@dataclass(slots=True)
class FetchSources:
    """The sources of one fetch, and what is known of them."""

    settings: FetchSettings
    watcher: FetchWatcher
    random: Random
    accounts: dict[str, SourceAccount] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _requests_of_all: Pace | None = None

    @property
    def reader(self) -> DocumentReader:
        """Reads documents from the sources."""
        return DocumentReader(self.sources, self.accounts, self.settings.limits, self.random)

    def open(self) -> EpochUrl:
        """Open all sources that the settings name; return what the first URL says of the epoch.

        Raises:
            InvalidInputError: a URL that is none, or a torrent where nothing can open one.
        """
        located = parse_epoch_url(self.settings.url)
        urls = [located.root, *(parse_epoch_url(url).root for url in self.settings.source_urls if url != TORRENT)]
        if TORRENT in self.settings.source_urls and self.settings.open_torrent is None:
            raise InvalidInputError(problem="nothing can open torrents here", where="--source torrent")
        for url in unique_urls(urls):
            self.add(open_source(url, self._requests(), self.settings.limits.source_timeout_s))
        return located

    def add(self, source: Source) -> None:
        """Take one more source; one that is there already is closed."""
        if source.source_id in self.accounts:
            source.close()
            return
        if len(self.sources) >= SOURCES_MAX:
            raise InvalidInputError(problem=f"a fetch has at most {SOURCES_MAX} sources")
        self.sources.append(source)
        self.accounts[source.source_id] = open_account(source.source_id, source.traits, self.settings.limits)

    def add_mirrors(self, urls: Sequence[str]) -> None:
        """Take the mirrors that a believed manifest names, where the settings want them."""
        for url in urls if self.settings.use_mirrors else ():
            try:
                self.add(open_source(url, self._requests(), self.settings.limits.source_timeout_s))
            except InvalidInputError as error:
                self.warn(f"a mirror of the manifest is left out: {error}")

    def warn(self, text: str) -> None:
        """Tell something that a person should know, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.watcher.event("note", {"text": text})

    def close(self) -> None:
        """Close all sources."""
        for source in self.sources:
            source.close()

    def _requests(self) -> Throttle:
        limits = self.settings.limits
        if limits.requests_per_s is not None and self._requests_of_all is None:
            self._requests_of_all = Pace(limits.requests_per_s)
        own = None if limits.requests_per_s_per_source is None else Pace(limits.requests_per_s_per_source)
        return Throttle([pace for pace in (self._requests_of_all, own) if pace is not None])


@dataclass(slots=True)
class EpochBeliever:
    """Finds out what to believe of an epoch."""

    settings: FetchSettings
    sources: FetchSources
    folder: FetchFolder

    def believe(self, located: EpochUrl) -> BelievedEpoch:
        """Return the epoch to fetch, judged by the policy.

        Raises:
            ManifestError: the trust policy does not hold; its subclasses say why.
            EpochNotReadyError: no source has the epoch, or its publisher lacks parts of it.
            FetchError: no source could give some document.
            InvalidInputError: what is wanted is not said, or not there.
        """
        manifest, layout, accepted = self._believe_manifest(located)
        self.sources.add_mirrors(manifest.manifest.mirrors)
        shards = tuple(self._shard(manifest, layout, listed) for listed in self._chosen(manifest))
        return BelievedEpoch(layout, manifest, accepted.with_accepted(manifest.manifest, manifest.envelope.payload_sha256), shards)

    def _believe_manifest(self, located: EpochUrl) -> tuple[BelievedManifest, EpochLayout, AcceptedManifests]:
        settings, reader = self.settings, self.sources.reader
        chain_id = settings.chain_id or located.chain_id
        if chain_id is None:
            raise InvalidInputError(problem="which chain is meant is not said", remedy="Give --chain-id, or an epoch's URL.")
        if located.chain_id not in (None, chain_id):
            raise InvalidInputError(problem=f"the URL is of chain {located.chain_id}, not {chain_id}", where="--chain-id")
        if located.layout is not None:
            self._check_named(located.layout)
            layouts = [located.layout]
        else:
            layouts = find_published_epochs(settings.epoch, chain_id, self.sources.sources, reader)
        accepted = self.folder.accepted(chain_id)
        must_be_newest = located.layout is None and settings.epoch == "latest"
        first_error: StatecastError | None = None
        for layout in layouts:
            try:
                offers = reader.read_all(layout.manifest, ENVELOPE_BYTES_MAX)
                believed = choose_manifest(settings.policy, offers, layout, datetime.now(UTC), accepted, must_be_newest=must_be_newest)
            except (ManifestError, FetchError) as error:
                first_error = first_error or error
                continue
            for source_id, problem in believed.refused:
                self.sources.warn(f"the manifest of {source_id} does not count: {problem}")
            return believed, layout, accepted
        assert first_error is not None
        if isinstance(first_error, FetchError):
            raise EpochNotReadyError(
                problem=f"no source has the manifest: {first_error}",
                where=layouts[0].manifest,
                remedy="The epoch is not published, or not yet.",
            )
        raise first_error

    def _check_named(self, layout: EpochLayout) -> None:
        selector = self.settings.epoch
        if selector not in ("latest", str(layout.epoch_height), str(layout.epoch_id)):
            raise InvalidInputError(problem=f"the URL names epoch {layout.epoch_height}, not {selector}", where="--epoch")

    def _chosen(self, believed: BelievedManifest) -> Sequence[ManifestShard]:
        manifest, wanted = believed.manifest, self.settings.shard_ids
        for shard_id in wanted:
            if manifest.shard(shard_id) is None:
                listed = ", ".join(str(shard.shard_id) for shard in manifest.shards)
                raise InvalidInputError(problem=f"shard {shard_id} is not in the manifest", remedy=f"It lists {listed}.")
        chosen = [shard for shard in manifest.shards if not wanted or shard.shard_id in wanted]
        for shard in chosen:
            if len(shard.parts) != shard.num_parts:
                raise EpochNotReadyError(
                    problem=f"the publisher offers {len(shard.parts)} of the {shard.num_parts} parts of shard {shard.shard_id}",
                    remedy="Wait for a newer revision, or fetch from another publisher.",
                )
        return chosen

    def _shard(self, believed: BelievedManifest, layout: EpochLayout, listed: ManifestShard) -> BelievedShard:
        """Believe a shard's statement and header, and list its parts."""
        manifest = believed.manifest
        offers = self.sources.reader.read_all(layout.shard_statement(listed.shard_id), ENVELOPE_BYTES_MAX)
        statement = choose_statement(self.settings.policy, offers, manifest, listed)
        for source_id, problem in statement.refused:
            self.sources.warn(f"{source_id}: {problem}")
        for found in statement.contradictions:
            self.sources.warn(
                f"equivocation: two statements of shard {listed.shard_id} contradict each other in {', '.join(found.fields[:5])} "
                f"({found.left_sha256[:12]}…, {found.right_sha256[:12]}…); the one that the trust rule stands behind is followed"
            )
        header = self._header(layout, listed)
        check_state_header(believed.blocks, statement.statement, header, layout.state_header(listed.shard_id))
        parts = tuple(
            FetchPart(
                object_name=layout.state_part(listed.shard_id, PartId(part.part_id, listed.num_parts)),
                shard_id=listed.shard_id,
                part_id=PartId(part.part_id, listed.num_parts),
                encoding=manifest.encoding,
                size=part.size,
                sha256=part.sha256,
                state_root=listed.state_root,
                decoded_size=statement.statement.parts[part.part_id].decoded_size,
                decoded_sha256=statement.statement.parts[part.part_id].sha256,
            )
            for part in listed.parts
        )
        return BelievedShard(listed, statement, header, parts)

    def _header(self, layout: EpochLayout, listed: ManifestShard) -> bytes | None:
        if listed.header is None:
            self.sources.warn(f"shard {listed.shard_id} is published without a state header")
            return None
        name = layout.state_header(listed.shard_id)
        path = self.folder.path(name)
        if has_digest(path, listed.header.size, listed.header.sha256):
            with disk_errors(path):
                return path.read_bytes()
        return self.sources.reader.read_verified(name, listed.header.size, listed.header.sha256)


def has_digest(path: Path, size: int, sha256: str) -> bool:
    """Tell whether a file is there and has these bytes."""
    with disk_errors(path):
        if not path.is_file() or path.stat().st_size != size:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
