output "name" {
  description = "Name of the address, for the Service's annotation."
  value       = google_compute_address.this.name
}

output "peer" {
  description = "HOST:PORT for `statecast fetch --peer` and for magnet links."
  value       = "${google_compute_address.this.address}:${var.port}"
}
