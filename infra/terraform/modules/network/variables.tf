variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "name" {
  description = "Name of network, subnetwork, router and address translation."
  type        = string
}

variable "region" {
  description = "Region of the subnetwork."
  type        = string
}

variable "ranges" {
  description = "Private address ranges of machines, pods and services."
  type = object({
    machines = optional(string, "10.20.0.0/20")
    pods     = optional(string, "10.24.0.0/14")
    services = optional(string, "10.20.16.0/20")
  })
  default = {}

  validation {
    condition     = alltrue([for range in values(var.ranges) : can(cidrnetmask(range)) && startswith(range, "10.")])
    error_message = "ranges must be IPv4 ranges within 10.0.0.0/8."
  }
}

variable "flow_log_sampling" {
  description = "Share of flows that are logged, 0 to 1; parts are large, so a small share tells enough."
  type        = number
  default     = 0.05

  validation {
    condition     = var.flow_log_sampling >= 0 && var.flow_log_sampling <= 1
    error_message = "flow_log_sampling must be from 0 to 1."
  }
}
