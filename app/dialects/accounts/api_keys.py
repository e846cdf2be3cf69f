"""`/me/keys`: the signed-in user's API keys.

A key can't manage keys: whoever finds one could otherwise make another that outlives it.
"""

from typing import Final

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth import security_log
from app.auth.auth import Auth
from app.auth.guards import LOGIN_SECURITY, SignedInRequest, not_by_key, signed_in
from app.auth.security_log import Event
from app.dialects.accounts.schemas import ApiKeyList, Done, KeptApiKey, NewApiKey, NewApiKeyRequest
from app.dialects.accounts.wire import refusals
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.host import Provided


@post(
    "/me/keys",
    guards=[signed_in, not_by_key],
    status_code=200,
    summary="Make an API key",
    operation_class=takes(NewApiKeyRequest),
    security=LOGIN_SECURITY,
    responses=refusals(400, 401, 403),
)
async def create_key(request: SignedInRequest, auth: Provided[Auth]) -> NewApiKey:
    """Make an API key that may do what I may, and show it this once.

    It holds until it is revoked or its days are over; a new password leaves it alone.
    """
    body = to_record(await read_object(request), NewApiKeyRequest)
    secret, kept = await auth.api_keys.create(request.user.user_id, body.name, body.expires_in_days)
    _note(Event.KEY_CREATED, request, auth, str(kept.id))
    return NewApiKey(key=secret, **msgspec.structs.asdict(KeptApiKey.of(kept)))


@get(
    "/me/keys",
    guards=[signed_in, not_by_key],
    summary="My API keys",
    security=LOGIN_SECURITY,
    responses=refusals(401, 403),
)
async def list_keys(request: SignedInRequest, auth: Provided[Auth]) -> ApiKeyList:
    """List my API keys, the oldest first, without the keys themselves."""
    kept = await auth.api_keys.of_user(request.user.user_id)
    return ApiKeyList([KeptApiKey.of(key) for key in kept])


@delete(
    "/me/keys/{key_id:str}",
    guards=[signed_in, not_by_key],
    status_code=200,
    summary="Revoke an API key",
    security=LOGIN_SECURITY,
    responses=refusals(400, 401, 403, 404),
)
async def revoke_key(request: SignedInRequest, auth: Provided[Auth], key_id: FromPath[str]) -> Done:
    """Revoke one of my API keys: the next request with it is refused."""
    await auth.api_keys.revoke(request.user.user_id, key_id)
    _note(Event.KEY_REVOKED, request, auth, key_id)
    return Done("API key revoked")


def _note(event: Event, request: SignedInRequest, auth: Auth, key_id: str) -> None:
    user, visitor = request.user, auth.access.visitor(request)
    security_log.note(event, visitor, user=user.username, user_id=user.user_id, key_id=key_id)


HANDLERS: Final[list[HTTPRouteHandler]] = [create_key, list_keys, revoke_key]
