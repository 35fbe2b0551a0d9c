"""A trained run as one file for others, ONNX or safetensors, with a model card; and `load`, which reads it."""
