terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }

  # terraform init -backend-config=bucket=NAME -backend-config=region=REGION
  backend "s3" {
    key          = "statecast/example-aws"
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region
}
