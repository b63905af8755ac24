# Peers and torrents remember a seeder by its address, so it must outlive the load balancer. The load balancer and its firewall rule come with
# the Service in infra/kubernetes/base/seeder.yaml, which opens the same port.
resource "google_compute_address" "this" {
  name         = var.name
  project      = var.project_id
  region       = var.region
  address_type = "EXTERNAL"
  network_tier = "PREMIUM"
  labels       = var.labels
}
