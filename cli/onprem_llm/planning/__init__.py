"""Pure: what is wanted and what the hosts say go in, ordered steps and files come out. No clock, no chance, no I/O."""
