"""Which image runs under which driver on which GPU: a table as data, and what the plan makes of it."""
