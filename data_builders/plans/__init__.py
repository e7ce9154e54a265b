"""Published tables of mixture specs: written, found, rendered."""
