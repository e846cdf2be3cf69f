"""Vectors by LangChain, of texts and tokens: `langchain_embeddings.py URL MODEL`; prints JSON."""

import json
import sys
from typing import Any

import tiktoken
from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings

# the tokens of `tests.fakes.BYTES`, which the model has: tiktoken would fetch its own vocabulary
_shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
_hidden = [byte for byte in range(256) if byte not in _shown]
_in_order = [*sorted(_shown), *_hidden]
tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
    "cl100k_base",
    pat_str=r"[\s\S]",
    mergeable_ranks={bytes([byte]): 2 + index for index, byte in enumerate(_in_order)},
    special_tokens={},
)
url, model = sys.argv[1:]
texts = ["The sky is blue.", "Grass is green."]
options: dict[str, Any] = {"model": model, "base_url": f"{url}/v1", "api_key": "EMPTY"}
of_texts = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
json.dump(
    {
        "texts": of_texts.embed_documents(texts),
        "tokens": OpenAIEmbeddings(**options).embed_documents(texts),
        "query": OpenAIEmbeddings(**options).embed_query(texts[0]),
        "ollama": OllamaEmbeddings(model=model, base_url=url).embed_documents(texts),
    },
    sys.stdout,
)
