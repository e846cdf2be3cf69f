"""`/register`, `/login`, `/refresh`, `/logout` and `/me`."""

from typing import Final
from urllib.parse import parse_qsl

from litestar import Router, get, post
from litestar.handlers import HTTPRouteHandler

from app.auth.accounts import name_key
from app.auth.auth import Auth
from app.auth.guards import LOGIN_SECURITY, SECURITY, SignedInRequest, not_by_key, signed_in
from app.auth.logins import TokenPair
from app.dialects.accounts import api_keys
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
from app.dialects.accounts.wire import FORM, TakesCredentials, refusals, refuse
from app.dialects.kit.body import Body, read_object, takes, to_record
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.refusals import detail
from app.errors import RequestError

MULTIPART: Final = "multipart/form-data"


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
    user = await auth.accounts.register(body.username, body.password)
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
    account = name_key(body.username) or ""
    await auth.attempts.count(account, auth.access.address(request))
    user = await auth.accounts.verify(body.username, body.password)
    await auth.attempts.succeeded(account)
    return _tokens(await auth.logins.sign_in(user))


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
    return _tokens(await auth.logins.refresh(body.refresh_token))


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
    login_id = request.user.login_id
    assert login_id is not None, "not_by_key lets logins alone pass"
    await auth.logins.sign_out(login_id)
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
    account = name_key(request.user.username) or ""
    await auth.attempts.count(account, auth.access.address(request))
    user = await auth.accounts.change_password(
        request.user.user_id, body.current_password, body.new_password
    )
    await auth.attempts.succeeded(account)
    return _tokens(await auth.logins.sign_in(user))


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
    account = name_key(request.user.username) or ""
    await auth.attempts.count(account, auth.access.address(request))
    await auth.accounts.delete(request.user.user_id, body.password)
    return Done("Account deleted")


async def read_form(request: AnyRequest) -> Body:
    """Read a form, or a JSON object in its place.

    Raises:
        RequestError: it is neither.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type == MULTIPART:
        return dict(await request.form())
    if content_type != FORM:
        return await read_object(request)
    # Litestar's own reading takes unescaped letters, as curl sends them, for Latin-1, and keeps
    # the last thousand forms in memory, passwords included.
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=20))
    except ValueError as error:
        raise RequestError("the form is not UTF-8, or has more than 20 fields") from error


def dialect(_: Host) -> Dialect:
    """Make the accounts' endpoints."""
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
        router=Router(path="/", route_handlers=handlers, tags=["Accounts"]),
        refuse=refuse,
        envelope=detail,
    )


def _tokens(pair: TokenPair) -> Tokens:
    return Tokens(access_token=pair.access_token, refresh_token=pair.refresh_token)
