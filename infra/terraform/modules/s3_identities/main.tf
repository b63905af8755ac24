locals {
  # What a producer replaces; everything else it may only create. See modules/access for the same rule on Google's store.
  replaced = [for name in ["*/latest.json", "*/catalogue.json", "*/manifest.json", "*/claim.json", "*/statements/*", "*/torrents/*", "*/leases/*"] : "${var.state_bucket.arn}/${name}"]

  leases = "${var.state_bucket.arn}/*/leases/*"

  # A claim is given up by deleting it; one that stays would keep the next run away until it expires.
  ended = [local.leases, "${var.state_bucket.arn}/*/claim.json"]

  # Build workers of a Ray cluster create these, and nothing else.
  parts = "${var.state_bucket.arn}/*/state_part_*"

  # None or one: decoded tables have a bucket of their own, since whoever makes them replaces what is there.
  tables = var.tables_bucket == null ? [] : [var.tables_bucket]

  # Who may create and not replace.
  creators = [for role in ["builder", "producer"] : aws_iam_role.this[role].arn if contains(keys(var.trust_policies), role)]

  readers = var.public ? ["*"] : var.readers
}

data "aws_iam_policy_document" "producer" {
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"]
    resources = [var.state_bucket.arn, "${var.state_bucket.arn}/*"]
  }

  statement {
    sid       = "Create"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${var.state_bucket.arn}/*"]
  }

  statement {
    sid       = "EndClaimsAndLeases"
    actions   = ["s3:DeleteObject"]
    resources = local.ended
  }

  statement {
    sid       = "Work"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = [var.work_bucket.arn, "${var.work_bucket.arn}/*"]
  }

  dynamic "statement" {
    for_each = local.tables

    content {
      sid       = "Tables"
      actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
      resources = [statement.value.arn, "${statement.value.arn}/*"]
    }
  }
}

data "aws_iam_policy_document" "builder" {
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"]
    resources = [var.state_bucket.arn, "${var.state_bucket.arn}/*"]
  }

  statement {
    sid       = "CreateParts"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = [local.parts]
  }

  statement {
    sid       = "Work"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = [var.work_bucket.arn, "${var.work_bucket.arn}/*"]
  }

  dynamic "statement" {
    for_each = local.tables

    content {
      sid       = "ReadTables"
      actions   = ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"]
      resources = [statement.value.arn, "${statement.value.arn}/*"]
    }
  }

  # Rows and what each task notes of them; catalogue, pointer, views and summaries are the producer's.
  dynamic "statement" {
    for_each = local.tables

    content {
      sid       = "WriteRowsOfTables"
      actions   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
      resources = ["${statement.value.arn}/*/kind=*", "${statement.value.arn}/*/written/*"]
    }
  }
}

data "aws_iam_policy_document" "seeder" {
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"]
    resources = [var.state_bucket.arn, "${var.state_bucket.arn}/*"]
  }

  statement {
    sid       = "Lease"
    actions   = ["s3:PutObject", "s3:DeleteObject"]
    resources = [local.leases]
  }
}

data "aws_iam_policy_document" "keeper" {
  statement {
    sid       = "Keep"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = [var.state_bucket.arn, "${var.state_bucket.arn}/*"]
  }

  dynamic "statement" {
    for_each = local.tables

    content {
      sid       = "Tables"
      actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
      resources = [statement.value.arn, "${statement.value.arn}/*"]
    }
  }
}

resource "aws_iam_policy" "this" {
  for_each = {
    producer = data.aws_iam_policy_document.producer.json
    builder  = data.aws_iam_policy_document.builder.json
    seeder   = data.aws_iam_policy_document.seeder.json
    keeper   = data.aws_iam_policy_document.keeper.json
  }

  name   = "${var.name}-${each.key}"
  policy = each.value
  tags   = var.tags
}

resource "aws_iam_role" "this" {
  for_each = var.trust_policies

  name               = "${var.name}-${each.key}"
  assume_role_policy = each.value
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "this" {
  for_each = aws_iam_role.this

  role       = each.value.name
  policy_arn = aws_iam_policy.this[each.key].arn
}

# PutObject replaces as readily as it creates, and there is no permission to tell them apart. So the bucket refuses producer and builder every put
# without `If-None-Match`, except of the objects that it may replace. The steps of a multipart upload before its last carry no condition.
data "aws_iam_policy_document" "bucket" {
  dynamic "statement" {
    for_each = length(local.creators) > 0 ? [local.creators] : []

    content {
      sid           = "CreateOnly"
      effect        = "Deny"
      actions       = ["s3:PutObject"]
      not_resources = local.replaced

      principals {
        type        = "AWS"
        identifiers = statement.value
      }

      condition {
        test     = "Null"
        variable = "s3:if-none-match"
        values   = ["true"]
      }

      condition {
        test     = "Bool"
        variable = "s3:ObjectCreationOperation"
        values   = ["true"]
      }
    }
  }

  statement {
    sid       = "OverTlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [var.state_bucket.arn, "${var.state_bucket.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = length(local.readers) > 0 ? [local.readers] : []

    content {
      sid       = "Read"
      actions   = ["s3:GetObject", "s3:ListBucket"]
      resources = [var.state_bucket.arn, "${var.state_bucket.arn}/*"]

      principals {
        type        = var.public ? "*" : "AWS"
        identifiers = statement.value
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = var.state_bucket.name
  policy = data.aws_iam_policy_document.bucket.json
}

data "aws_iam_policy_document" "tables_bucket" {
  for_each = { for bucket in local.tables : bucket.name => bucket }

  statement {
    sid       = "OverTlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [each.value.arn, "${each.value.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = length(local.readers) > 0 ? [local.readers] : []

    content {
      sid       = "Read"
      actions   = ["s3:GetObject", "s3:ListBucket"]
      resources = [each.value.arn, "${each.value.arn}/*"]

      principals {
        type        = var.public ? "*" : "AWS"
        identifiers = statement.value
      }
    }
  }
}

resource "aws_s3_bucket_policy" "tables" {
  for_each = data.aws_iam_policy_document.tables_bucket

  bucket = each.key
  policy = each.value.json
}
