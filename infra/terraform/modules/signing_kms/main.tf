# A key that can't be read: it signs within the service. NIST P-256, since the service takes no message of a manifest's length for ed25519.
resource "google_kms_key_ring" "this" {
  project  = var.project_id
  name     = var.name
  location = var.location
}

resource "google_kms_crypto_key" "this" {
  name     = var.name
  key_ring = google_kms_key_ring.this.id
  purpose  = "ASYMMETRIC_SIGN"
  labels   = var.labels

  # Deleted versions can be had back for a while: a lost key is a rotation for every reader.
  destroy_scheduled_duration = "${var.destroy_after_days * 86400}s"

  version_template {
    algorithm        = "EC_SIGN_P256_SHA256"
    protection_level = var.protection_level
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Only the process that drives a run signs, and it runs as the producer.
resource "google_kms_crypto_key_iam_member" "signer" {
  crypto_key_id = google_kms_crypto_key.this.id
  role          = "roles/cloudkms.signerVerifier"
  member        = var.signer
}
