"""What is in the splits of a recipe, and whether anything leaks between them."""
