"""The command line, and one module a job: what a person, a scheduler or ``ray job submit`` starts."""

import sys

# While a module is looked for that is to be run, its name is not known yet. One of a command would do nothing and end well.
if sys.argv[:1] == ["-m"] and "jobs.cli" not in sys.orig_argv:
    sys.exit("error: a command's module is no program; run statecast COMMAND or python -m statecast COMMAND")
