"""Public checkpoints into ours, ours into ONNX."""
