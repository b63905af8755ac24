output "name" {
  description = "Name of the cluster."
  value       = google_container_cluster.this.name
}

output "endpoint" {
  description = "Address of the Kubernetes API."
  value       = google_container_cluster.this.endpoint
  sensitive   = true
}

output "ca_certificate" {
  description = "Certificate authority of the Kubernetes API, base64."
  value       = google_container_cluster.this.master_auth[0].cluster_ca_certificate
  sensitive   = true
}

output "pools" {
  description = "Node pools with their machine type, and the most machines of each."
  value       = { for name, pool in local.pools : name => { machine_type = pool.machine_type, spot = pool.spot, max = pool.max } }
}
