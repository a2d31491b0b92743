"""Playing episodes: environments in batches, faults, time limits, time spent."""
