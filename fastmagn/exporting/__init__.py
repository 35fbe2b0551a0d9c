"""A trained run as one file that others can use: ONNX, or safetensors with a model card."""
