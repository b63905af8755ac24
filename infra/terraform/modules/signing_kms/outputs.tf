output "signing_key" {
  description = "What --signing-key takes; the first version of the key."
  value       = "kms://gcp/${google_kms_crypto_key.this.id}/cryptoKeyVersions/1"
}
