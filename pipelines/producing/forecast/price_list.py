"""What a provider takes for storage, requests, traffic and machines: a small TOML file that the operator keeps.

::

    currency = "USD"
    storage_gib_month = 0.020
    write_requests_1000 = 0.005
    read_requests_1000 = 0.0004
    egress_gib = 0.12
    worker_core_hour = 0.012        # a core of the machines that build parts, with its memory
    head_hour = 0.10                # the machine of the cluster's head

All fields but the currency are prices, zero where there is none to pay. No I/O.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields

from schemas.errors import InvalidInputError

PRICE_LIST_BYTES_MAX = 64 << 10
"""Most bytes that are read of a price list."""

PRICE_MAX = 1e9
"""Largest price."""

CURRENCY_LENGTH_MAX = 8


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices in one currency."""

    currency: str
    storage_gib_month: float
    write_requests_1000: float
    read_requests_1000: float
    egress_gib: float
    worker_core_hour: float
    head_hour: float

    @staticmethod
    def parse(data: bytes, where: str) -> PriceList:
        """Parse a price list.

        Raises:
            InvalidInputError: not TOML, a field missing, unknown or no price.
        """
        if len(data) > PRICE_LIST_BYTES_MAX:
            raise InvalidInputError(problem=f"a price list has at most {PRICE_LIST_BYTES_MAX} bytes", where=where)
        try:
            document = tomllib.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(problem=f"the price list is not TOML: {error}", where=where) from None
        currency = document.pop("currency", None)
        if not isinstance(currency, str) or not 1 <= len(currency) <= CURRENCY_LENGTH_MAX or not currency.isprintable():
            raise InvalidInputError(problem=f"currency must be text of at most {CURRENCY_LENGTH_MAX} characters", where=where)
        names = [field.name for field in fields(PriceList) if field.name != "currency"]
        for name in document:
            if name not in names:
                raise InvalidInputError(
                    problem=f"a price list has no field {name[:80]}", where=where, remedy=f"Its fields are currency, {', '.join(names)}."
                )
        prices = {}
        for name in names:
            price = document.get(name)
            if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price <= PRICE_MAX:
                raise InvalidInputError(problem=f"{name} must be a price from 0 on", where=where)
            prices[name] = float(price)
        return PriceList(currency=currency, **prices)
