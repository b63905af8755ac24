variables {
  state_gib            = 180
  deadline_minutes     = 120
  read_mib_per_s       = 200
  build_mib_per_core_s = 10
}

run "mainnet_of_2026" {
  command = plan

  # 922 s of reading leave 6,278 s for 18,432 core seconds: 5 cores with the headroom, 1 machine.
  assert {
    condition     = output.cores == 5 && output.build_workers == 1 && output.parts == 6144
    error_message = "180 GiB in two hours: ${output.cores} cores, ${output.build_workers} workers, ${output.parts} parts."
  }
}

run "a_shorter_deadline_takes_more_machines" {
  command = plan

  variables {
    deadline_minutes = 20
  }

  assert {
    condition     = output.build_workers > run.mainnet_of_2026.build_workers
    error_message = "20 minutes must take more workers than 120."
  }
}

run "ten_times_the_state_takes_more_machines" {
  command = plan

  variables {
    state_gib        = 1800
    deadline_minutes = 400
  }

  assert {
    condition     = output.cores == 19 && output.build_workers == 3
    error_message = "1,800 GiB in 400 minutes: ${output.cores} cores, ${output.build_workers} workers."
  }
}

run "a_deadline_that_reading_alone_misses_is_refused" {
  command = plan

  variables {
    read_mib_per_s   = 20
    deadline_minutes = 60
  }

  expect_failures = [output.build_workers]
}

run "a_small_state_gets_the_fewest_workers" {
  command = plan

  variables {
    state_gib         = 0.1
    build_workers_min = 2
  }

  assert {
    condition     = output.build_workers == 2
    error_message = "A small state must get build_workers_min workers."
  }
}

run "a_machine_of_one_core_is_refused" {
  command = plan

  variables {
    cores_per_machine = 1
  }

  expect_failures = [var.cores_per_machine]
}
