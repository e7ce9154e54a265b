"""LibriMix from its public metadata, rendered on access."""
