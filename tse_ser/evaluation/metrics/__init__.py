"""The `evaluate` metric modules of this project; each also loads by its folder."""
