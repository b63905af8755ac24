variables {
  prefix      = "example"
  chain_id    = "mainnet"
  environment = "production"
}

run "names_begin_with_prefix_and_chain" {
  command = plan

  assert {
    condition     = alltrue([for name in values(output.names) : startswith(name, "example-mainnet")])
    error_message = "A name does not begin with prefix and chain."
  }
}

run "a_chain_id_of_other_characters_gives_valid_names" {
  command = plan

  variables {
    chain_id = "My_Test.Chain-1"
  }

  assert {
    condition     = alltrue([for name in values(output.names) : can(regex("^[a-z][a-z0-9-]*[a-z0-9]$", name))])
    error_message = "A name has characters that clouds refuse."
  }
}

run "account_names_fit_into_30_characters" {
  command = plan

  variables {
    prefix   = "a-long-prefix-of-20c"
    chain_id = "a-chain-with-a-rather-long-name"
  }

  assert {
    condition     = alltrue([for key, name in output.names : length(name) <= 30 if endswith(key, "_account")])
    error_message = "An account id is longer than Google takes."
  }
}

run "own_labels_win" {
  command = plan

  variables {
    labels = { app = "other", team = "storage" }
  }

  assert {
    condition     = output.labels.app == "statecast" && output.labels.team == "storage"
    error_message = "The module's labels must win, others must stay."
  }
}

run "an_upper_case_prefix_is_refused" {
  command = plan

  variables {
    prefix = "Example"
  }

  expect_failures = [var.prefix]
}

run "an_upper_case_label_is_refused" {
  command = plan

  variables {
    labels = { Team = "storage" }
  }

  expect_failures = [var.labels]
}
