"""`/register`, `/login`, `/refresh`, `/logout` and `/me`."""

from typing import Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler

from app.auth.auth import Auth
from app.auth.guards import LOGIN_SECURITY, SECURITY, SignedInRequest, not_by_key, signed_in
from app.auth.logins import TokenPair
from app.dialects.accounts import api_keys
from app.dialects.accounts.forms import read_form
from app.dialects.accounts.schemas import (
    Credentials,
    Done,
    Me,
    NewPasswordRequest,
    PasswordProof,
    RefreshToken,
    Registered,
    Registration,
    Tokens,
)
from app.dialects.accounts.wire import TakesCredentials, refusals, refuse, uncached
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.refusals import detail
from app.dialects.kit.router import OwnRouter

MAX_BODY_BYTES: Final = 65_536
"""More than the longest name, password or token takes, escaped as clumsily as JSON allows."""


@post(
    "/register",
    status_code=200,
    summary="Register",
    operation_class=takes(Registration),
    responses=refusals(400, 403, 429),
)
async def register(request: AnyRequest, auth: Provided[Auth]) -> Registered:
    """Create an account with a name and a password."""
    body = to_record(await read_object(request), Registration)
    visitor = auth.access.visitor(request)
    user = await auth.front_door.register(body.username, body.password, visitor)
    return Registered(user=user.username)


@post(
    "/login",
    status_code=200,
    summary="Sign in",
    operation_class=TakesCredentials,
    responses=refusals(400, 401, 429),
)
async def login(request: AnyRequest, auth: Provided[Auth]) -> Tokens:
    """Exchange a name and a password, sent as a form, for tokens."""
    body = to_record(await read_form(request), Credentials)
    visitor = auth.access.visitor(request)
    return _tokens(await auth.front_door.sign_in(body.username, body.password, visitor))


@post(
    "/refresh",
    status_code=200,
    summary="Refresh the access token",
    operation_class=takes(RefreshToken),
    responses=refusals(400, 401),
)
async def refresh(request: AnyRequest, auth: Provided[Auth]) -> Tokens:
    """Exchange a refresh token for a new access token; where tokens rotate, for a new pair."""
    body = to_record(await read_object(request), RefreshToken)
    visitor = auth.access.visitor(request)
    return _tokens(await auth.front_door.refresh(body.refresh_token, visitor))


@post(
    "/logout",
    guards=[signed_in, not_by_key],
    status_code=200,
    summary="Sign out",
    security=LOGIN_SECURITY,
    responses=refusals(401, 403),
)
async def logout(request: SignedInRequest, auth: Provided[Auth]) -> Done:
    """End this login: neither its access tokens nor its refresh token hold any more."""
    await auth.front_door.sign_out(request.user, auth.access.visitor(request))
    return Done("Signed out")


@get(
    "/me",
    guards=[signed_in],
    summary="Who am I",
    security=SECURITY,
    responses=refusals(401),
)
async def me(request: SignedInRequest) -> Me:
    """Show the account that the token belongs to."""
    return Me(request.user.user_id, request.user.username, request.user.role)


@post(
    "/me/password",
    guards=[signed_in, not_by_key],
    status_code=200,
    summary="Change my password",
    operation_class=takes(NewPasswordRequest),
    security=LOGIN_SECURITY,
    responses=refusals(400, 401, 403, 429),
)
async def change_password(request: SignedInRequest, auth: Provided[Auth]) -> Tokens:
    """Change the password, end every login of the account, and sign in anew; API keys stay."""
    body = to_record(await read_object(request), NewPasswordRequest)
    visitor = auth.access.visitor(request)
    return _tokens(
        await auth.front_door.change_password(
            request.user, body.current_password, body.new_password, visitor
        )
    )


@post(
    "/me/delete",
    guards=[signed_in, not_by_key],
    status_code=200,
    summary="Delete my account",
    operation_class=takes(PasswordProof),
    security=LOGIN_SECURITY,
    responses=refusals(400, 401, 403, 429),
)
async def delete_account(request: SignedInRequest, auth: Provided[Auth]) -> Done:
    """Delete the account with its chats and keys. POST: many clients send no body with DELETE."""
    body = to_record(await read_object(request), PasswordProof)
    visitor = auth.access.visitor(request)
    await auth.front_door.delete_account(request.user, body.password, visitor)
    return Done("Account deleted")


def dialect(host: Host) -> Dialect:
    """Make the accounts' endpoints."""
    max_body_bytes = min(MAX_BODY_BYTES, host.settings.max_body_bytes)
    handlers: list[HTTPRouteHandler] = [
        register,
        login,
        refresh,
        logout,
        me,
        change_password,
        delete_account,
        *api_keys.HANDLERS,
    ]
    return Dialect(
        paths=("/register", "/login", "/refresh", "/logout", "/me"),
        router=OwnRouter(
            path="/",
            route_handlers=handlers,
            request_max_body_size=max_body_bytes,
            tags=["Accounts"],
        ),
        refuse=refuse,
        envelope=detail,
        headers=uncached,
    )


def _tokens(pair: TokenPair) -> Tokens:
    return Tokens(access_token=pair.access_token, refresh_token=pair.refresh_token)
