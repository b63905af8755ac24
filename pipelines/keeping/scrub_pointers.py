"""Looks at what lies beside a chain's epochs, the latest pointer and the catalogue, and rebuilds a damaged one from the manifests.

Readers trust neither; a damaged pointer stops readers that ask for the newest epoch anyway.
"""

from __future__ import annotations

from pipelines.bucket.chain_catalogue import CatalogueWriter, read_catalogue
from pipelines.bucket.read_latest import read_latest
from pipelines.keeping.findings import Finding, FindingKind
from pipelines.keeping.repair_epoch import OWN_STORE, Repair
from pipelines.stores.store import Store
from schemas.errors import ManifestError, ObjectExistsError
from schemas.published.latest_pointer import LatestPointer
from schemas.published.object_layout import catalogue_name, latest_name


def scrub_pointers(store: Store, chain_id: str) -> tuple[Finding, ...]:
    """Return what is wrong with a chain's latest pointer and catalogue; one that is not there is not wrong.

    Raises:
        StoreError: the store can't be read.
    """
    findings = []
    try:
        pointer = read_latest(store, chain_id)
        if pointer is not None and store.info(pointer.layout.manifest) is None:
            findings.append(Finding(FindingKind.WRONG, latest_name(chain_id), "it names an epoch that is not published here"))
    except ManifestError as error:
        findings.append(Finding(FindingKind.WRONG, latest_name(chain_id), error.problem))
    try:
        read_catalogue(store, chain_id)
    except ManifestError as error:
        findings.append(Finding(FindingKind.WRONG, catalogue_name(chain_id), error.problem))
    return tuple(findings)


def repair_pointers(store: Store, chain_id: str, findings: tuple[Finding, ...]) -> tuple[Repair, ...]:
    """Rebuild what is wrong from the manifests in the store.

    Raises:
        StoreError: the store can't be read or written.
    """
    repairs = []
    for finding in findings:
        if finding.object_name == catalogue_name(chain_id):
            CatalogueWriter(store, chain_id).rebuild()
            repairs.append(Repair(finding, OWN_STORE))
        else:
            repairs.append(_repair_latest(store, chain_id, finding))
    return tuple(repairs)


def _repair_latest(store: Store, chain_id: str, finding: Finding) -> Repair:
    found = store.info(finding.object_name)
    catalogue = CatalogueWriter(store, chain_id).survey()
    newest = next((epoch for epoch in reversed(catalogue.epochs) if epoch.listing is not None and epoch.listing.is_complete), None)
    if newest is None or newest.listing is None:
        return Repair(finding, problem="no complete epoch is published")
    pointer = LatestPointer(chain_id, newest.epoch_height, newest.epoch_id, newest.listing.revision, newest.listing.manifest_sha256)
    try:
        store.swap(finding.object_name, pointer.to_bytes(), found)
    except ObjectExistsError:
        return Repair(finding, problem="another writer replaced it in the meantime")
    return Repair(finding, OWN_STORE)
