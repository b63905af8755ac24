# Who may do what with which bucket, as data: no provider, so the rules are tested without a cloud.
locals {
  # Pods act under their Kubernetes service accounts (Workload Identity Federation): no keys, no accounts in between.
  pod_members = {
    for identity, account in var.service_accounts :
    identity => "principal://iam.googleapis.com/projects/${var.project_number}/locations/global/workloadIdentityPools/${var.project_id}.svc.id.goog/subject/ns/${var.namespace}/sa/${account}"
  }

  members = merge(local.pod_members, { keeper = var.keeper_member })

  # An object's full name in a condition is projects/_/buckets/BUCKET/objects/NAME.
  #
  # Replacing an object takes storage.objects.delete on Google's store. A producer must replace a few objects and no other: pointers, catalogue
  # and claim, statements (signatures are added), torrents (web seeds and trackers), and its own leases. So it may create anything, and
  # delete what has these names alone: a stolen producer can move pointers, which readers do not trust, but neither parts, headers, evidence nor
  # the manifest's revisions. Repairs (`statecast produce --repair`, `statecast scrub --repair-from`) are the keeper's.
  replaced_by_producer = join(" || ", concat(
    [for name in ["latest.json", "catalogue.json", "manifest.json", "claim.json"] : "resource.name.endsWith(\"/${name}\")"],
    [
      "resource.name.endsWith(\".torrent\")",
      "resource.name.extract(\"/statements/{name}\") != \"\"",
      "resource.name.extract(\"/leases/{name}\") != \"\"",
    ],
  ))

  # What a build worker makes. It runs on a spot machine, signs nothing and points at nothing.
  parts_only = "resource.name.extract(\"/state_part_{name}\") != \"\""

  # A reader that holds a lease writes, renews and removes it; nothing else.
  leases_only = "resource.name.extract(\"/leases/{name}\") != \"\""

  # Rows of decoded tables, and what each task notes of them. Catalogue, pointer, views and summaries are the producer's.
  rows_only = "resource.name.extract(\"/kind={name}\") != \"\" || resource.name.extract(\"/written/{name}\") != \"\""

  viewer  = "roles/storage.objectViewer"
  creator = "roles/storage.objectCreator"
  user    = "roles/storage.objectUser"

  of_buckets = {
    producer-reads    = { bucket = "state", member = local.members.producer, role = local.viewer, condition = null }
    producer-creates  = { bucket = "state", member = local.members.producer, role = local.creator, condition = null }
    producer-replaces = { bucket = "state", member = local.members.producer, role = var.deleter_role, condition = local.replaced_by_producer }
    producer-works    = { bucket = "work", member = local.members.producer, role = local.user, condition = null }
    builder-reads     = { bucket = "state", member = local.members.builder, role = local.viewer, condition = null }
    builder-creates   = { bucket = "state", member = local.members.builder, role = local.creator, condition = local.parts_only }
    builder-works     = { bucket = "work", member = local.members.builder, role = local.user, condition = null }
    seeder-reads      = { bucket = "state", member = local.members.seeder, role = local.viewer, condition = null }
    seeder-leases     = { bucket = "state", member = local.members.seeder, role = local.creator, condition = local.leases_only }
    seeder-unleases   = { bucket = "state", member = local.members.seeder, role = var.deleter_role, condition = local.leases_only }
    keeper-keeps      = { bucket = "state", member = local.members.keeper, role = local.user, condition = null }
  }

  # Decoded tables have a bucket of their own, since whoever makes them replaces what is there: the catalogue with each epoch, files where a
  # killed run is gone on with. What is replaced by somebody else the signed statement of the state bucket gives away (`statecast check`).
  of_tables = {
    producer-tables         = { bucket = "tables", member = local.members.producer, role = local.user, condition = null }
    builder-tables-reads    = { bucket = "tables", member = local.members.builder, role = local.viewer, condition = null }
    builder-tables-creates  = { bucket = "tables", member = local.members.builder, role = local.creator, condition = local.rows_only }
    builder-tables-replaces = { bucket = "tables", member = local.members.builder, role = var.deleter_role, condition = local.rows_only }
    keeper-tables           = { bucket = "tables", member = local.members.keeper, role = local.user, condition = null }
  }

  read_buckets = var.tables ? { "" = "state", "-tables" = "tables" } : { "" = "state" }

  of_readers = merge([
    for suffix, bucket in local.read_buckets : {
      for reader in var.readers : "reader${suffix}-${reader}" => { bucket = bucket, member = reader, role = local.viewer, condition = null }
    }
  ]...)

  of_public = {
    for suffix, bucket in local.read_buckets : "reader${suffix}-public" => { bucket = bucket, member = "allUsers", role = local.viewer, condition = null } if var.public
  }
}
