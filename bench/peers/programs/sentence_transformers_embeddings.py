"""sentence-transformers beside ours: embeds the texts that it is given, as often as it is asked.

Runs in an environment of its own. Reads one line of JSON with the model's folder, the threads and
the texts; then each line asks for one round and is answered with its seconds and those of the
processor. The first answer has
the vectors too.
"""

import json
import sys
import time
from typing import Any

import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Answer rounds until the input ends."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    torch.set_num_threads(given["threads"])
    model = SentenceTransformer(given["folder"], device="cpu")
    texts: list[str] = given["texts"]
    vectors = model.encode(texts, show_progress_bar=False)
    print(json.dumps([[float(number) for number in vector] for vector in vectors]), flush=True)
    for _ in sys.stdin:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        model.encode(texts, show_progress_bar=False)
        took = [time.perf_counter() - started_s, time.process_time() - started_cpu_s]
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
