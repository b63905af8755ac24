variable "prefix" {
  description = "What all names begin with; bucket names are world-wide, so take something of your own."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.prefix))
    error_message = "prefix must be 3 to 20 lowercase letters, digits or hyphens, beginning with a letter and not ending with a hyphen."
  }
}

variable "chain_id" {
  description = "The NEAR chain, as its nodes name it: mainnet, testnet."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", var.chain_id))
    error_message = "chain_id must be as docs/spec/object-layout.md has it: letters, digits, dots, underscores and hyphens, 64 at most."
  }
}

variable "environment" {
  description = "Which of several installations this is, for labels: production, staging."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.environment))
    error_message = "environment must be lowercase letters, digits and hyphens."
  }
}

variable "labels" {
  description = "More labels for everything; those of this module win."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels must be lowercase letters, digits, underscores and hyphens."
  }
}
