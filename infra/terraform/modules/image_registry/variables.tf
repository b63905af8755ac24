variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region of the repository: the cluster's."
  type        = string
}

variable "name" {
  description = "Id of the repository."
  type        = string
  default     = "statecast"
}

variable "labels" {
  description = "Labels of the repository."
  type        = map(string)
}

variable "keep_count" {
  description = "Newest images that stay, however old."
  type        = number
  default     = 20

  validation {
    condition     = var.keep_count >= 2
    error_message = "keep_count must be 2 or more: the one before is the way back."
  }
}
