variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "name" {
  description = "Name of the address; the Service takes it by this name."
  type        = string
}

variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "labels" {
  description = "Labels of the address."
  type        = map(string)
}

variable "port" {
  description = "Port of the seeder's Service. BitTorrent over TCP; uTP is off (docs/operations/seeding.md), so no UDP."
  type        = number
  default     = 6881

  validation {
    condition     = var.port >= 1024 && var.port <= 65535
    error_message = "port must be from 1024 to 65535."
  }
}

variable "near_ports" {
  description = "Ports of the Service where the seeder is a peer of nearcore's network too (infra/kubernetes/public-peer); a key each, so a port keeps its number as long as its key."
  type        = list(number)
  default     = [24567, 24568]

  validation {
    condition     = length(var.near_ports) <= 2 && alltrue([for port in var.near_ports : port >= 1024 && port <= 65535])
    error_message = "near_ports has at most two ports from 1024 to 65535."
  }
}
