variable "state_gib" {
  description = "Size of the whole state: the sum of all shards' memory usage, in GiB."
  type        = number

  validation {
    condition     = var.state_gib > 0
    error_message = "state_gib must be positive."
  }
}

variable "deadline_minutes" {
  description = "Minutes after the epoch's begin by which the last part must be out."
  type        = number
  default     = 120

  validation {
    condition     = var.deadline_minutes >= 10 && var.deadline_minutes <= 420
    error_message = "deadline_minutes must be from 10 to 420: an epoch lasts about 7 hours."
  }
}

variable "read_mib_per_s" {
  description = "What the node's disk gives to the export beside neard, in MiB a second; the value of --read-limit."
  type        = number
  default     = 200

  validation {
    condition     = var.read_mib_per_s > 0
    error_message = "read_mib_per_s must be positive."
  }
}

variable "build_mib_per_core_s" {
  description = "What a core builds, validates and uploads, in MiB of state a second, all stages together. docs/benchmarks.md has 87 onto a local disk; a bucket costs more."
  type        = number
  default     = 40

  validation {
    condition     = var.build_mib_per_core_s > 0
    error_message = "build_mib_per_core_s must be positive."
  }
}

variable "headroom" {
  description = "Factor for preempted machines, retries and the uneven end."
  type        = number
  default     = 1.5

  validation {
    condition     = var.headroom >= 1
    error_message = "headroom must be 1 or more."
  }
}

variable "cores_per_machine" {
  description = "Cores of a machine of the build pool."
  type        = number
  default     = 8

  validation {
    condition     = var.cores_per_machine >= 2
    error_message = "cores_per_machine must be 2 or more: one is the system's."
  }
}

variable "build_workers_min" {
  description = "Fewest build workers, however small the state."
  type        = number
  default     = 1

  validation {
    condition     = var.build_workers_min >= 1
    error_message = "build_workers_min must be 1 or more."
  }
}

variable "part_mib" {
  description = "Size of a state part; nearcore's rule gives about 30 MiB."
  type        = number
  default     = 30

  validation {
    condition     = var.part_mib > 0
    error_message = "part_mib must be positive."
  }
}
