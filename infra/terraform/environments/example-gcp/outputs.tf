output "kustomize_settings" {
  description = "Values for infra/kubernetes/overlays/example-gcp/kustomization.yaml."
  value       = <<-EOT
    CHAIN_ID=${var.chain_id}
    STATE_URL=${module.state_bucket.url}/near
    WORK_URL=${module.work_bucket.url}/near
    %{if var.tables~}
    STATECAST_PRODUCE_TABLES=${module.tables_bucket[0].url}/near
    STATECAST_BACKFILL_TABLES=${module.tables_bucket[0].url}/near
    %{endif~}
    image: ${module.image_registry.image}:${var.image_tag}
    signing key: ${var.sign_in_key_service ? module.signing_kms[0].signing_key : module.signing_key.first_version}
    seeder address: ${module.seeder_address.name}
    maxReplicas of the group build: ${module.sizing.build_workers}
  EOT
}

output "cluster" {
  description = "Name of the cluster, for `gcloud container clusters get-credentials`."
  value       = module.gke.name
}

output "image" {
  description = "Name of the image, without a tag."
  value       = module.image_registry.image
}

output "near_addresses" {
  description = "HOST:PORT of the public peer's keys, where the overlay has infra/kubernetes/public-peer."
  value       = module.seeder_address.near_addresses
}

output "seeder_peer" {
  description = "HOST:PORT that fetchers name as a peer."
  value       = module.seeder_address.peer
}

output "bill_of_materials" {
  description = "What runs and what it is sized for."
  value = {
    pools             = module.gke.pools
    build_workers     = module.sizing.build_workers
    objects_per_epoch = module.sizing.objects_per_epoch
    keeper_jobs       = module.keeper_jobs.jobs
    alerts            = module.monitoring.alerts
    members           = module.identity.members
    operator          = module.kuberay.chart_version
  }
}
