"""``statecast deltas``: what changed between published epochs, published beside the later one."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from jobs.chain_url import locate_chain
from jobs.keygen import DEFAULT_SIGNING_KEY
from jobs.options import Epoch, Json, NodeHome, ReadLimit, RunOptions, node_home_folder, open_executor
from jobs.produce import default_work_folder
from jobs.publish_options import PublishOptions
from jobs.terminal import format_bytes, open_console, open_progress, open_table, print_json
from pipelines.bucket.published_epoch import read_manifest
from pipelines.dataset.arrow_dataset import DATASET_SCHEME, ShardDataset, list_shards
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.deltas.ladder import ladder_bases, published_layouts
from pipelines.producing.deltas.make_deltas import DeltaInputs, DeltaProduction
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.rebuild.rebuild_published import PublishedRebuild
from pipelines.stores.held_work_folder import held_work_folder
from pipelines.stores.open_store import open_store
from pipelines.stores.read_only import check_destination
from schemas.errors import EpochNotReadyError, InvalidInputError, PartialResultError
from schemas.nearcore.state_part import ZSTD_LEVEL_DEFAULT
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import EpochLayout
from schemas.shown_text import shown_url


def deltas(
    url: Annotated[str, typer.Argument(help="A bucket's folder, or a chain's in it (…/chain_id=…), where both epochs are published.")],
    epoch: Epoch = None,
    base: Annotated[
        list[str] | None,
        typer.Option(
            "--base",
            help="Height or id of the epoch that a delta leads from; may be repeated. Default: the last one before.",
            show_default=False,
        ),
    ] = None,
    ladder: Annotated[
        int | None,
        typer.Option(
            "--ladder", min=1, help="In place of --base: the epoch before, and the last one whose height is a multiple of N.", metavar="N"
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="A dataset of one of the epochs, to be read in place of its parts; may be repeated."),
    ] = None,
    node_home: NodeHome = None,
    read_limit: ReadLimit = None,
    chain_id: Annotated[str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.")] = None,
    signing_key: Annotated[
        str | None,
        typer.Option("--signing-key", help=f"As for statecast produce. Default: {DEFAULT_SIGNING_KEY} if it exists.", show_default=False),
    ] = None,
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="Publish without a signature.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Also rebuild the later epoch's parts with each delta in the work folder, and compare them with its statements."
        ),
    ] = False,
    work: Annotated[str | None, typer.Option("--work", help="Folder for what stages leave each other. Default: as for produce.")] = None,
    *,
    run: RunOptions,
    as_json: Json = False,
) -> None:
    """Publish what changed between epochs that are published already: a delta a shard, listed by a new revision of the later epoch's manifest.

    With --node-home the two tries of the node's State column are compared, which costs what changed; where a dataset of both epochs is
    there, the datasets; else the published parts are read. What is there already is left as it is.

    Example: `statecast deltas gs://bucket/prefix/chain_id=mainnet --epoch 2950 --ladder 8 --node-home ~/.near`
    """
    check_destination(url, "URL")
    root, chain, layout = locate_chain(url, chain_id)
    if layout is not None:
        raise InvalidInputError(
            problem="a delta is of two epochs", where=shown_url(url), remedy="End the URL at the chain; name the epoch with --epoch."
        )
    store = open_store(root)
    published = published_layouts(store, chain)
    target = chosen_layout(published, epoch or "latest", root)
    if base is not None and ladder is not None:
        raise InvalidInputError(problem="--base and --ladder exclude each other", where="--base")
    if base is not None:
        bases = tuple(chosen_layout(published, one, root) for one in base)
    else:
        bases = (
            ladder_bases(store, target, ladder or 1)
            if ladder
            else tuple(one for one in published if one.epoch_height < target.epoch_height)[-1:]
        )
    if any(one.epoch_height >= target.epoch_height for one in bases) or not bases:
        raise EpochNotReadyError(
            problem="a delta leads from a lower epoch that is published", where=f"epoch {target.epoch_height}, {shown_url(root)}"
        )
    signer = PublishOptions(to=root, signing_key=signing_key, allow_unsigned=allow_unsigned).choose_signer()
    stored = read_manifest(store, target)
    if stored is None:
        raise EpochNotReadyError(problem=f"epoch {target.epoch_height} is not published", where=shown_url(root))
    level = ZSTD_LEVEL_DEFAULT if stored.manifest.zstd is None else stored.manifest.zstd.level
    publisher = EpochPublisher(root, signer, stored.manifest.encoding, level)
    kernel = choose_kernel(run.kernel)
    work_url = work or default_work_folder(root)
    home = None if node_home is None else str(node_home_folder(node_home).resolve())
    inputs = DeltaInputs(_datasets(dataset or []), home, None if home is None else run.read_limit_each(read_limit))
    with (
        closing(open_progress()) as progress,
        closing(open_executor(run, beside_node=home is not None)) as executor,
        held_work_folder(work_url, alone=False),
    ):
        made = DeltaProduction(StageRunner(executor, progress), publisher, inputs, kernel.name, f"{work_url}/build").run(target, bases)
        if check:
            _check(StageRunner(executor, progress), kernel, root, work_url, target, bases)
    stored = read_manifest(store, target)
    listed = (
        () if stored is None else tuple(one for one in stored.manifest.deltas if one.base_epoch_id in {found.epoch_id for found in bases})
    )
    missing = len(bases) * len(() if stored is None else stored.manifest.shards) - len(listed)
    if as_json:
        print_json(
            {
                "message_type": "summary",
                "epoch": target.folder,
                "manifest_revision": None if stored is None else stored.manifest.revision,
                "made": [one.to_json() for one in made],
                "deltas": [one.to_json() for one in listed],
                "missing": missing,
            }
        )
    else:
        _print(target, listed, made)
    if missing:
        raise typer.Exit(PartialResultError.exit_code)


def _check(runner: StageRunner, kernel: Kernel, root: str, work_url: str, target: EpochLayout, bases: tuple[EpochLayout, ...]) -> None:
    """Rebuild the target with each of its deltas; what is wrong is raised."""
    store, into_url = open_store(root), f"{work_url}/build/rebuilt"
    rebuild = PublishedRebuild(runner, kernel, root, f"{work_url}/build", into_url)
    manifests = [stored.manifest for layout in (*bases, target) if (stored := read_manifest(store, layout)) is not None]
    for base in manifests[:-1]:
        for delta in manifests[-1].deltas:
            if delta.base_epoch_id == base.epoch_id:
                rebuild.run((base, manifests[-1]), delta.shard_id)
    open_store(into_url).delete_folder(target.folder)


def chosen_layout(published: tuple[EpochLayout, ...], selector: str, where: str) -> EpochLayout:
    """Return the one published epoch that is meant: ``latest``, a height or an id.

    Raises:
        EpochNotReadyError: there is none.
        InvalidInputError: several epochs have the height.
    """
    found = (
        published[-1:]
        if selector == "latest"
        else tuple(one for one in published if selector in (str(one.epoch_height), str(one.epoch_id)))
    )
    if not found:
        known = f"{published[0].epoch_height} to {published[-1].epoch_height}" if published else "none"
        raise EpochNotReadyError(problem=f"epoch {selector} is not published there", where=shown_url(where), remedy=f"There is {known}.")
    if len(found) > 1:
        raise InvalidInputError(problem=f"several epochs have the height {selector}", where=shown_url(where), remedy="Name an epoch id.")
    return found[0]


def _datasets(urls: list[str]) -> tuple[ShardDataset, ...]:
    return tuple(dataset for url in urls for dataset in list_shards(url.removeprefix(DATASET_SCHEME)))


def _print(target: EpochLayout, listed: tuple[ManifestDelta, ...], made: tuple[ManifestDelta, ...]) -> None:
    table = open_table(("shard", "from epoch", "objects", "bytes", ""), left=("",), title=f"deltas of {target.folder}")
    for one in listed:
        table.add_row(
            str(one.shard_id),
            str(one.base_epoch_height),
            f"{one.objects:,}",
            format_bytes(one.size),
            "made" if one in made else "was there",
        )
    open_console().print(table)
