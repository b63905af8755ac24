output "name" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.id

  # A new bucket refuses a policy that opens it until its block is loosened, and policies are laid on by this name.
  depends_on = [aws_s3_bucket_public_access_block.this]
}

output "arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.this.arn
}

output "url" {
  description = "As statecast takes it."
  value       = "s3://${aws_s3_bucket.this.id}"
}
