"""A published epoch: what its manifest says, records of it with their proofs, and its parts on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from pipelines.bucket.locate_epoch import locate_epoch
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_progress import FetchProgress
from pipelines.fetching.fetch_result import FetchResult
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.limits import FetchLimits
from pipelines.kernel.choice import choose_kernel
from pipelines.proving.prove_published import PublishedProofRequest, prove_from_published
from pipelines.proving.published_state import believe_manifest
from pipelines.proving.verify_trie_proof import VerifiedProof
from pipelines.proving.wanted_record import wanted_record
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import BelievedManifest
from schemas.published.object_layout import EpochLayout
from statecast.trust import Trust


def open_epoch(url: str | PathLike[str], *, trust: Trust) -> Epoch:
    """Read the manifest of a published epoch, and judge it.

    Args:
        url: an epoch's folder (``…/chain_id=…/epoch_height=…/epoch_id=…``), or what holds one chain's: its latest epoch. A folder, or a
            place in a bucket or on the web.
    Raises:
        EpochNotReadyError: the epoch is not published.
        ManifestError: it is not believed; its subclasses say why.
        StoreError: the place can't be read.
    """
    root, layout = locate_epoch(fspath(url))
    return Epoch(root, layout, trust, believe_manifest(open_store(root), layout, trust.policy()))


@dataclass(frozen=True, slots=True)
class Epoch:
    """A published epoch whose manifest was believed; opened by `open_epoch`."""

    _root: str
    _layout: EpochLayout
    _trust: Trust
    _believed: BelievedManifest

    @property
    def url(self) -> str:
        """The epoch's folder."""
        return f"{self._root}/{self._layout.folder}"

    @property
    def chain_id(self) -> str:
        """As the genesis file says it."""
        return self._layout.chain_id

    @property
    def epoch_height(self) -> int:
        """The epoch's height."""
        return self._layout.epoch_height

    @property
    def epoch_id(self) -> str:
        """The epoch's id in base58."""
        return str(self._layout.epoch_id)

    @property
    def sync_hash(self) -> str:
        """Hash of the epoch's sync block in base58, as the manifest has it: what `Trust.block` is compared with is yours to know."""
        return str(self._believed.manifest.sync_hash)

    @property
    def revision(self) -> int:
        """Which manifest of the epoch it is, from 1 on."""
        return self._believed.manifest.revision

    @property
    def signers(self) -> tuple[str, ...]:
        """Trusted keys that have signed the manifest."""
        return tuple(map(str, self._believed.signers))

    @property
    def state_roots(self) -> dict[int, str]:
        """By shard id: the state root in base58."""
        return {shard.shard_id: str(shard.state_root) for shard in self._believed.manifest.shards}

    def prove(
        self,
        account_id: str | None = None,
        *,
        access_key: str | None = None,
        contract_key: str | None = None,
        contract_prefix: str | None = None,
        contract_code: bool = False,
        trie_key: str | None = None,
        shard_id: int | None = None,
    ) -> VerifiedProof:
        """Prove a record, or its absence: the one part that can hold it is read and verified.

        Args:
            account_id: alone, the account's own record.
            access_key: the account's access key with this public key.
            contract_key: an entry of the contract's storage: a text, ``hex:…`` or ``base64:…``.
            contract_prefix: all entries of the contract's storage with a prefix; empty for all.
            contract_code: the account's contract.
            trie_key: a key in raw bytes, ``hex:…`` or ``base64:…``.
            shard_id: where it can't be told from the account.
        Raises:
            InvalidInputError: not one record is named, or its shard can't be told.
            ManifestError: manifest or statement is not believed.
            IntegrityError, ObjectMismatchError: a part is not what was published, or is none of the state root.
            StoreError: the store can't be read.
        """
        wanted = wanted_record(
            account_id,
            access_key=access_key,
            contract_key=contract_key,
            contract_prefix=contract_prefix,
            contract_code=contract_code,
            trie_key=trie_key,
        )
        return prove_from_published(PublishedProofRequest(self._root, self._layout, wanted, self._trust.policy(), shard_id)).verified

    def fetch(
        self, into: str | Path, *, shard_ids: Collection[int] = (), sources: Sequence[str] = (), use_mirrors: bool = True
    ) -> FetchResult:
        """Bring parts to this machine from many places at once; each is verified before it has its name. A rerun keeps what is right.

        Args:
            into: a folder.
            shard_ids: all by default.
            sources: further places that have the epoch: buckets, web servers.
            use_mirrors: also those that the manifest names.
        Raises:
            FetchError: no source had a part that is right.
            ManifestError: manifest or statement is not believed.
            StoreError: the folder can't be written.
        """
        settings = FetchSettings(
            url=self.url,
            source_urls=tuple(dict.fromkeys(sources)),
            chain_id=self.chain_id,
            epoch="latest",
            shard_ids=tuple(dict.fromkeys(shard_ids)),
            into=Path(into),
            policy=self._trust.policy(),
            limits=FetchLimits(),
            kernel_name=choose_kernel("auto").name,
            verify_workers=os.cpu_count() or 1,
            verify_in_threads=True,
            use_mirrors=use_mirrors,
        )
        return EpochFetch(settings, _Silent()).run()


class _Silent:
    """Hears of a fetch and says nothing."""

    def progress(self, progress: FetchProgress) -> None:
        """Pass over it."""

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Pass over it."""
