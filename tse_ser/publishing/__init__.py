"""Publishing on the Hub: the folder of a model or of a plan of mixtures, its card, its upload."""
