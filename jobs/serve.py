"""``statecast serve``: a plain HTTP mirror over a folder of epochs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from jobs.event_lines import Events, opened_events, write_result
from jobs.options import Json, parse_rate
from pipelines.execution.stop_signals import stopping
from pipelines.seeding.mirror_values import Access, MirrorLimits
from schemas.address import Address, parse_address

if TYPE_CHECKING:
    from pipelines.seeding.mirror_server import Mirror

_DEFAULTS = MirrorLimits()


def serve(
    folder: Annotated[Path, typer.Argument(help="A folder with chain_id=… in it: what produce, fetch or seed wrote.")],
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT, or :PORT for all addresses.")] = ":8080",
    connections: Annotated[int, typer.Option("--connections", help="Most connections at once.")] = _DEFAULTS.connections,
    requests_per_client: Annotated[
        int, typer.Option("--requests-per-client", help="Most answers under way to one address.")
    ] = _DEFAULTS.requests_per_client,
    upload_limit: Annotated[
        str | None, typer.Option("--upload-limit", help="Most bytes a second to all clients, e.g. 200MB/s. Default: none.")
    ] = None,
    events: Events = None,
    as_json: Json = False,
) -> None:
    """Serve a folder's state parts, headers, torrents and manifests over HTTP until SIGTERM, SIGINT or SIGHUP.

    GET and HEAD, whole objects or one range, with ETag and digest; nothing but objects of the published layout. A line a request.
    It can be a source of `statecast fetch`, and a web seed.

    Example: `statecast serve /data/parts --listen :8080 --upload-limit 100MB/s`
    """
    # aiohttp takes a while to load, and no other command needs it.
    from pipelines.seeding.mirror_server import Mirror

    limits = MirrorLimits(
        connections=connections,
        requests_per_client=requests_per_client,
        upload_bytes_per_s=None if upload_limit is None else parse_rate(upload_limit, "--upload-limit"),
    )
    address = parse_address(listen, "--listen", every_host=True, any_port=True)

    answers: Counter[int] = Counter()
    with opened_events(events, as_json=as_json) as lines:
        is_shown = lines is None or not lines.on_standard_output

        def on_access(access: Access) -> None:
            answers[access.status] += 1
            facts = asdict(access)
            if lines is not None:
                lines.write({"message_type": "request", **facts})
            if is_shown:
                structlog.get_logger().info("request", **{name: value for name, value in facts.items() if value != ""})

        def on_listening(port: int) -> None:
            if lines is not None:
                lines.write({"message_type": "event", "event": "listening", "port": port})
            if is_shown:
                structlog.get_logger().info("listening", folder=str(folder), port=port)

        asyncio.run(_serve(Mirror(folder, limits, on_access), address, on_listening))
        if lines is not None:
            lines.write({"message_type": "event", "event": "stopped"})
        if is_shown:
            structlog.get_logger().info("stopped", folder=str(folder))
        document = {"message_type": "summary", "folder": str(folder), "answers": {str(code): answers[code] for code in sorted(answers)}}
        write_result(document, lines, as_json=as_json)


async def _serve(mirror: Mirror, address: Address, on_listening: Callable[[int], None]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_stop(_name: str) -> None:
        loop.call_soon_threadsafe(stop.set)

    with stopping(on_stop):
        await mirror.serve(address, on_listening, stop)
