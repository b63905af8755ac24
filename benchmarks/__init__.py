"""Times the stages of a run against their floors, on a synthetic state of a named size. Nothing of the package imports this."""
