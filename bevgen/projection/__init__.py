"""How pixels move: lookups planned once, samples taken fast, on the CPU and on a GPU."""
