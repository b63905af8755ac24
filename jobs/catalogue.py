"""``statecast catalogue``: what a store has of a chain, one line an epoch."""

from __future__ import annotations

from random import Random
from typing import Annotated

import typer
from rich.text import Text

from jobs.chain_url import locate_chain
from jobs.options import Json
from jobs.terminal import coloured, format_bytes, open_console, open_table, print_json, say
from pipelines.bucket.chain_catalogue import CatalogueWriter, read_catalogue
from pipelines.bucket.published_deltas import deltas_in_words
from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.epoch_location import parse_epoch_url
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.source_account import open_account
from pipelines.fetching.source_from_url import open_source
from pipelines.fetching.throttle import Throttle
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError, ManifestError, StoreDeniedError
from schemas.published.catalogue import CATALOGUE_BYTES_MAX, Catalogue, CatalogueEpoch
from schemas.published.object_layout import catalogue_name
from schemas.shown_text import shown_url


def catalogue(
    url: Annotated[str, typer.Argument(help="A bucket's folder, or a chain's in it (…/chain_id=…); also of a web server.")],
    chain_id: Annotated[str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild it from the manifests in the store.")] = False,
    as_json: Json = False,
) -> None:
    """Show which epochs a store has: shards, bytes, whether they are complete, and which are about to go.

    Commands that publish or collect keep the catalogue. A missing or damaged one is rebuilt from the manifests. It is not
    signed, and `fetch` does not trust it.

    Example: `statecast catalogue gs://bucket/prefix/chain_id=mainnet`
    """
    found, note = _from_web(url, chain_id, rebuild) if url.startswith(("http://", "https://")) else _from_store(url, chain_id, rebuild)
    if as_json:
        document = {"message_type": "summary", "url": url, **found.to_json(), "note": note}
        print_json(document)
        return
    if note:
        say(note, on_stderr=True)
    _print(found)


def _from_store(url: str, chain_id: str | None, rebuild: bool) -> tuple[Catalogue, str]:
    root, chain, _ = locate_chain(url, chain_id)
    store = open_store(root)
    note = "the catalogue was rebuilt from the manifests" if rebuild else "there was no catalogue: it was made from the manifests"
    try:
        there = None if rebuild else read_catalogue(store, chain)
        if there is not None:
            return there, ""
    except ManifestError as error:
        note = f"the catalogue could not be read and was rebuilt from the manifests: {error.problem}"
    writer = CatalogueWriter(store, chain)
    try:
        return writer.rebuild().catalogue, note
    except StoreDeniedError:
        if rebuild:
            raise
        return writer.survey(), f"{note}; the store can't be written, so it is kept nowhere"


def _from_web(url: str, chain_id: str | None, rebuild: bool) -> tuple[Catalogue, str]:
    """Read what a web server has; only a store can be listed."""
    located = parse_epoch_url(url)
    chain = located.chain_id or chain_id
    if rebuild or chain is None:
        raise InvalidInputError(
            problem="a web server can't be listed",
            where=shown_url(url),
            remedy="Name the chain; --rebuild needs permission to write.",
        )
    source, limits = open_source(located.root, Throttle([])), FetchLimits()
    try:
        accounts = {source.source_id: open_account(source.source_id, source.traits, limits)}
        name = catalogue_name(chain)
        data = DocumentReader([source], accounts, limits, Random()).read_judged(name, CATALOGUE_BYTES_MAX, lambda data: data)[1]
    finally:
        source.close()
    return Catalogue.parse(data, f"{located.root}/{name}"), ""


def _print(found: Catalogue) -> None:
    console = open_console()
    columns = ("height", "epoch id", "shards", "parts", "stored", "protocol", "revision", "published", "state")
    table = open_table(columns, left=("epoch id", "published", "state"), title=f"{found.chain_id}: {len(found.epochs)} epochs")
    for epoch in reversed(found.epochs):
        table.add_row(*_row(epoch))
    console.print(table)


def _steps(epoch: CatalogueEpoch) -> str:
    return f"had from {epoch.steps[0][0]} by {deltas_in_words(len(epoch.steps))}"


def _row(epoch: CatalogueEpoch) -> tuple[str | Text, ...]:
    leaving = None if epoch.leaving_since is None else coloured((f"being deleted since {epoch.leaving_since:%Y-%m-%d %H:%M}", "yellow"))
    listing = epoch.listing
    if listing is None:
        return (f"{epoch.epoch_height}", str(epoch.epoch_id), *[""] * 6, leaving or coloured((f"damaged: {epoch.problem}", "red")))
    parts, num_parts = sum(shard.parts for shard in listing.shards), sum(shard.num_parts for shard in listing.shards)
    state = coloured(("complete", "green") if listing.is_complete else ("incomplete", "yellow"))
    return (
        f"{epoch.epoch_height}",
        str(epoch.epoch_id),
        f"{len(listing.shards)}",
        f"{parts:,}" if parts == num_parts else f"{parts:,} of {num_parts:,}",
        format_bytes(listing.size),
        f"{listing.protocol_version}",
        f"{listing.revision}",
        f"{listing.created:%Y-%m-%d %H:%M:%S}",
        leaving or (coloured((_steps(epoch), "cyan")) if epoch.steps else state),
    )
