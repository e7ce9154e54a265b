"""SI-SDR and its improvement; `evaluate.load` reads `si_sdr.py` alone."""
