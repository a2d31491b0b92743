"""Episodes: one of them in memory, many as Minari datasets."""
