"""Opens a fetch's sources and finds out what to believe of the epoch: manifest, shard statements, state headers.

Nothing of what sources say is used before `pipelines.trust.policy` has judged it. Parts are not touched, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.enough_offers import EnoughForManifest, EnoughForStatement
from pipelines.fetching.epoch_location import EpochUrl, find_published_epochs, listed_chains, parse_epoch_url
from pipelines.fetching.epoch_target import EpochTarget
from pipelines.fetching.fetch_part import FetchPart, parts_to_fetch
from pipelines.fetching.fetch_progress import FetchWatcher
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.limits import SOURCES_MAX
from pipelines.fetching.near_header import header_from_peers
from pipelines.fetching.near_peer_source import near_peer_settings
from pipelines.fetching.source import Source
from pipelines.fetching.source_account import SourceAccount, open_account
from pipelines.fetching.source_from_url import TORRENT, open_source, unique_urls
from pipelines.fetching.throttle import Throttle
from pipelines.stores.http_client import leads_to_public
from pipelines.stores.pace import Pace
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import BelievedManifest, BelievedStatement, acceptable_manifests, check_state_header, choose_statement
from schemas.errors import EpochNotReadyError, EquivocationError, FetchError, InvalidInputError, ManifestError, StatecastError
from schemas.ids import CryptoHash
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest import Manifest
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
    """What was accepted before, with this manifest as the word of those who have signed it."""
    shards: tuple[BelievedShard, ...]

    @property
    def parts(self) -> list[FetchPart]:
        """All parts of all shards."""
        return [part for shard in self.shards for part in shard.parts]

    @property
    def pointer(self) -> LatestPointer:
        """The pointer that names it."""
        layout, manifest = self.layout, self.manifest
        return LatestPointer(
            layout.chain_id, layout.epoch_height, layout.epoch_id, manifest.manifest.revision, manifest.envelope.payload_sha256
        )


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
        """Open all sources that the settings name; return the epoch that the first URL names.

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

    def add_mirrors(self, believed: BelievedManifest) -> None:
        """Take the mirrors that a believed manifest names, where the settings want them and a pinned key has signed it.

        They are asked as nobody, and at public addresses unless the manifest's own source has none: whoever wrote a manifest must not
        have this machine ask others that only it can reach, or pay.
        """
        urls = believed.manifest.mirrors if self.settings.use_mirrors else ()
        if urls and not believed.signers:
            self.warn("the mirrors that the manifest names are not asked: no pinned key has signed it")
            return
        for url in urls:
            try:
                timeout_s = self.settings.limits.source_timeout_s
                self.add(open_source(url, self._requests(), timeout_s, is_named=False, may_be_local=self.is_local(believed)))
            except InvalidInputError as error:
                self.warn(f"a mirror of the manifest is left out: {error}")

    def start_over(self) -> None:
        """Ask those again that were banned by a manifest that is not followed any more; what was made for its parts alone is closed."""
        for source in [source for source in self.sources if not source.traits.documents]:
            source.close()
            self.sources.remove(source)
            del self.accounts[source.source_id]
        for account in self.accounts.values():
            account.pardon()

    def is_local(self, believed: BelievedManifest) -> bool:
        """Whether the source of a manifest is this machine, or one at an address that is not public."""
        return any(source.traits.is_local for source in self.sources if source.source_id in believed.source_ids)

    def web_addresses(self, believed: BelievedManifest, urls: Sequence[str]) -> tuple[str, ...]:
        """Return those of a manifest's web seeds or trackers that may be asked: by the rules for its mirrors."""
        if urls and not believed.signers:
            self.warn("the web seeds and trackers that the manifest names are not asked: no pinned key has signed it")
            return ()
        return tuple(url for url in urls if self.is_local(believed) or leads_to_public(url))

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
    target: EpochTarget

    def believed(self, located: EpochUrl) -> Iterator[BelievedEpoch]:
        """Yield what may be fetched, judged by the policy: first what is to be fetched, then what is left if that can't be had.

        All are of one epoch. What is yielded holds whole: its manifest, and the statement and header of every shard that is wanted.

        Raises:
            ManifestError: the trust policy does not hold; its subclasses say why.
            EpochNotReadyError: no source has the epoch, or its publishers lack parts of it.
            FetchError: no source could give some document.
            InvalidInputError: what is wanted is not said, or not there.
        """
        settings, reader = self.settings, self.sources.reader
        chain_id = self.chain_id(located)
        if located.layout is not None:
            layouts = [located.layout]
        else:
            # A trusted block is of one epoch, whose height no proof says: the sources' order decides, not who says the highest.
            by_height = settings.policy.trusted_block is None
            try:
                layouts = find_published_epochs(settings.epoch, chain_id, self.sources.sources, reader, newest_first=by_height)
            except (EpochNotReadyError, FetchError):
                self._check_chain(chain_id)
                raise
        accepted = self._accepted(chain_id)
        must_be_newest = located.layout is None and settings.epoch == "latest"
        problems: list[StatecastError] = []
        epoch_id: CryptoHash | None = None
        for layout in layouts:
            if epoch_id is not None:
                if layout.epoch_id != epoch_id:
                    continue
                self.sources.start_over()
            acceptable = self._acceptable(layout, accepted, problems, must_be_newest=must_be_newest)
            for manifest in acceptable:
                if epoch_id is not None:
                    self.sources.start_over()
                liars: dict[str, str] = {}
                try:
                    judged = [self._shard(manifest, layout, listed, liars) for listed in self._chosen(manifest)]
                except (ManifestError, FetchError, EpochNotReadyError, InvalidInputError) as error:
                    problems.append(error)
                    continue
                shards = tuple(_with_others(shard, [other for other in acceptable if other is not manifest]) for shard in judged)
                epoch_id = layout.epoch_id
                for source_id, problem in liars.items():
                    self.sources.accounts[source_id].ban(problem)
                for passed_over in problems:
                    self.sources.warn(f"a manifest is not followed: {passed_over}")
                problems.clear()
                for shard in shards:
                    self._tell_doubts(shard)
                self._tell_older(layout, accepted, must_be_newest=must_be_newest)
                self.sources.add_mirrors(manifest)
                payload_sha256 = manifest.envelope.payload_sha256
                yield BelievedEpoch(layout, manifest, accepted.with_accepted(manifest.signers, manifest.manifest, payload_sha256), shards)
        if epoch_id is None:
            raise _worst(problems)

    def _acceptable(
        self, layout: EpochLayout, accepted: AcceptedManifests, problems: list[StatecastError], *, must_be_newest: bool
    ) -> Sequence[BelievedManifest]:
        """Return the manifests of an epoch that may be followed; none, and why, where there are none."""
        policy = self.settings.policy
        try:
            is_enough = EnoughForManifest(policy, layout)
            with closing(self.sources.reader.read_all(layout.manifest, ENVELOPE_BYTES_MAX, is_enough)) as offers:
                found = acceptable_manifests(policy, offers, layout, datetime.now(UTC), accepted, must_be_newest=must_be_newest)
        except ManifestError as error:
            problems.append(error)
            return ()
        except FetchError as error:
            problems.append(
                EpochNotReadyError(
                    problem=f"no source has the manifest: {error}",
                    where=layout.manifest,
                    remedy="The epoch is not published, or not yet.",
                )
            )
            return ()
        for source_id, problem in found.refused:
            self.sources.warn(f"the manifest of {source_id} does not count: {problem}")
        return found.manifests

    def chain_id(self, located: EpochUrl) -> str:
        """Return the chain that settings and URL name, or the only one that sources list.

        Raises:
            InvalidInputError: they name different ones, or none, and sources list none or several.
        """
        chain_id = self.settings.chain_id or located.chain_id
        if chain_id is None:
            return self._only_chain()
        if located.chain_id not in (None, chain_id):
            raise InvalidInputError(problem=f"the URL is of chain {located.chain_id}, not {chain_id}", where="--chain-id")
        if located.layout is not None:
            self._check_named(located.layout)
        return chain_id

    def _only_chain(self) -> str:
        chains = self._listed_chains()
        if len(chains) == 1:
            return chains[0]
        where = ", ".join(source.source_id for source in self.sources.sources)
        if chains:
            raise InvalidInputError(
                problem="several chains are published there", where=where, remedy=f"Name one with --chain-id: {', '.join(chains)}."
            )
        raise InvalidInputError(
            problem="which chain is meant is not said, and no source lists one",
            where=where,
            remedy="Give --chain-id, or an epoch's URL; web servers can't be searched.",
        )

    def _check_chain(self, chain_id: str) -> None:
        """Say which chains are there where that one is not."""
        chains = self._listed_chains()
        if chains and chain_id not in chains:
            where = ", ".join(source.source_id for source in self.sources.sources)
            raise EpochNotReadyError(problem=f"no source has the chain {chain_id}", where=where, remedy=f"There is {', '.join(chains)}.")

    def _listed_chains(self) -> list[str]:
        """Return the chains of all sources that can be listed."""
        return listed_chains(self.sources.sources, self.sources.reader)

    def _accepted(self, chain_id: str) -> AcceptedManifests:
        accepted = self.target.accepted(chain_id)
        if accepted.is_older_format:
            self.sources.warn("the folder's memory of accepted manifests does not say who had signed them: it is not used, and starts over")
        return accepted

    def _tell_older(self, layout: EpochLayout, accepted: AcceptedManifests, *, must_be_newest: bool) -> None:
        keys = self.settings.policy.keys
        newest = None if keys is None else accepted.newest_epoch_height(keys.keys)
        if must_be_newest and newest is not None and newest > layout.epoch_height:
            self.sources.warn(
                f"epoch {newest} was accepted before, of another pinned key; the latest that is offered is {layout.epoch_height}"
            )

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
        if not manifest.shards:
            raise EpochNotReadyError(problem="the publisher offers no shard", remedy="Fetch from another publisher.")
        chosen = [shard for shard in manifest.shards if not wanted or shard.shard_id in wanted]
        for shard in chosen:
            if len(shard.parts) != shard.num_parts:
                raise EpochNotReadyError(
                    problem=f"the publisher offers {len(shard.parts)} of the {shard.num_parts} parts of shard {shard.shard_id}",
                    remedy="Wait for a newer revision, or fetch from another publisher.",
                )
        return chosen

    def _shard(self, believed: BelievedManifest, layout: EpochLayout, listed: ManifestShard, liars: dict[str, str]) -> BelievedShard:
        """Believe a shard's statement and header, and list its parts.

        Args:
            liars: takes up the sources that lie if this manifest is right, with what is wrong.
        """
        manifest = believed.manifest
        name = layout.shard_statement(listed.shard_id)
        with closing(self.sources.reader.read_all(name, ENVELOPE_BYTES_MAX, EnoughForStatement(self.settings.policy, listed))) as offers:
            statement = choose_statement(self.settings.policy, offers, manifest, listed)
        header = self._header(manifest, layout, listed, liars)
        check_state_header(believed.blocks, statement.statement, header, layout.state_header(listed.shard_id))
        return BelievedShard(listed, statement, header, parts_to_fetch(manifest, listed, statement.statement))

    def _tell_doubts(self, shard: BelievedShard) -> None:
        """Tell what other statements of a shard sources have."""
        for source_id, problem in shard.statement.refused:
            self.sources.warn(f"{source_id}: {problem}")
        for found in shard.statement.contradictions:
            both = f"; {', '.join(map(str, found.two_faced))} signed both and does not count" if found.two_faced else ""
            self.sources.warn(
                f"two statements of shard {shard.shard_id} contradict each other in {', '.join(found.fields[:5])} "
                f"({found.left_sha256[:12]}…, {found.right_sha256[:12]}…); the one that the trust rule stands behind is followed{both}"
            )

    def _header(self, manifest: Manifest, layout: EpochLayout, listed: ManifestShard, liars: dict[str, str]) -> bytes | None:
        if listed.header is None:
            self.sources.warn(f"shard {listed.shard_id} is published without a state header")
            return None
        name = layout.state_header(listed.shard_id)
        held = self.target.held(name, listed.header.size, listed.header.sha256)
        if held is not None:
            return held
        try:
            found = self.sources.reader.read_verified(name, listed.header.size, listed.header.sha256)
        except FetchError as error:
            return self._header_from_peers(manifest, listed, error)
        liars |= found.other_bytes
        return found.data

    def _header_from_peers(self, manifest: Manifest, listed: ManifestShard, missed: FetchError) -> bytes:
        """Ask nodes for a header that no source of documents has."""
        peers, rate = self.settings.near_peers, self.settings.limits.requests_per_s_per_source
        if not peers:
            raise missed
        try:
            return header_from_peers(peers, manifest, listed, near_peer_settings(manifest.chain_id, rate, self.settings.near_listening))
        except FetchError as error:
            missed.attempts |= error.attempts
            raise missed from None


def _with_others(shard: BelievedShard, others: Sequence[BelievedManifest]) -> BelievedShard:
    """Note at each part which sources store it otherwise by their own manifest: other bytes of theirs are no lie."""
    stored: dict[int, list[tuple[str, frozenset[str]]]] = {}
    for other in others:
        listed = other.manifest.shard(shard.shard_id)
        if listed is not None and listed.num_parts == shard.listed.num_parts:
            for part in listed.parts:
                stored.setdefault(part.part_id, []).append((part.sha256, frozenset(other.source_ids)))
    parts = []
    for wanted in shard.parts:
        otherwise = (source_ids for sha256, source_ids in stored.get(wanted.part_id.idx, ()) if sha256 != wanted.sha256)
        parts.append(replace(wanted, stored_otherwise=frozenset().union(*otherwise)))
    return replace(shard, parts=tuple(parts))


def _worst(problems: Sequence[StatecastError]) -> StatecastError:
    """Return the problem that says most of why nothing holds."""
    for kind in (EquivocationError, ManifestError):
        for problem in problems:
            if isinstance(problem, kind):
                return problem
    return problems[0]
