"""``statecast prove``: a proof of one record, or of a contract's keys with a prefix, out of a published epoch or a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.option_groups import Without
from jobs.options import Epoch, Json, KernelName, NodeHome, TrustOptions, node_home_folder
from jobs.output_file import write_output
from jobs.proof_display import print_proof, proof_document
from jobs.terminal import format_bytes, open_console, print_json
from pipelines.bucket.locate_epoch import locate_epoch
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.proving.prove_node import NodeProofRequest, prove_from_node
from pipelines.proving.prove_published import PublishedProof, PublishedProofRequest, prove_from_published
from pipelines.proving.verify_trie_proof import VerifiedProof, verify_trie_proof
from pipelines.proving.wanted_record import wanted_record
from pipelines.trust.policy import TrustPolicy
from schemas.errors import InvalidInputError
from schemas.nearcore.shard_layout import ShardLayout, shard_layout_from_json

_WHAT = "What is proven"
_STATE = "At which state"


def prove(
    *,
    url: Annotated[
        str | None, typer.Argument(help="An epoch's folder (…/chain_id=…/epoch_height=…/epoch_id=…), or a bucket's: its latest epoch.")
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", help="An account id; alone: the account's own record.", rich_help_panel=_WHAT)
    ] = None,
    access_key: Annotated[
        str | None, typer.Option("--access-key", help="The account's access key with this public key (ed25519:…).", rich_help_panel=_WHAT)
    ] = None,
    contract_key: Annotated[
        str | None,
        typer.Option("--contract-key", help="An entry of the contract's storage: a text, hex:… or base64:….", rich_help_panel=_WHAT),
    ] = None,
    contract_prefix: Annotated[
        str | None,
        typer.Option(
            "--contract-prefix",
            help="All entries of the contract's storage with a prefix, as RPC view_state answers them; empty for all.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    contract_code: Annotated[bool, typer.Option("--contract-code", help="The account's contract code.", rich_help_panel=_WHAT)] = False,
    trie_key: Annotated[
        str | None, typer.Option("--trie-key", help="A trie key in raw bytes: hex:… or base64:….", rich_help_panel=_WHAT)
    ] = None,
    node_home: NodeHome = None,
    epoch: Epoch = None,
    block: Annotated[
        str | None,
        typer.Option("--block", help="With --node-home: the state after the block of this height or hash.", rich_help_panel=_STATE),
    ] = None,
    shard_id: Annotated[
        int | None, typer.Option("--shard-id", help="The shard, where it can't be told from the account.", rich_help_panel=_STATE)
    ] = None,
    shard_layout: Annotated[
        Path | None,
        typer.Option(
            "--shard-layout",
            help='JSON file with the shard layout: {"V2": …}, or a genesis or epoch configuration with a shard_layout. Without it: that of '
            "the manifest or the node.",
            rich_help_panel=_STATE,
        ),
    ] = None,
    trust: Annotated[TrustOptions, Without("insecure")],
    kernel: KernelName = "auto",
    out: Annotated[Path | None, typer.Option("--out", help="File that gets the proof, for `statecast verify-proof`.")] = None,
    as_json: Json = False,
) -> None:
    """Prove what the state says of an account, access key, contract entry or contract code; also that it is not there.

    Reads one part of a published epoch, or with `--node-home` a few trie nodes of a node's database, and verifies the proof before
    it is written.

    Example: `statecast prove gs://bucket/prefix --account alice.near --out proof.json`
    """
    wanted = wanted_record(
        account,
        access_key=access_key,
        contract_key=contract_key,
        contract_prefix=contract_prefix,
        contract_code=contract_code,
        trie_key=trie_key,
    )
    layout = None if shard_layout is None else read_shard_layout_file(shard_layout)
    trusted = trust.block()
    if (url is None) == (node_home is None):
        raise InvalidInputError(
            problem="name one place that the state is in", remedy="Give an epoch's or bucket's URL, or --node-home HOME."
        )
    if node_home is not None:
        if trust.trust_key:
            raise InvalidInputError(problem="--trust-key is for published epochs: a node signs nothing")
        request = NodeProofRequest(node_home_folder(node_home), wanted, epoch or "latest", block, shard_id, layout)
        verified = prove_from_node(request)
        if trusted is not None:
            verified = verify_trie_proof(verified.proof, f"proof from {node_home}", trusted)
        _finish(verified, None, out, as_json)
        return
    assert url is not None, "one of the two is given"
    if block is not None or epoch is not None:
        raise InvalidInputError(problem="--block and --epoch are for --node-home", remedy="Name a published epoch by its URL.")
    rule = trust.rule()
    # Like `check`, this trusts every manifest and says so: the proof shows what it is tied to.
    policy = TrustPolicy(rule, trusted, insecure=rule is None and trusted is None)
    root, layout_of_epoch = locate_epoch(url)
    published = prove_from_published(PublishedProofRequest(root, layout_of_epoch, wanted, policy, shard_id, layout, kernel))
    _finish(published.verified, published, out, as_json)


def read_shard_layout_file(path: Path) -> ShardLayout:
    """Read a shard layout alone, or that of a genesis file or an epoch configuration.

    Raises:
        InvalidInputError: there is none.
    """
    # A genesis file is read no further than its layout; a file of a layout alone is short.
    fields = read_genesis_fields(path.expanduser(), ("shard_layout",))
    layout = fields.get("shard_layout") or read_genesis_fields(path.expanduser(), ("V0", "V1", "V2", "V3"))
    return shard_layout_from_json(layout, str(path))


def _finish(verified: VerifiedProof, published: PublishedProof | None, out: Path | None, as_json: bool) -> None:
    """Write the proof and say what it says."""
    data = verified.proof.to_bytes()
    if out is not None:
        write_output(out, data)
    if as_json:
        document: dict[str, Any] = {"message_type": "summary", **proof_document(verified), "file": None if out is None else str(out)}
        if published is not None:
            document |= {
                "signers": list(published.signers),
                "parts_read": list(published.parts_read),
                "bytes_read": published.bytes_read,
                "shard_layout_signers": None if published.layout_signers is None else list(published.layout_signers),
            }
        print_json(document if out is not None else {**document, "proof": json.loads(data)})
        return
    console = open_console()
    print_proof(console, verified)
    if published is not None:
        read = f"{len(published.parts_read)} part{'' if len(published.parts_read) == 1 else 's'}"
        signed = f", signed by {', '.join(published.signers)}" if published.signers else ""
        console.print(f"read {read}, {format_bytes(published.bytes_read)}{signed}", highlight=False, soft_wrap=True)
        if published.layout_signers is not None:
            word = f"signed by {', '.join(published.layout_signers)}" if published.layout_signers else "which no key of yours has signed"
            console.print(f"the shard is that of the manifest's shard layout, {word}", highlight=False, soft_wrap=True)
    written = f"written to {out}" if out is not None else "--out FILE writes the proof"
    console.print(f"{written} ({format_bytes(len(data))})", highlight=False, soft_wrap=True)
