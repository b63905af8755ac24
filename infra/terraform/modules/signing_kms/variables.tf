variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "name" {
  description = "Name of key ring and key."
  type        = string
}

variable "location" {
  description = "Region that holds the key."
  type        = string
}

variable "labels" {
  description = "Labels of the key."
  type        = map(string)
}

variable "signer" {
  description = "IAM member that signs: the producer of modules/access."
  type        = string
}

variable "protection_level" {
  description = "SOFTWARE, or HSM for a key that is in hardware."
  type        = string
  default     = "HSM"

  validation {
    condition     = contains(["SOFTWARE", "HSM"], var.protection_level)
    error_message = "protection_level must be SOFTWARE or HSM."
  }
}

variable "destroy_after_days" {
  description = "Days between destroying a version and its end."
  type        = number
  default     = 30

  validation {
    condition     = var.destroy_after_days >= 1 && var.destroy_after_days <= 120
    error_message = "destroy_after_days must be from 1 to 120."
  }
}
