"""Runs the stages in this process or on Ray. Only here, and in jobs, is Ray imported."""
