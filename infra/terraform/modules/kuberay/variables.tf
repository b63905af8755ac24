variable "chart_version" {
  description = "Version of the chart kuberay-operator; what the manifests of infra/kubernetes were checked against."
  type        = string
  default     = "1.7.0"

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.chart_version))
    error_message = "chart_version must be one version, such as 1.7.0."
  }
}

variable "namespace" {
  description = "Namespace of the operator; the network policies of infra/kubernetes let it in by this name."
  type        = string
  default     = "kuberay-operator"
}

variable "watched_namespaces" {
  description = "Namespaces whose Ray resources the operator looks after."
  type        = list(string)
  default     = ["statecast"]

  validation {
    condition     = length(var.watched_namespaces) >= 1
    error_message = "watched_namespaces must not be empty: that would mean all."
  }
}
