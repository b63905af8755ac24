"""``statecast verify-proof``: verifies a proof document without a network, a node or a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import Json
from jobs.proof_display import print_proof, proof_document
from jobs.prove import read_shard_layout_file
from jobs.terminal import open_console, print_json
from pipelines.proving.verify_trie_proof import read_proof, verify_trie_proof
from schemas.ids import CryptoHash


def verify_proof_file(
    file: Annotated[Path, typer.Argument(help="A proof that `statecast prove --out` wrote.")],
    trusted_block: Annotated[
        str | None,
        typer.Option("--trusted-block", help="Hash of the block that names the state root, or of its child; the proof has their headers."),
    ] = None,
    state_root: Annotated[str | None, typer.Option("--state-root", help="The state root, where you know it.")] = None,
    shard_layout: Annotated[
        Path | None,
        typer.Option(
            "--shard-layout",
            help='JSON file with the shard layout: {"V2": …}, or a genesis or epoch configuration with a shard_layout. The proof must be '
            "of the shard that it has the account in.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a proof offline: its nodes, its value or absence, and its state root against what you trust.

    Absence counts only in the account's own shard, which `--shard-layout` checks. Without `--trusted-block` and `--state-root` a proof
    can only be consistent. One that does not hold exits with 20.

    Example: `statecast verify-proof proof.json --trusted-block 2jgsQEn3MJLxybzAcWeNbuwARv6GScoSQfig5X1B13P1`
    """
    block = None if trusted_block is None else CryptoHash.from_base58(trusted_block)
    root = None if state_root is None else CryptoHash.from_base58(state_root)
    layout = None if shard_layout is None else read_shard_layout_file(shard_layout)
    verified = verify_trie_proof(read_proof(file), str(file), block, root, layout)
    if as_json:
        print_json({"message_type": "summary", **proof_document(verified)})
    else:
        print_proof(open_console(), verified)
