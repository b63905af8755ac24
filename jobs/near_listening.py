"""Options of commands that take state from nearcore's network: where nodes bring answers that were asked for through others."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.nearpeer.peer_network import Listening
from schemas.address import parse_address
from schemas.errors import InvalidInputError
from schemas.nearcore.peer.identity import PeerAddress

_PANEL = "nearcore's own network"

NearListen = Annotated[
    str | None,
    typer.Option(
        "--near-listen",
        help="HOST:PORT on which nodes bring their answers; then every node that announces the epoch is asked, through those that are named.",
        rich_help_panel=_PANEL,
    ),
]
NearAddress = Annotated[
    str | None,
    typer.Option(
        "--near-address",
        help="IP:PORT at which nodes reach --near-listen. Default: its own; of 0.0.0.0, what the named nodes see.",
        rich_help_panel=_PANEL,
    ),
]


def near_listening(near_listen: str | None, near_address: str | None, *, has_peers: bool, peers_option: str) -> Listening | None:
    """Return where answers are taken; None for nowhere.

    Raises:
        InvalidInputError: no address, or an option that has nothing to say.
    """
    if near_listen is None:
        if near_address is not None:
            raise InvalidInputError(problem="--near-address needs --near-listen", where=near_address)
        return None
    if not has_peers:
        raise InvalidInputError(problem=f"--near-listen needs {peers_option} near://…, through which nodes are asked", where=near_listen)
    listen = parse_address(near_listen, "--near-listen", every_host=True, any_port=True)
    if near_address is None:
        return Listening(listen)
    public = parse_address(near_address, "--near-address")
    return Listening(listen, PeerAddress.of(public.host, public.port))
