"""``--dataset``: where the exported records go, or ``none`` for a run that exports none."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.look import RunPlace, disk_holds_dataset, run_size

NO_DATASET: Final = "none"
"""Each part is read from the source, and no dataset is written."""

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="URL|none",
        help="Where the exported records go and stay; all workers must share it. Default: in the work folder, and removed in the end. "
        "none: write no dataset; each part is read from the node, which is read twice, and its snapshot is needed until the last part is out. "
        "So it is done by itself where the work folder's disk would not hold the dataset.",
    ),
]


def dataset_url(dataset: str | None) -> str | None:
    """Return where the option says that the dataset goes; None for the work folder, or nowhere."""
    return None if dataset == NO_DATASET else dataset


def writes_dataset(dataset: str | None, place: RunPlace, found: EpochInput) -> bool:
    """Decide whether a run writes a dataset: not where the option says none, or where the work folder's disk would not hold it.

    Args:
        place: of the run; whether it writes a dataset is not looked at.
    """
    return dataset != NO_DATASET and disk_holds_dataset(place, found, run_size(found, place.encoding))
