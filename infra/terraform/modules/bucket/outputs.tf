output "name" {
  description = "Name of the bucket."
  value       = google_storage_bucket.this.name
}

output "url" {
  description = "As statecast takes it."
  value       = "gs://${google_storage_bucket.this.name}"
}
