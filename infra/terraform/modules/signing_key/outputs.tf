output "secret_id" {
  description = "Id of the secret."
  value       = google_secret_manager_secret.this.secret_id
}

output "first_version" {
  description = "Resource name of the first version, for the SecretProviderClass of infra/kubernetes."
  value       = "${google_secret_manager_secret.this.name}/versions/1"
}
