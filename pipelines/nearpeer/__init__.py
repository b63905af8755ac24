"""A peer in nearcore's own network, as far as state parts need it: machines without I/O, and the one module that has it."""
