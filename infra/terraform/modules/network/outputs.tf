output "network" {
  description = "Id of the network."
  value       = google_compute_network.this.id
}

output "subnetwork" {
  description = "Id of the subnetwork."
  value       = google_compute_subnetwork.this.id
}

output "range_names" {
  description = "Names of the secondary ranges of pods and services."
  value       = { pods = "pods", services = "services" }
}
