variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "name" {
  description = "Name of the cluster."
  type        = string
}

variable "region" {
  description = "Region of the control plane."
  type        = string
}

variable "zones" {
  description = "Zones of the machines; the first is that of the NEAR node's disk."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 1
    error_message = "zones must name one zone at least."
  }
}

variable "network" {
  description = "Id of the network."
  type        = string
}

variable "subnetwork" {
  description = "Id of the subnetwork."
  type        = string
}

variable "range_names" {
  description = "Names of the subnetwork's secondary ranges."
  type        = object({ pods = string, services = string })
}

variable "control_plane_range" {
  description = "Private /28 range of the control plane."
  type        = string
  default     = "172.16.0.0/28"

  validation {
    condition     = can(cidrnetmask(var.control_plane_range)) && endswith(var.control_plane_range, "/28")
    error_message = "control_plane_range must be a /28."
  }
}

variable "authorized_networks" {
  description = "Networks that may reach the Kubernetes API, by a name for each."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for range in values(var.authorized_networks) : can(cidrnetmask(range)) && !endswith(range, "/0")])
    error_message = "authorized_networks must be IPv4 ranges, and not the whole internet."
  }
}

variable "nodes_account" {
  description = "Account id of the machines' service account."
  type        = string
}

variable "labels" {
  description = "Labels of cluster and machines."
  type        = map(string)
}

variable "machine_types" {
  description = "Machine types of the pools. node_disk runs neard too; build must have the cores that modules/sizing counts with."
  type = object({
    on_demand = optional(string, "e2-standard-4")
    node_disk = optional(string, "n2-standard-16")
    build     = optional(string, "n2-standard-8")
  })
  default = {}
}

variable "on_demand_max" {
  description = "Most machines of the on-demand pool."
  type        = number
  default     = 3

  validation {
    condition     = var.on_demand_max >= 1
    error_message = "on_demand_max must be 1 or more."
  }
}

variable "build_max" {
  description = "Most spot machines of the build pool: what a run asks for, and a backfill beside it."
  type        = number

  validation {
    condition     = var.build_max >= 1 && var.build_max <= 500
    error_message = "build_max must be from 1 to 500."
  }
}

variable "boot_disk_gib" {
  description = "Sizes of the machines' boot disks: image and scratch space. Of each, GKE keeps 10 % free and reserves 6 GiB and 35 % (50 %, or 100 GiB, where that is less)."
  type = object({
    on_demand = optional(number, 100)
    node_disk = optional(number, 250)
    build     = optional(number, 100)
  })
  default = {}

  validation {
    condition     = var.boot_disk_gib.on_demand >= 60 && var.boot_disk_gib.node_disk >= 200 && var.boot_disk_gib.build >= 90
    error_message = "boot_disk_gib must be 60, 200 and 90 or more: else no machine has the scratch space that pods ask for, and they stay pending."
  }
}

variable "maintenance" {
  description = "When Google may change control plane and machines; the window's first times (RFC 3339) and how it recurs (RFC 5545)."
  type        = object({ start_time = string, end_time = string, recurrence = string })
  default = {
    start_time = "2026-01-03T06:00:00Z"
    end_time   = "2026-01-03T14:00:00Z"
    recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
  }
}

variable "deletion_protection" {
  description = "Whether terraform refuses to delete the cluster."
  type        = bool
  default     = true
}
