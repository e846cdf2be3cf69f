"""Arrays in, logits out: everything that touches ONNX Runtime."""
