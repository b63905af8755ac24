"""The command line, and one module a job: what a person, a scheduler or ``ray job submit`` starts."""
