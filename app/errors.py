"""What can go wrong, as facts: a stable code and the numbers. Knows nothing about HTTP.

Error: the root
├── RequestError            the client can mend the request
│   ├── InvalidParameter    a field, its value, its limit
│   ├── UnknownParameter    a field that this request doesn't have
│   ├── Unsupported         a field that is known and asks for what we can't do
│   ├── BatchTooLarge       more requests at once than run and wait together
│   ├── BodyTimeout         the body did not come in time
│   ├── ContextOverflow     the prompt leaves no room in the context
│   ├── UnknownModel        no such model on disk
│   ├── NoModelLoaded       a model is needed and none is loaded
│   ├── UsernameTaken       somebody else has this name
│   ├── UnsuitablePassword  a password is too short or too long
│   ├── NotKept             no such thing of this user
│   │   ├── UnknownChat
│   │   ├── UnknownApiKey
│   │   └── UnknownPrevious   the response that a request goes on from
│   ├── ChatsFull           this user's chats are as many, or as large, as anybody's may be
│   ├── QuotaFull           as much is kept for this user as for anybody
│   └── TooManyApiKeys      this user has as many API keys as anybody may
├── AccessError             who asks, and what they may do
│   ├── NotAuthenticated    no token, or none that still holds
│   ├── WrongCredentials    this name and this password don't belong together
│   └── Forbidden           known, and not allowed
├── TryAgainLater           the same request may succeed later; carries retry_after_s
│   ├── Overloaded          the queue is full
│   ├── RateLimited         this client asked too often
│   ├── StorageAway         the database, or the store of counts, can't be reached
│   └── ShuttingDown        the server finishes what runs and takes nothing new
└── ServerError             nothing the client can do
    ├── EngineFailure       the decoder failed in a step of this request
    ├── ModelBroken         a model's files can't be loaded
    ├── ModelTooLarge       a model doesn't fit the free memory with these settings
    └── ProviderUnavailable the execution provider asked for is not installed
"""

import re
from typing import ClassVar, Final

from app.excerpts import shown

_EVERYBODYS: Final = "requests are running or waiting"
# An absolute path at the start, whose folders may have spaces, or after a space, quote or bracket.
_FOLDERS: Final = re.compile(r"^/(?:[^/:'\"]+/)+|(?<=[\s'\"(\[=])/(?:[^\s/:'\"]+/)+")


class Error(Exception):
    """Root of the tree. `code` is stable: clients and dashboards may rely on it."""

    code: ClassVar[str] = "error"

    @property
    def message(self) -> str:
        """One sentence with the numbers in it, fit to be shown to a client."""
        return str(self)


class RequestError(Error):
    """The request itself is wrong."""

    code = "bad_request"


class InvalidParameter(RequestError):
    """A known field has a value outside its limit."""

    code = "invalid_parameter"

    def __init__(self, field: str, value: object, limit: str) -> None:
        self.field, self.value, self.limit = field, value, limit
        super().__init__(f"{field} is {shown(value)}, expected {limit}")


class UnknownParameter(RequestError):
    """A field that this request doesn't have; for dialects that ignore none."""

    code = "unknown_parameter"

    def __init__(self, field: str) -> None:
        self.field = field
        super().__init__(f"unrecognized request argument: {shown(field)}")


class Unsupported(RequestError):
    """A field that is known, with a value that asks for what this server can't do."""

    code = "unsupported_parameter"

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        super().__init__(f"{field} is {shown(value)}, which is not supported here: {reason}")


class BatchTooLarge(RequestError):
    """More requests at once than could ever run and wait together."""

    code = "batch_too_large"

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"the batch has {count} prompts, at most {limit} run and wait at once")


class BodyTimeout(RequestError):
    """The request's body pauses too long, or comes too slowly."""

    code = "body_timeout"

    def __init__(self, received: int, limit_s: float) -> None:
        super().__init__(f"the body stopped after {received} bytes, it may take {limit_s:g} s")


class ContextOverflow(RequestError):
    """The prompt leaves no room for an answer in the model's context."""

    code = "context_overflow"

    def __init__(self, prompt_tokens: int, limit: int, *, at_least: bool = False) -> None:
        self.prompt_tokens, self.limit = prompt_tokens, limit
        self.at_least = at_least
        """Whether `prompt_tokens` is only a lower bound, out of the text's length."""
        number = f"at least {prompt_tokens}" if at_least else str(prompt_tokens)
        super().__init__(
            f"prompt has {number} tokens, the context is {limit} for prompt and answer together"
        )


class UnknownModel(RequestError):
    """No model of this name is on disk."""

    code = "unknown_model"

    def __init__(self, model_id: str, instead: str = "") -> None:
        """Say which model it is.

        Args:
            model_id: as it was asked for.
            instead: what there is, in words.
        """
        self.model_id = model_id
        there_is = f": {instead}" if instead else ""
        super().__init__(f"model {shown(model_id)} is not on this server{there_is}")


class NoModelLoaded(RequestError):
    """The request names no model and none is loaded."""

    code = "no_model_loaded"

    def __init__(self) -> None:
        super().__init__("no model is loaded")


class UsernameTaken(RequestError):
    """Another user has this name, perhaps in other capitals."""

    code = "username_taken"

    def __init__(self) -> None:
        super().__init__("Username already taken")


class UnsuitablePassword(RequestError):
    """A password outside the limits; the message never carries the password itself."""

    code = "unsuitable_password"

    def __init__(self, characters: int, limit: str) -> None:
        super().__init__(f"password has {characters} characters, expected {limit}")


class NotKept(RequestError):
    """This user keeps no such thing; whether somebody else does is not said."""

    code = "not_kept"

    def __init__(self, what: str, its_id: str) -> None:
        self.its_id = its_id
        super().__init__(f"there is no {what} {shown(its_id)}")


class UnknownChat(NotKept):
    """This user has no such chat."""

    code = "unknown_chat"

    def __init__(self, chat_id: str) -> None:
        super().__init__("chat", chat_id)


class UnknownApiKey(NotKept):
    """This user has no such API key."""

    code = "unknown_api_key"

    def __init__(self, key_id: str) -> None:
        super().__init__("API key", key_id)


class UnknownPrevious(NotKept):
    """The response that a request goes on from is not kept, or one before it is not."""

    code = "previous_response_not_found"
    field = "previous_response_id"

    def __init__(self, response_id: str) -> None:
        super().__init__("response", response_id)
        self.args = (f"previous_response_id: {self.args[0]}; send the whole conversation as input",)


class ChatsFull(RequestError):
    """This user keeps as many chats, or as many bytes in them, as anybody may."""

    code = "chats_full"

    def __init__(self, count: int, limit: int, what: str) -> None:
        super().__init__(
            f"there would be {count} {what}, at most {limit} are kept: delete a chat first, "
            "or send chat_id=-1 to keep nothing"
        )


class QuotaFull(RequestError):
    """As much is kept for this user as for anybody."""

    code = "quota_full"

    def __init__(self, count: int, limit: int, what: str) -> None:
        super().__init__(f"there would be {count} {what}, at most {limit} are kept: delete some")


class TooManyApiKeys(RequestError):
    """This user has as many API keys as anybody may."""

    code = "too_many_api_keys"

    def __init__(self, limit: int) -> None:
        super().__init__(f"there are {limit} API keys, at most {limit} are kept: revoke one first")


class AccessError(Error):
    """Refused because of who asks."""

    code = "access_refused"


class NotAuthenticated(AccessError):
    """No token, or one that is malformed, expired, revoked or of another kind."""

    code = "not_authenticated"


class WrongCredentials(AccessError):
    """No user has this name and this password; which of the two is wrong is not said."""

    code = "wrong_credentials"

    def __init__(self) -> None:
        super().__init__("Incorrect username or password")


class Forbidden(AccessError):
    """We know who asks, and they may not."""

    code = "forbidden"


class TryAgainLater(Error):
    """Refused for now."""

    code = "try_again_later"

    def __init__(self, message: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Overloaded(TryAgainLater):
    """Every place in the queue is taken, or as many as one client may hold beside others."""

    code = "overloaded"

    def __init__(
        self, count: int, limit: int, retry_after_s: int = 1, *, what: str = _EVERYBODYS
    ) -> None:
        super().__init__(f"{count} {what}, the limit is {limit}", retry_after_s)


class RateLimited(TryAgainLater):
    """This client sent more requests than its limit allows."""

    code = "rate_limited"


class StorageAway(TryAgainLater):
    """The database, or the store that replicas share, can't be reached; why is in the log."""

    code = "storage_unavailable"

    def __init__(self, what: str, retry_after_s: int = 2) -> None:
        super().__init__(f"{what} can't be reached now", retry_after_s)


class ShuttingDown(TryAgainLater):
    """The process is about to stop; another one, or the next, will answer."""

    code = "shutting_down"

    def __init__(self, retry_after_s: int = 5) -> None:
        super().__init__("the server is shutting down", retry_after_s)


class ServerError(Error):
    """Our fault. The whole text is for the log, `message` leaves out where files lie."""

    code = "server_error"

    @property
    def message(self) -> str:
        """The text with the names of files, without the folders that they are in."""
        return _FOLDERS.sub("", str(self))


class EngineFailure(ServerError):
    """The decoder failed while this request was in its step."""

    code = "engine_failure"


class ModelBroken(ServerError):
    """A model's files are missing, changed or unreadable."""

    code = "model_broken"


class ModelTooLarge(ServerError):
    """A model, full to its last slot, would need more memory than is free."""

    code = "model_too_large"


class ProviderUnavailable(ServerError):
    """The execution provider asked for is not in the installed ONNX Runtime."""

    code = "provider_unavailable"
