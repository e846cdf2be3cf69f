"""`POST /v1/embeddings`: vectors of texts."""

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Annotated, Final, Literal, cast

import msgspec
from litestar import Response, post
from msgspec import Meta

from app.contract.embedding import Embedder, EmbeddingRequest, Embeddings, Text, Vector
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.connected import while_connected
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.vectors import MAX_INPUTS, written
from app.dialects.openai import wire
from app.dialects.openai.sampling import TokenId
from app.dialects.openai.schemas import NOT_USED, ModelId
from app.dialects.openai.taken import IGNORED, Rules, read
from app.errors import InvalidParameter
from app.settings import Settings

NO_EMBEDDINGS: Final = "this server makes texts: it has no model that makes embeddings"
RULES: Final = Rules({}, IGNORED)


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/embeddings`."""

    model: ModelId | None = None
    input: Annotated[
        str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)],
        Meta(
            description="A text, several texts, the tokens of one, or the tokens of several; "
            f"at most {MAX_INPUTS}.",
            examples=["The sky is blue."],
        ),
    ]
    dimensions: Annotated[
        Annotated[int, Meta(ge=1, le=2**20)] | None,
        Meta(description="Numbers of a vector, where the model was trained for fewer."),
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"],
        Meta(description="base64: float32, the least significant byte first."),
    ] = "float"
    prompt_name: Annotated[
        str | None,
        Meta(description="Beyond OpenAI's document: one of the model's own prompts."),
    ] = None
    user: Annotated[str | None, Meta(description=NOT_USED)] = None

    def texts(self) -> list[Text]:
        """The texts, of which each gets a vector.

        Raises:
            InvalidParameter: texts and tokens are mixed, one is empty, or there are too many.
        """
        given = self.input
        if isinstance(given, str):
            texts: list[Text] = [given]
        else:
            kinds = {type(item) for item in given}
            if len(kinds) > 1:
                limit = "texts alone, tokens alone or lists of tokens"
                raise InvalidParameter("input", given, limit)
            # the check above is what makes this cast true
            texts = cast("list[Text]", [given] if kinds == {int} else given)
        if len(texts) > MAX_INPUTS:
            raise InvalidParameter("input", f"a list of {len(texts)}", f"at most {MAX_INPUTS}")
        for index, text in enumerate(texts):
            if not text:
                field = "input" if len(texts) == 1 else f"input[{index}]"
                raise InvalidParameter(field, text, "a text of at least one token")
        return texts


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors, in the order of their texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage

    @classmethod
    async def of(cls, made: Embeddings, encoding_format: str) -> "EmbeddingAnswer":
        """Write vectors as they were asked for."""
        if encoding_format == "base64":
            vectors: Sequence[list[float] | str] = [_base64(vector) for vector in made.vectors]
        else:
            vectors = await written(made.vectors)
        data = [Embedding(index=index, embedding=one) for index, one in enumerate(vectors)]
        return cls(
            data=data,
            model=made.model_id,
            usage=EmbeddingUsage(prompt_tokens=made.prompt_tokens, total_tokens=made.prompt_tokens),
        )


@post(
    ["/v1/embeddings", "/embeddings"],
    status_code=200,
    summary="Embeddings",
    operation_class=takes(EmbeddingBody),
    responses=wire.refusals(400, 401, 404, 413, 429, 500, 503),
)
async def embeddings(
    request: AnyRequest, embedder: Provided[Embedder | None], settings: Provided[Settings]
) -> Response[EmbeddingAnswer]:
    """Make a vector of each text."""
    if embedder is None:
        return wire.envelope(404, NO_EMBEDDINGS, {})
    passed = PassedOver(strict=settings.strict_parameters)
    asked = read(await read_object(request), EmbeddingBody, RULES, passed)
    wanted = EmbeddingRequest(
        inputs=asked.texts(), dimensions=asked.dimensions, prompt_name=asked.prompt_name
    )
    caller = await caller_of(request)
    made = await while_connected(request.receive, embedder.embed(wanted, asked.model, caller))
    answer = await EmbeddingAnswer.of(made, asked.encoding_format)
    return Response(answer, headers=passed.headers)


def _base64(vector: Vector) -> str:
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
