output "state_url" {
  description = "For --to."
  value       = "${module.state_bucket.url}/near"
}

output "work_url" {
  description = "For --work."
  value       = "${module.work_bucket.url}/near"
}

output "tables_url" {
  description = "For --tables; null where none are made."
  value       = var.tables ? "${module.tables_bucket[0].url}/near" : null
}

output "identities" {
  description = "Roles and policies."
  value       = { roles = module.identities.role_arns, policies = module.identities.policy_arns }
}
