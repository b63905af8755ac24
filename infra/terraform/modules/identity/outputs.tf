output "members" {
  description = "IAM members by role."
  value       = module.access.members
}

output "keeper_email" {
  description = "E-mail of the keeper's service account."
  value       = google_service_account.keeper.email
}
