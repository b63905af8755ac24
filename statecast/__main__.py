"""``python -m statecast``: the command."""

from jobs.cli import main

if __name__ == "__main__":
    main()
