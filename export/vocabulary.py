"""Hold a tokenizer to the embedding: no text may become a token that the model has no row for.

Knows tokenizer.json, not models.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer

from export.errors import SourceUnusable
from export.file_checks import shown


def fit_tokenizer(path: Path, rows: int, described: str) -> int:
    """Remove special tokens that lie beyond the embedding; returns how many there were.

    Some text models keep the special tokens of a sibling that reads images, without rows for them
    (Gemma 3 of one billion parameters): as text they are harmless, as tokens they have no meaning.

    Args:
        path: tokenizer.json, which is rewritten if something is removed.
        rows: rows of the embedding.
        described: the source, for a refusal.

    Raises:
        SourceUnusable: a token that text consists of lies beyond the embedding, or one that the
            tokenizer itself adds.
    """
    written = json.loads(path.read_text())
    beyond = [token for token in written["added_tokens"] if token["id"] >= rows]
    if beyond:
        written["added_tokens"] = [t for t in written["added_tokens"] if t["id"] < rows]
        added = json.dumps(written.get("post_processor"))
        for token in beyond:
            text, token_id = token["content"], token["id"]
            if not token["special"] or json.dumps(text) in added:
                raise SourceUnusable(
                    f"{described}: its tokenizer has {shown(text)} as token {token_id}, "
                    f"its embedding {rows} rows"
                )
        path.write_text(json.dumps(written, ensure_ascii=False))
    ids = Tokenizer.from_file(str(path)).get_vocab().values()
    last = max(ids, default=-1)
    if last >= rows:
        raise SourceUnusable(
            f"{described}: its tokenizer has {last + 1} tokens, its embedding {rows} rows"
        )
    return len(beyond)
