# The ruleset that tflint brings; those of the clouds are plugins from a registry.
plugin "terraform" {
  enabled = true
  preset  = "all"
}
