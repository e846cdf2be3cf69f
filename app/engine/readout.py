"""Read one sequence's logits: its next token, or the logprobs of its prompt.

Whatever goes wrong here becomes the failure of that sequence. Knows no other sequence.
"""

from app.engine.constraint import accept
from app.engine.failures import unforeseen
from app.engine.logprobs import token_logprob
from app.engine.sampler import sample
from app.engine.sequence import ScoredToken, Sequence
from app.errors import Error
from app.runtime.decoder import FloatArray


def take_token(sequence: Sequence, row: FloatArray) -> tuple[int, bool, ScoredToken | None]:
    """Choose a sequence's next token and append it.

    Args:
        sequence: all of whose tokens have been fed.
        row: float32 [V], the logits after its last token; changed in place.

    Returns:
        The token, whether nothing but the end can follow it, and its logprobs if wanted.

    Raises:
        Error: there is nothing to choose, or something went wrong.
    """
    request = sequence.request
    wanted = request.top_logprobs
    try:
        # The sampler changes what it is given, and logprobs are of what the model said.
        token = sample(row if wanted is None else row.copy(), sequence)
        ended = request.constraint is not None and accept(request.constraint, token)
        logprobs = (
            None if wanted is None else token_logprob(row, token, wanted, request.logprob_ids)
        )
        sequence.append(token)
    except Error:
        raise
    except Exception as error:
        raise unforeseen("sampling", error) from error
    return token, ended, logprobs


def note_prompt(sequence: Sequence, logits: FloatArray) -> None:
    """Keep the logprobs of the prompt, if they are wanted.

    Args:
        sequence: `num_computed` is what it was before the chunk.
        logits: float32 [T, V], those of the chunk's tokens.

    Raises:
        Error: a row has no finite logit, or something went wrong.
    """
    wanted = sequence.request.prompt_logprobs
    if wanted is None:
        return
    # The logits of a token are about the one after it: a chunk's last ones are about the
    # first token of the next chunk, and the prompt's last ones about none of it.
    following = sequence.token_ids[sequence.num_computed + 1 :]
    try:
        sequence.prompt_logprobs += [
            token_logprob(row, token_id, wanted)
            for row, token_id in zip(logits, following, strict=False)
        ]
    except Error:
        raise
    except Exception as error:
        raise unforeseen("taking the prompt's logprobs", error) from error
