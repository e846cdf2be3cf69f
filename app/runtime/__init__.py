"""ONNX Runtime: the one package of the server that knows it.

Whatever uses ONNX Runtime here imports this package first, so what ONNX Runtime reads from the
process's environment is set here, unless whoever started the process has set it.
"""

import os

# GroupQueryAttention on a CPU takes its plain kernel: its flash kernel packs the cached keys and
# values anew for every head of a small chunk, so that 4 new tokens on 4,000 cached ones cost
# 47 ms with it and 36 without (bench/LOG.md). Read whenever a session is made.
os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")
