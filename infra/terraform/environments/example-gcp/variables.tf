variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "prefix" {
  description = "What all names begin with; see modules/naming."
  type        = string
}

variable "chain_id" {
  description = "The NEAR chain whose state is published."
  type        = string
  default     = "mainnet"
}

variable "environment" {
  description = "Which of several installations this is, for labels."
  type        = string
  default     = "production"
}

variable "region" {
  description = "Region of everything: bucket, cluster and NEAR node must be in one, or every part pays for its way."
  type        = string
  default     = "europe-west4"
}

variable "zones" {
  description = "Zones of the machines; the first is that of the NEAR node's disk."
  type        = list(string)
  default     = ["europe-west4-a", "europe-west4-b", "europe-west4-c"]
}

variable "authorized_networks" {
  description = "Networks that may reach the Kubernetes API, by a name for each: where terraform and kubectl run."
  type        = map(string)
}

variable "state_gib" {
  description = "Size of the chain's state in GiB; `statecast produce --plan` says it for each shard."
  type        = number
  default     = 180
}

variable "deadline_minutes" {
  description = "Minutes after the epoch's begin by which the last part must be out."
  type        = number
  default     = 60
}

variable "read_mib_per_s" {
  description = "What the node's disk gives to the export beside neard."
  type        = number
  default     = 200
}

variable "keep_epochs" {
  description = "Epochs that stay in the bucket."
  type        = number
  default     = 6

  validation {
    condition     = var.keep_epochs >= 2
    error_message = "keep_epochs must be 2 or more: a reader of the newest but one must be able to end."
  }
}

variable "tables" {
  description = "Whether decoded tables are made, in a bucket of their own (docs/operations/data.md)."
  type        = bool
  default     = false
}

variable "public" {
  description = "Whether everybody may read the bucket. Egress is the owner's to pay."
  type        = bool
  default     = false
}

variable "readers" {
  description = "IAM members that may read the bucket."
  type        = set(string)
  default     = []
}

variable "trust_keys" {
  description = "Public keys (ed25519:…, ecdsa-p256:…) of which one must have signed what is in the bucket; the daily scrub holds it to them. With none, signatures are checked against the keys that they name."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for key in var.trust_keys : can(regex("^(ed25519:[1-9A-HJ-NP-Za-km-z]{43,44}|ecdsa-p256:[1-9A-HJ-NP-Za-km-z]{44,46})$", key))])
    error_message = "Each of trust_keys is ed25519: or ecdsa-p256: and a public key in base58, as statecast keygen prints it."
  }
}

variable "sign_in_key_service" {
  description = "Whether a signing key is made in Google's key service; a key ring can't be deleted again."
  type        = bool
  default     = false
}

variable "image_tag" {
  description = "Tag of the image; infra/kubernetes names the same."
  type        = string
  default     = "0.1.0"
}

variable "notification_channels" {
  description = "Ids of the channels that alerts go to."
  type        = list(string)
  default     = []
}

variable "docs_url" {
  description = "Where this repository's docs can be read, for links in alerts."
  type        = string
}
