"""Finds which epoch is meant: by a URL that names it, by the latest pointer, by a height or id that some source knows, or by a range of heights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.source import Source
from pipelines.fetching.transfer import failure_of
from schemas.errors import EpochNotReadyError, FetchError, InvalidInputError, ManifestError
from schemas.published.catalogue import CATALOGUE_BYTES_MAX, Catalogue
from schemas.published.latest_pointer import POINTER_BYTES_MAX, LatestPointer
from schemas.published.object_layout import (
    EpochLayout,
    catalogue_name,
    latest_name,
    parse_epoch_folder,
    split_chain_url,
    without_manifest_name,
)
from schemas.shown_text import shown_url

HEIGHTS_LISTED_MAX: Final = 16
"""Most heights of a range that are listed one by one; all of the chain is listed for more."""

HEIGHTS_LOOKED_UP_MAX: Final = 100_000
"""Most heights of a range that are looked for one by one in what is known."""


@dataclass(frozen=True, slots=True)
class EpochUrl:
    """A URL taken apart."""

    root: str
    """URL of the folder that holds ``chain_id=…``."""
    chain_id: str | None
    layout: EpochLayout | None
    """The epoch, where the URL names one."""


@runtime_checkable
class EpochLister(Protocol):
    """A source that can list which epochs it has."""

    def list_epochs(self, chain_id: str, epoch_height: int | None) -> Sequence[EpochLayout]:
        """Return the epochs that have a manifest; of one height where that is given.

        Raises:
            StoreError: it can't be listed.
        """
        ...

    def list_chains(self) -> set[str]:
        """Return the chains that there are objects of; raises like `list_epochs`."""
        ...


def parse_epoch_url(url: str) -> EpochUrl:
    """Take the URL of a store's folder, of a chain's, or of an epoch's apart.

    Raises:
        InvalidInputError: something follows ``chain_id=`` that is no epoch's folder.
    """
    root, tail = split_chain_url(without_manifest_name(url))
    if "/" not in tail:
        return EpochUrl(root, tail.removeprefix("chain_id=") if tail else None, None)
    layout = parse_epoch_folder(tail)
    if layout is None:
        raise InvalidInputError(
            problem="this is not an epoch's folder", where=shown_url(url), remedy="It ends in chain_id=…/epoch_height=…/epoch_id=…."
        )
    return EpochUrl(root, layout.chain_id, layout)


def find_published_epochs(
    selector: str, chain_id: str, sources: Sequence[Source], reader: DocumentReader, *, newest_first: bool
) -> list[EpochLayout]:
    """Return the epochs that a selector can mean, the best first. Sources are not trusted here: the caller verifies.

    Args:
        selector: ``latest``, an epoch height, or an epoch id.
        newest_first: the higher epoch is the better one; else the one that an earlier source names.
    Raises:
        EpochNotReadyError: no source knows such an epoch.
        FetchError: no source answered.
    """
    layouts, unanswered = _pointed_at(chain_id, reader)
    if newest_first:
        layouts.sort(key=lambda layout: -layout.epoch_height)
    if selector == "latest":
        if not layouts and unanswered is not None:
            raise unanswered
        found = layouts
    else:
        found = [layout for layout in layouts if _means(selector, layout)]
        if not found:
            found = _listed(selector, chain_id, sources, reader)
    if not found:
        raise EpochNotReadyError(
            problem=f"no source knows the epoch {selector} of {chain_id}",
            remedy="Give the URL of the epoch's folder (…/chain_id=…/epoch_height=…/epoch_id=…): only stores can be searched, web servers can't.",
        )
    return found


def find_epochs_between(
    lowest: int, highest: int | None, chain_id: str, sources: Sequence[Source], reader: DocumentReader
) -> dict[EpochLayout, int | None]:
    """Return the epochs of a range of heights, ascending, with the newest revision that is known of each manifest.

    By the sources' catalogues and pointers, and by a listing where those leave a height out. Sources are not trusted here: the caller verifies.

    Args:
        highest: belongs to the range; None for no end, and then a listing is asked for only where no source has a catalogue.
    Raises:
        FetchError: no source answered.
    """
    catalogued, unanswered = _catalogued(chain_id, reader)
    pointed, without_pointer = _pointed_at(chain_id, reader)
    found: dict[EpochLayout, int | None] = {**dict.fromkeys(pointed), **catalogued}
    heights = {layout.epoch_height for layout in found}
    if highest is None:
        if unanswered is not None:
            found = {**dict.fromkeys(_listed_between(lowest, None, chain_id, sources, reader)), **found}
    elif unseen := [height for height in range(lowest, min(highest + 1, lowest + HEIGHTS_LOOKED_UP_MAX)) if height not in heights]:
        listed = _listed_between(unseen[0], unseen[-1], chain_id, sources, reader)
        found = {**dict.fromkeys(listed), **found}
    wanted = [layout for layout in found if lowest <= layout.epoch_height and (highest is None or layout.epoch_height <= highest)]
    if not wanted and unanswered is not None and without_pointer is not None and not any(isinstance(one, EpochLister) for one in sources):
        raise unanswered
    return {layout: found[layout] for layout in sorted(wanted, key=lambda layout: (layout.epoch_height, str(layout.epoch_id)))}


def _catalogued(chain_id: str, reader: DocumentReader) -> tuple[dict[EpochLayout, int | None], FetchError | None]:
    """Return the published epochs that sources' catalogues list, with their newest revisions, but for those that are about to go."""
    name = catalogue_name(chain_id)
    found: dict[EpochLayout, int | None] = {}
    try:
        with closing(reader.read_all(name, CATALOGUE_BYTES_MAX)) as offers:
            for offer in offers:
                try:
                    catalogue = Catalogue.parse(offer.data, f"{offer.source_id}/{name}")
                except ManifestError as error:
                    reader.accounts[offer.source_id].note(error.problem)
                    continue
                for entry in catalogue.epochs if catalogue.chain_id == chain_id else ():
                    if entry.listing is not None and entry.leaving_since is None:
                        layout = catalogue.layout(entry)
                        found[layout] = max(entry.listing.revision, found.get(layout) or 0)
    except FetchError as error:
        return found, error
    return found, None


def _listed_between(
    lowest: int, highest: int | None, chain_id: str, sources: Sequence[Source], reader: DocumentReader
) -> list[EpochLayout]:
    """Return the epochs of a range that sources list: height by height where it is short."""
    heights: Sequence[int | None] = (None,)
    if highest is not None and highest - lowest < HEIGHTS_LISTED_MAX:
        heights = range(lowest, highest + 1)
    found: dict[EpochLayout, None] = {}
    for source in sources:
        if isinstance(source, EpochLister):
            try:
                for height in heights:
                    found |= dict.fromkeys(source.list_epochs(chain_id, height))
            except Exception as error:
                reader.accounts[source.source_id].note(failure_of(error)[1])
    return [layout for layout in found if lowest <= layout.epoch_height and (highest is None or layout.epoch_height <= highest)]


def _pointed_at(chain_id: str, reader: DocumentReader) -> tuple[list[EpochLayout], FetchError | None]:
    """Return the epochs that latest pointers name, in the order of the sources."""
    name = latest_name(chain_id)
    try:
        with closing(reader.read_all(name, POINTER_BYTES_MAX)) as found:
            offers = list(found)
    except FetchError as error:
        return [], error
    layouts = []
    for offer in offers:
        try:
            pointer = LatestPointer.parse(offer.data, f"{offer.source_id}/{name}")
        except ManifestError as error:
            reader.accounts[offer.source_id].note(error.problem)
            continue
        if pointer.chain_id == chain_id and pointer.layout not in layouts:
            layouts.append(pointer.layout)
    return layouts, None


def _listed(selector: str, chain_id: str, sources: Sequence[Source], reader: DocumentReader) -> list[EpochLayout]:
    height = int(selector) if selector.isdigit() else None
    found: list[EpochLayout] = []
    for source in sources:
        if isinstance(source, EpochLister):
            try:
                layouts = source.list_epochs(chain_id, height)
            except Exception as error:
                reader.accounts[source.source_id].note(failure_of(error)[1])
                continue
            found += [layout for layout in layouts if _means(selector, layout) and layout not in found]
    return found


def listed_chains(sources: Sequence[Source], reader: DocumentReader) -> list[str]:
    """Return the chains that sources have objects of, by name; one that can't be listed is asked nothing. Sources are not trusted here."""
    chains: set[str] = set()
    for source in sources:
        if isinstance(source, EpochLister):
            try:
                chains |= source.list_chains()
            except Exception as error:
                reader.accounts[source.source_id].note(failure_of(error)[1])
    return sorted(chains)


def _means(selector: str, layout: EpochLayout) -> bool:
    return selector in (str(layout.epoch_height), str(layout.epoch_id))
