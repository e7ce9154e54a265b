"""From utterances to mixtures: a spec is drawn, then rendered."""
