"""`POST /v1/rerank`, in the form that Jina and Cohere share: documents by how well they answer."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, post
from msgspec import Meta

from app.auth.guards import request_id_of
from app.contract.embedding import Embedder, Ranking, RankingRequest
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.connected import while_connected
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.vectors import MAX_INPUTS
from app.dialects.openai import wire
from app.dialects.openai.embeddings import NO_EMBEDDINGS
from app.dialects.openai.schemas import NOT_USED, ModelId
from app.dialects.openai.taken import IGNORED, Rules, Unserved, read
from app.errors import InvalidParameter
from app.settings import Settings

_TEXT_ALONE: Final = "models here read text alone, in a field called text"
RULES: Final = Rules(
    {"rank_fields": Unserved(_TEXT_ALONE, (["text"],))},
    {**IGNORED, "max_chunks_per_doc": Unserved("a document is one chunk")},
)


class Document(msgspec.Struct, frozen=True):
    """A document, in the form that has more fields with others."""

    text: str


class RerankBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/rerank`."""

    model: ModelId | None = None
    query: Annotated[str, Meta(min_length=1, examples=["What is the capital of Japan?"])]
    documents: Annotated[
        list[Annotated[str, Meta(min_length=1)] | Document],
        Meta(
            min_length=1,
            max_length=MAX_INPUTS,
            examples=[["Tokyo is the capital of Japan.", "Bees make honey."]],
        ),
    ]
    top_n: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None, Meta(description="Default: all.")
    ] = None
    return_documents: Annotated[
        bool, Meta(description="Whether each result has its document beside it.")
    ] = False
    max_tokens_per_doc: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
        Meta(description="Documents are cut to so many; by default a longer one is refused."),
    ] = None
    user: Annotated[str | None, Meta(description=NOT_USED)] = None

    def texts(self) -> list[str]:
        """The documents' texts.

        Raises:
            InvalidParameter: one is empty.
        """
        texts = [one if isinstance(one, str) else one.text for one in self.documents]
        for index, text in enumerate(texts):
            if not text:
                raise InvalidParameter(f"documents[{index}].text", text, "string, length >= 1")
        return texts


class Judged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document's place."""

    index: Annotated[int, Meta(description="Its place in the request.")]
    relevance_score: Annotated[float, Meta(description="0 to 1; a model's own scale.")]
    document: Document | None = None


class RerankUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a request: the query counts with each document."""

    prompt_tokens: int
    total_tokens: int


class RerankAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Documents, the best first."""

    id: str
    object: str = "list"
    model: str
    results: list[Judged]
    usage: RerankUsage

    @classmethod
    def of(cls, made: Ranking, asked: RerankBody, texts: list[str], id_: str) -> "RerankAnswer":
        """Put documents in their order; equal ones stay in that of the request."""
        order = sorted(range(len(texts)), key=lambda index: -made.scores[index])
        return cls(
            id=id_,
            model=made.model_id,
            results=[
                Judged(
                    index=index,
                    relevance_score=made.scores[index],
                    document=Document(texts[index]) if asked.return_documents else None,
                )
                for index in order[: asked.top_n]
            ],
            usage=RerankUsage(prompt_tokens=made.prompt_tokens, total_tokens=made.prompt_tokens),
        )


@post(
    ["/v1/rerank", "/rerank"],
    status_code=200,
    summary="Rerank",
    operation_class=takes(RerankBody),
    responses=wire.refusals(400, 401, 404, 413, 429, 500, 503),
)
async def rerank(
    request: AnyRequest, embedder: Provided[Embedder | None], settings: Provided[Settings]
) -> Response[RerankAnswer]:
    """Judge documents by how well they answer a query, and return them the best first."""
    if embedder is None:
        refused: Response[Any] = wire.envelope(404, NO_EMBEDDINGS, {})
        return refused
    passed = PassedOver(strict=settings.strict_parameters)
    asked = read(await read_object(request), RerankBody, RULES, passed)
    texts = asked.texts()
    wanted = RankingRequest(
        query=asked.query, documents=texts, max_document_tokens=asked.max_tokens_per_doc
    )
    caller = await caller_of(request)
    made = await while_connected(request.receive, embedder.rank(wanted, asked.model, caller))
    answer = RerankAnswer.of(made, asked, texts, f"rerank-{request_id_of(request.scope)}")
    return Response(answer, headers=passed.headers)
