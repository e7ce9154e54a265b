"""What runs around models and data: training, evaluation, publishing, the command `tse-ser`."""
