"""What a model's tokenizer is, for clients that make prompts of their own. Knows no requests."""

from collections.abc import Sequence

from app.contract.tokens import AddedToken, TokenizerFacts
from app.generation.models import TextModel


def token_strings(model: TextModel, ids: Sequence[int]) -> list[str]:
    """Give tokens as the vocabulary writes them; "" for those that only the model has."""
    return [model.tokenizer.id_to_token(token_id) or "" for token_id in ids]


def tokenizer_facts(model: TextModel) -> TokenizerFacts:
    """Describe a model's tokenizer."""
    tokenizer = model.tokenizer
    added = tokenizer.get_added_tokens_decoder()
    template = model.chat_template
    return TokenizerFacts(
        vocab_size=tokenizer.get_vocab_size(),
        capacity=model.capacity,
        bos=None if model.bos_id is None else tokenizer.id_to_token(model.bos_id),
        eos=tokenizer.id_to_token(model.eos_ids[0]) if model.eos_ids else None,
        chat_template=None if template is None else template.source,
        added={
            token_id: AddedToken(
                content=token.content,
                special=token.special,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                single_word=token.single_word,
                normalized=token.normalized,
            )
            for token_id, token in sorted(added.items())
        },
    )
