"""The command `tse-ser`: emotions, voices and extracted speech from a terminal."""
