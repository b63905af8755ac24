variable "rule_files" {
  description = "Prometheus rule files, as paths; infra/monitoring has them."
  type        = list(string)

  validation {
    condition     = alltrue([for file in var.rule_files : can(yamldecode(file(file)).groups)])
    error_message = "rule_files must be files of Prometheus alert rules."
  }
}

variable "left_out" {
  description = "Alerts of those files that do not fit an installation."
  type        = set(string)
  default     = []
}

variable "docs_url" {
  description = "Where this repository's docs can be read: the alerts link to their section of the runbook."
  type        = string

  validation {
    condition     = can(regex("^https://[^ ]+[^/]$", var.docs_url))
    error_message = "docs_url must begin with https:// and not end with a slash."
  }
}
