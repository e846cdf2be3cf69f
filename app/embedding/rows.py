"""Texts and pairs of texts as an encoder's rows: tokens within the model's limit.

Synchronous; `service` decides on which thread. Refuses what can be refused.
"""

import itertools
from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from app.contract.embedding import Text
from app.embedding.models import EncoderModel
from app.errors import InvalidParameter
from app.runtime.encoder import Row


def rows_of_texts(
    model: EncoderModel, texts: Sequence[Text], prompt: str, fields: Sequence[str], *, cut: bool
) -> list[Row]:
    """Tokenize some texts; what is given as tokens stays as it is.

    Args:
        model: gives tokenizer and limits.
        texts: the texts.
        prompt: what each text begins with; tokens have theirs already.
        fields: what the client calls each of them.
        cut: whether a text that is too long is cut; else it is refused.

    Raises:
        InvalidParameter: one is too long, has no tokens, or one that the model doesn't have.
    """
    written = [
        _bounded(model, prompt + text, field, cut=cut)
        for text, field in zip(texts, fields, strict=True)
        if isinstance(text, str)
    ]
    # `encode` would hold the interpreter's lock
    encoded = iter(model.tokenizer.encode_batch_fast(written))
    rows = []
    for text, field in zip(texts, fields, strict=True):
        if isinstance(text, str):
            one = next(encoded)
            ids = _fitted(model, one.ids, field, cut=cut, ending=_num_special_at_end(one))
        else:
            _check_ids(model, text, field)
            ids = _fitted(model, list(text), field, cut=cut, ending=0)
        rows.append(Row(ids))
    return rows


def rows_of_pairs(
    model: EncoderModel,
    query: str,
    documents: Sequence[str],
    fields: Sequence[str],
    max_document_tokens: int | None,
) -> list[Row]:
    """Tokenize a query with each of some documents.

    Args:
        model: gives tokenizer and limits.
        query: the first text of each pair.
        documents: the second.
        fields: what the client calls each of them.
        max_document_tokens: documents are cut to so many tokens, and to what the query leaves of
            the context; None: one that is too long is refused.

    Raises:
        InvalidParameter: a pair is too long.
    """
    cut = max_document_tokens is not None
    texts = [
        _bounded(model, document, field, cut=cut)
        for document, field in zip(documents, fields, strict=True)
    ]
    if max_document_tokens is not None:
        texts = _cut_documents(model.tokenizer, _room(model, query), texts, max_document_tokens)
    encoded = model.tokenizer.encode_batch([(query, text) for text in texts])
    rows = []
    for pair, field in zip(encoded, fields, strict=True):
        if len(pair.ids) > model.capacity:
            raise _too_long(
                field, len(pair.ids), f"at most {model.capacity} tokens, the query included"
            )
        types = pair.type_ids
        rows.append(Row(pair.ids, types.index(1) if 1 in types else 0))
    return rows


def check_query(model: EncoderModel, query: str) -> None:
    """Refuse a query that leaves no room for a document, before each one is tokenized with it.

    Raises:
        InvalidParameter: it is too long.
    """
    _room(model, _bounded(model, query, "query", cut=False))


def _bounded(model: EncoderModel, text: str, field: str, *, cut: bool) -> str:
    """Refuse or cut, by its length alone, a text that can't fit: tokenizing it would take long."""
    if model.longest_token is None:
        return text
    most = model.longest_token * model.capacity
    if len(text) > most and not cut:
        at_least = -(-len(text) // model.longest_token)
        raise _too_long(field, at_least, f"at most {model.capacity} tokens", at_least=True)
    return text[:most]


def _fitted(
    model: EncoderModel, ids: list[int], field: str, *, cut: bool, ending: int
) -> list[int]:
    """Refuse or cut a text that is too long; what ends it, so many tokens, ends it still."""
    if not ids:
        raise InvalidParameter(field, "", "a text of at least one token")
    if len(ids) <= model.capacity:
        return ids
    if not cut:
        raise _too_long(field, len(ids), f"at most {model.capacity} tokens")
    return [*ids[: model.capacity - ending], *ids[len(ids) - ending :]]


def _num_special_at_end(encoded: Encoding) -> int:
    mask: list[int] = encoded.special_tokens_mask
    ending = itertools.takewhile(bool, reversed(mask))
    return 0 if all(mask) else len(list(ending))


def _room(model: EncoderModel, query: str) -> int:
    special = model.tokenizer.num_special_tokens_to_add(is_pair=True)
    [asked] = model.tokenizer.encode_batch([query], add_special_tokens=False)
    room: int = model.capacity - special - len(asked.ids)
    if room < 1:
        limit = f"at most {model.capacity - special - 1}, to leave room for a document"
        raise _too_long("query", len(asked.ids), limit)
    return room


def _cut_documents(tokenizer: Tokenizer, room: int, texts: list[str], limit: int) -> list[str]:
    most = min(room, limit)
    encoded: list[Encoding] = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [
        text[: one.offsets[most - 1][1]] if len(one.ids) > most else text
        for text, one in zip(texts, encoded, strict=True)
    ]


def _check_ids(model: EncoderModel, ids: Sequence[int], field: str) -> None:
    vocab_size = model.manifest.graph.vocab_size
    wrong = next((token_id for token_id in ids if not 0 <= token_id < vocab_size), None)
    if wrong is not None:
        limit = f"token ids below {vocab_size}, the size of this model's vocabulary"
        raise InvalidParameter(field, wrong, limit)


def _too_long(field: str, tokens: int, limit: str, *, at_least: bool = False) -> InvalidParameter:
    number = f"at least {tokens}" if at_least else f"{tokens}"
    return InvalidParameter(field, f"a text of {number} tokens", limit)
