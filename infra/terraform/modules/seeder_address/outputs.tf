output "name" {
  description = "Name of the address, for the Service's annotation."
  value       = google_compute_address.this.name
}

output "peer" {
  description = "HOST:PORT for `statecast fetch --peer` and for magnet links."
  value       = "${google_compute_address.this.address}:${var.port}"
}

output "near_addresses" {
  description = "HOST:PORT of each key of the public peer, in the order of the ports; with `ed25519:KEY@` before it what nodes name in boot_nodes."
  value       = [for port in var.near_ports : "${google_compute_address.this.address}:${port}"]
}
