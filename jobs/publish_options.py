"""Options and decisions that every command which publishes shares: where to, in which form, signed by whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from jobs.keygen import DEFAULT_SIGNING_KEY
from jobs.options import parse_rate
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.deltas.delta_ladder import LADDER_MAX, DeltaLadder
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.publish.key_file import STANDARD_INPUT, load_signer, signer_from_standard_input
from pipelines.producing.publish.kms_key import SCHEME as KMS_SCHEME
from pipelines.producing.publish.kms_key import open_kms_signer
from pipelines.producing.publish.signing import Signer
from pipelines.stores.open_store import open_store
from pipelines.stores.read_only import check_destination, check_readable_again
from schemas.errors import InvalidInputError
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_part import Encoding, default_encoding

_OUTPUT = "What is published"


def _destination(url: str) -> str:
    check_destination(url, "--to")
    check_readable_again(url, "--to")
    return url


def _tables_destination(url: str | None) -> str | None:
    if url is not None:
        check_destination(url, "--tables")
        open_store(url)
    return url


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Where an epoch is published, in which form, signed by whom."""

    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Where objects go: gs://bucket/prefix, s3://bucket/prefix, az://container/prefix, or a folder.",
            rich_help_panel=_OUTPUT,
            callback=_destination,
        ),
    ]
    tables: Annotated[
        str | None,
        typer.Option(
            "--tables",
            help="Where the epoch's decoded tables go too: gs://bucket/prefix and the like, or a folder. The manifest names their signed list. "
            "They have what the tables there have; everything where there are none yet.",
            rich_help_panel=_OUTPUT,
            callback=_tables_destination,
        ),
    ] = None
    num_parts: Annotated[
        int | None, typer.Option("--num-parts", min=1, help="Parts a shard. Default: as nearcore computes it.", rich_help_panel=_OUTPUT)
    ] = None
    encoding: Annotated[
        Encoding | None,
        typer.Option(
            "--encoding",
            help="v0 (bare), v0-tagged or v1 (zstd). Default: what the epoch's protocol version writes.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    zstd_level: Annotated[int, typer.Option("--zstd-level", min=1, max=22, help="Level for v1.", rich_help_panel=_OUTPUT)] = 1
    signing_key: Annotated[
        str | None,
        typer.Option(
            "--signing-key",
            metavar="FILE|-|kms://…",
            help="Key file of statecast keygen, - for one on standard input, or a key in a key service (kms://gcp/projects/…, kms://aws/…). "
            f"Default: {DEFAULT_SIGNING_KEY} if it exists.",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="Publish without a signature.", rich_help_panel=_OUTPUT)] = False
    web_seed: Annotated[
        list[str] | None,
        typer.Option("--web-seed", help="Public URL of the objects for torrents; may be repeated.", rich_help_panel=_OUTPUT),
    ] = None
    tracker: Annotated[
        list[str] | None, typer.Option("--tracker", help="Tracker for the torrents; may be repeated.", rich_help_panel=_OUTPUT)
    ] = None

    deltas: Annotated[
        int | None,
        typer.Option(
            "--deltas",
            metavar="N",
            min=1,
            max=LADDER_MAX,
            help="Once an epoch is published, also publish what changed since the epoch before it and since the last one whose height is a "
            "multiple of N. Default: no deltas.",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None
    upload_limit: Annotated[
        str | None,
        typer.Option(
            "--upload-limit",
            help="Most bytes of parts a second to upload, all workers together, e.g. 50MB. Default: no limit.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None

    def encoding_of(self, context: EpochContext) -> Encoding:
        """Return the encoding of an epoch's parts."""
        return self.encoding or default_encoding(context.protocol_version)

    def upload_limit_each(self, processes: int) -> int | None:
        """Return the bytes a second that each of so many processes may upload; None for no limit.

        Raises:
            InvalidInputError: no number of bytes a second.
        """
        return None if self.upload_limit is None else max(1, parse_rate(self.upload_limit, "--upload-limit") // processes)

    def publisher(self, context: EpochContext, signer: Signer | None, processes: int = 1) -> EpochPublisher:
        """Return the publisher of an epoch; a web seed or tracker that is no URL is an InvalidInputError.

        Args:
            processes: how many share the upload limit.
        """
        return EpochPublisher(
            store_url=self.to,
            signer=signer,
            encoding=self.encoding_of(context),
            zstd_level=self.zstd_level,
            web_seeds=tuple(self.web_seed or ()),
            trackers=tuple(self.tracker or ()),
            upload_limit_bytes_per_s=self.upload_limit_each(processes),
            tables_url=self.tables,
        )

    def ladder(
        self, work_url: str, kernel: Kernel, node_home: Path | None, dataset_url: str | None, read_limit_bytes_per_s: int | None = None
    ) -> DeltaLadder | None:
        """Return what makes each epoch's deltas; None where none are asked for."""
        if self.deltas is None:
            return None
        home = None if node_home is None else str(node_home.resolve())
        return DeltaLadder(self.deltas, f"{work_url}/build", kernel.name, home, dataset_url, read_limit_bytes_per_s)

    def choose_signer(self) -> Signer | None:
        """Return the signers; None for an unsigned manifest.

        Raises:
            InvalidInputError: no key, and unsigned publishing was not asked for; or the text names no key of a key service.
            SignatureError: the key can't be used.
        """
        signing_key = self.signing_key
        if signing_key == STANDARD_INPUT:
            return signer_from_standard_input()
        if signing_key is not None and signing_key.startswith(KMS_SCHEME):
            return open_kms_signer(signing_key)
        if signing_key == "":
            raise InvalidInputError(problem="it names no key", where="--signing-key", remedy="Name a key, or leave the option out.")
        try:
            default = DEFAULT_SIGNING_KEY.expanduser()
            path = Path(signing_key).expanduser() if signing_key is not None else default if default.exists() else None
        except RuntimeError as error:
            raise InvalidInputError(
                problem=f"this user's home is not known: {error}", where=f"--signing-key {signing_key or ''}"
            ) from error
        if path is not None:
            return load_signer(path)
        if not self.allow_unsigned:
            raise InvalidInputError(
                problem="there is no signing key",
                where=str(default),
                remedy="Make one with `statecast keygen`, name one with --signing-key, or pass --allow-unsigned.",
            )
        return None
