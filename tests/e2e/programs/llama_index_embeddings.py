"""Vectors by LlamaIndex: `llama_index_embeddings.py URL MODEL`; prints JSON."""

import json
import sys

from llama_index.embeddings.openai_like import OpenAILikeEmbedding

url, model = sys.argv[1:]
embedding = OpenAILikeEmbedding(model_name=model, api_base=f"{url}/v1", api_key="EMPTY")
texts = ["The sky is blue.", "Grass is green."]
json.dump(
    {
        "texts": embedding.get_text_embedding_batch(texts),
        "query": embedding.get_query_embedding(texts[0]),
    },
    sys.stdout,
)
