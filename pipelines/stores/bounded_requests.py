"""The client of Azure speaks requests: over connections whose answers come in time (`pipelines.stores.http_client`)."""

from __future__ import annotations

from typing import Any

import requests.adapters

from pipelines.stores.http_client import bounded_pools


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """Waits for the head of an answer, and for each read of its body, as a whole."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Make the pools."""
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = bounded_pools(None)
