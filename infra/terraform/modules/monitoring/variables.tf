variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "rule_files" {
  description = "Prometheus rule files, as paths; infra/monitoring has them."
  type        = list(string)
}

variable "left_out" {
  description = "Alerts of those files that do not fit this installation: those of `statecast watch` where the cluster makes the epochs."
  type        = set(string)
  default     = []
}

variable "notification_channels" {
  description = "Ids of the channels that are told. Without one, alerts are seen in the console only."
  type        = list(string)
  default     = []
}

variable "docs_url" {
  description = "Where this repository's docs can be read: the alerts link to their section of the runbook."
  type        = string
}

variable "dashboard_name" {
  description = "Name of the dashboard."
  type        = string
}

variable "labels" {
  description = "Labels of the alert policies."
  type        = map(string)
}
