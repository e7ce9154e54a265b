"""Training: arguments, collator, trainer, and the program that writes the Denoised set."""
