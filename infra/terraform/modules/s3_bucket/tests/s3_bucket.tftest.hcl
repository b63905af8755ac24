# NEEDS A PROVIDER REGISTRY: mock_provider takes the schema from the provider's own program. `make infra-check` leaves this file out.
mock_provider "aws" {}

variables {
  name = "example-mainnet-state"
  tags = { app = "statecast" }
}

run "closed_by_default" {
  command = plan

  assert {
    condition     = aws_s3_bucket_public_access_block.this.block_public_policy && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    error_message = "A bucket must be closed unless it is opened by name."
  }
}
