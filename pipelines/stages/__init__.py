"""The stages of a run as functions of values: export, plan, build, assemble. No Ray, no progress display.

A *task* is a frozen, picklable value with one method ``run()``: it reads what the stage before left in a store, leaves its own
result under a name computed from its input, and returns a small summary. A task whose result is already there and whole
returns its summary without doing the work again; that is how every run resumes.
"""
