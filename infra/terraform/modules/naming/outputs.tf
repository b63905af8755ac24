output "base" {
  description = "What names begin with: prefix and chain."
  value       = local.base
}

output "names" {
  description = "Names by what they are for."
  value = {
    state_bucket   = "${local.base}-state"
    work_bucket    = "${local.base}-work"
    tables_bucket  = "${local.base}-tables"
    cluster        = local.base
    network        = local.base
    signing_key    = "${local.base}-signing-key"
    seeder_address = "${local.base}-seeder"
    # An account id has 30 characters at most.
    nodes_account     = "${substr(local.base, 0, 22)}-nodes"
    keeper_account    = "${substr(local.base, 0, 22)}-keeper"
    scheduler_account = "${substr(local.base, 0, 22)}-sched"
  }
}

output "labels" {
  description = "Labels that everything carries."
  value       = local.labels
}
