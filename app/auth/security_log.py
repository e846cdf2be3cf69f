"""Write down what happens at the doors: one line per event, of the logger `app.security`.

A line is the event's name and `key="value"` pairs: who, from which address, in which request.
Values are JSON strings in ASCII, cut to a length, so that nothing that a client sends can begin a
line, end a value or pass for another letter. Handlers find the same pairs in the record's
`security`. No password, token or key is ever a value, nor a name that no account has: people type
their password there.
"""

import json
import logging
from enum import StrEnum
from typing import Final

import msgspec

logger: Final = logging.getLogger("app.security")

MAX_CHARACTERS: Final = 200
"""Length at which a value is cut."""


class Event(StrEnum):
    """What can be written down."""

    REGISTERED = "registered"
    REGISTRATION_REFUSED = "registration_refused"
    SIGNED_IN = "signed_in"
    SIGN_IN_REFUSED = "sign_in_refused"
    """A wrong name or password, or something that can be neither."""
    SIGN_IN_THROTTLED = "sign_in_throttled"
    """Too many attempts: the password was not looked at."""
    REFRESHED = "refreshed"
    REFRESH_REFUSED = "refresh_refused"
    REFRESH_REUSED = "refresh_reused"
    """A refresh token that had been replaced came back, and its login was ended: it was stolen."""
    SIGNED_OUT = "signed_out"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 # an event
    PROOF_REFUSED = "proof_refused"
    """A valid token, and not the password that was asked for beside it."""
    ACCOUNT_DELETED = "account_deleted"
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    ACCESS_REFUSED = "access_refused"
    """No token, or none that holds."""
    FORBIDDEN = "forbidden"
    """A user who may not do this."""
    RATE_LIMITED = "rate_limited"
    USER_CREATED = "user_created"
    ROLE_CHANGED = "role_changed"
    PASSWORD_RESET = "password_reset"  # noqa: S105 # an event
    SECRETS_ROTATED = "secrets_rotated"


SUSPICIOUS: Final = {
    Event.REGISTRATION_REFUSED,
    Event.SIGN_IN_REFUSED,
    Event.SIGN_IN_THROTTLED,
    Event.REFRESH_REFUSED,
    Event.REFRESH_REUSED,
    Event.PROOF_REFUSED,
    Event.ACCESS_REFUSED,
    Event.FORBIDDEN,
    Event.RATE_LIMITED,
}
"""Written as warnings; the others as information."""


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request comes from."""

    address: str
    request_id: str


def note(event: Event, visitor: Visitor | None = None, **values: object) -> None:
    """Write one event down.

    Args:
        event: what happened.
        visitor: who caused it over the network.
        **values: whatever else is known. None is left out.
    """
    if visitor is not None:
        values |= {"address": visitor.address, "request_id": visitor.request_id}
    shown = {
        name: str(value)[:MAX_CHARACTERS] for name, value in values.items() if value is not None
    }
    line = " ".join([event, *(f"{name}={json.dumps(value)}" for name, value in shown.items())])
    level = logging.WARNING if event in SUSPICIOUS else logging.INFO
    logger.log(level, "%s", line, extra={"security": {"event": event.value, **shown}})
