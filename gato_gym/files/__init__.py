"""Files: written whole, read within bounds, locked while they are written."""
