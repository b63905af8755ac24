resource "aws_s3_bucket" "this" {
  # checkov:skip=CKV2_AWS_6: it has a public access block, below, which a variable may open
  # checkov:skip=CKV_AWS_18: access logs of parts would be larger than the parts' manifest; turn them on where the organisation wants them
  # checkov:skip=CKV_AWS_144: the state can be computed again, and mirrors are the readers' own copies
  # checkov:skip=CKV_AWS_145: public data; the bucket's own key does
  # checkov:skip=CKV_AWS_21: versioning is on unless the bucket holds only what can be computed again
  # checkov:skip=CKV2_AWS_62: events of this bucket have no subscriber; watchers poll
  bucket        = var.name
  tags          = var.tags
  force_destroy = false
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  # Permissions by policy alone, as with uniform access on Google's side.
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  # checkov:skip=CKV_AWS_54: blocked unless the bucket is made public by name
  # checkov:skip=CKV_AWS_56: restricted unless the bucket is made public by name
  bucket = aws_s3_bucket.this.id

  block_public_acls       = true
  ignore_public_acls      = true
  block_public_policy     = !var.public
  restrict_public_buckets = !var.public
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = var.noncurrent_days > 0 ? "Enabled" : "Suspended"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  # checkov:skip=CKV_AWS_300: the first rule does it, for the whole bucket; the check does not see the empty filter as that
  bucket = aws_s3_bucket.this.id

  # A killed writer leaves incomplete uploads, which no listing shows and which cost money.
  rule {
    id     = "abort-multipart"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  dynamic "rule" {
    for_each = var.noncurrent_days > 0 ? [var.noncurrent_days] : []

    content {
      id     = "noncurrent"
      status = "Enabled"

      filter {}

      noncurrent_version_expiration {
        noncurrent_days = rule.value
      }
    }
  }

  # For work buckets; see modules/bucket for why published epochs never expire by age.
  dynamic "rule" {
    for_each = var.expire_days == null ? [] : [var.expire_days]

    content {
      id     = "expire"
      status = "Enabled"

      filter {}

      expiration {
        days = rule.value
      }
    }
  }
}
