"""Emotion recognition accuracies; `evaluate.load` reads `ser_accuracy.py` alone."""
