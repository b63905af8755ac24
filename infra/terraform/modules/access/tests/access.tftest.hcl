variables {
  project_id     = "example-project"
  project_number = "123456789012"
  keeper_member  = "serviceAccount:example-mainnet-keeper@example-project.iam.gserviceaccount.com"
  deleter_role   = "projects/example-project/roles/statecastObjectDeleter"
}

run "the_producer_deletes_under_a_condition_alone" {
  command = plan

  assert {
    condition = alltrue([
      for grant in values(output.grants) : grant.condition != null
      if grant.member == output.members.producer && grant.bucket == "state" && !contains(["roles/storage.objectViewer", "roles/storage.objectCreator"], grant.role)
    ])
    error_message = "The producer may delete any object of the state bucket."
  }
}

run "parts_headers_and_revisions_are_out_of_the_producers_reach" {
  command = plan

  assert {
    condition     = !anytrue([for word in ["state_part", "header", "manifests/", "evidence"] : strcontains(output.grants["producer-replaces"].condition, word)])
    error_message = "The producer may replace what never changes."
  }
}

run "a_condition_has_at_most_12_operators" {
  command = plan

  # Google refuses longer ones, and only when they are applied.
  assert {
    condition = alltrue([
      for grant in values(output.grants) : length(regexall("\\|\\||&&|!", grant.condition)) <= 12 if grant.condition != null
    ])
    error_message = "A condition has more than 12 logical operators."
  }
}

run "only_the_keeper_uses_the_state_bucket_freely" {
  command = plan

  assert {
    condition = alltrue([
      for grant in values(output.grants) : grant.member == output.members.keeper if grant.bucket == "state" && grant.role == "roles/storage.objectUser"
    ])
    error_message = "Another role than the keeper has all permissions on the state bucket."
  }
}

run "a_build_worker_replaces_nothing" {
  command = plan

  assert {
    condition = toset([for grant in values(output.grants) : grant.role if grant.member == output.members.builder && grant.bucket == "state"]) == toset([
      "roles/storage.objectViewer", "roles/storage.objectCreator",
    ])
    error_message = "A build worker may do more than read and create."
  }
}

run "no_role_is_admin" {
  command = plan

  assert {
    condition     = !anytrue([for grant in values(output.grants) : can(regex("(?i)admin|owner|editor", grant.role))])
    error_message = "A grant gives more than objects need."
  }
}

run "not_public_by_default" {
  command = plan

  assert {
    condition     = !anytrue([for grant in values(output.grants) : startswith(grant.member, "all")])
    error_message = "Everybody may read without having been asked to."
  }
}

run "public_on_request" {
  command = plan

  variables {
    public = true
  }

  assert {
    condition     = output.grants["reader-public"].role == "roles/storage.objectViewer"
    error_message = "A public bucket is read by everybody, and no more."
  }
}

run "everybody_is_no_named_reader" {
  command = plan

  variables {
    readers = ["allUsers"]
  }

  expect_failures = [var.readers]
}

run "without_tables_there_is_no_grant_on_their_bucket" {
  command = plan

  assert {
    condition     = !anytrue([for grant in values(output.grants) : grant.bucket == "tables"])
    error_message = "A bucket of tables is granted, and there is none."
  }
}

run "a_build_worker_replaces_rows_of_tables_and_no_catalogue" {
  command = plan

  variables {
    tables  = true
    readers = ["group:analysts@example.com"]
  }

  assert {
    condition = alltrue([
      for grant in values(output.grants) : grant.role == "roles/storage.objectViewer" || grant.condition == "resource.name.extract(\"/kind={name}\") != \"\" || resource.name.extract(\"/written/{name}\") != \"\""
      if grant.bucket == "tables" && grant.member == output.members.builder
    ])
    error_message = "A build worker may write more of the tables than rows."
  }

  assert {
    condition     = output.grants["producer-tables"].role == "roles/storage.objectUser" && output.grants["keeper-tables"].role == "roles/storage.objectUser"
    error_message = "Whoever makes or collects tables can't replace the catalogue."
  }

  assert {
    condition     = output.grants["reader-tables-group:analysts@example.com"].role == "roles/storage.objectViewer"
    error_message = "Readers of the state can't read the tables."
  }
}
