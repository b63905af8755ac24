"""How tasks run: in this process or on Ray, where, how many at once, within which memory. Knows no task.

A *task* is a frozen, picklable value with a method ``run()``: it reads what a task before it left in a store, leaves its own result under
a name computed from its input, and returns a small summary. A task whose result is already there and whole returns its summary without
doing the work again; that is how every run resumes.
"""
