"""Episodes played by processes, of one machine or of a Ray cluster."""
