"""Make all of auth from the settings."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from app.auth.accounts import Accounts
from app.auth.api_keys import ApiKeys
from app.auth.attempts import Attempts
from app.auth.clients import parse_networks
from app.auth.front_door import FrontDoor
from app.auth.guards import Access
from app.auth.key_watch import KeyWatch
from app.auth.keys import key_file, load_keys
from app.auth.limits import RateLimit
from app.auth.logins import Logins
from app.auth.passwords import PasswordHasher
from app.auth.tokens import TokenSigner
from app.auth.windows import Windows
from app.settings import InvalidSetting, Settings
from app.storage.database import Database

if TYPE_CHECKING:
    from app.storage.store import SharedStore


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """What dialects are given."""

    accounts: Accounts
    logins: Logins
    api_keys: ApiKeys
    front_door: FrontDoor
    access: Access
    hasher: PasswordHasher
    store: "SharedStore | None" = None
    """None: limits are counted in this process."""

    key_watch: KeyWatch | None = None
    """None: the secrets are in a setting, which doesn't change."""

    def open(self) -> None:
        """Follow the signing secrets from now on."""
        if self.key_watch is not None:
            self.key_watch.start()

    async def close(self) -> None:
        """Finish what is being written, and give threads and connections back."""
        await self.api_keys.finish()
        self.hasher.close()
        if self.key_watch is not None:
            await self.key_watch.close()
        if self.store is not None:
            await self.store.close()


def create_auth(
    settings: Settings, database: Database, told: Callable[[bool], None] = lambda _: None
) -> Auth:
    """Make accounts, logins, API keys and the doors to them.

    Args:
        settings: whose limits and secrets hold.
        database: where accounts lie.
        told: called with whether the store that replicas share answers, whenever that changes.

    Raises:
        InvalidSetting: a secret is too short, a proxy is no network, or the store can't be used.
    """
    store = _store(settings, told)
    windows = Windows(store, settings.store_away)
    hasher = PasswordHasher(
        memory_kib=settings.argon2_memory_kib, time_cost=settings.argon2_time_cost
    )
    ring = load_keys(settings)
    signer, file = TokenSigner(ring), key_file(settings)
    logins = Logins(
        database,
        signer,
        access_life=timedelta(minutes=settings.access_token_minutes),
        refresh_life=timedelta(days=settings.refresh_token_days),
        rotate=settings.rotate_refresh_tokens,
    )
    accounts, api_keys = Accounts(database, hasher), ApiKeys(database)
    return Auth(
        accounts=accounts,
        logins=logins,
        api_keys=api_keys,
        front_door=FrontDoor(
            accounts,
            logins,
            Attempts(
                per_account=settings.login_attempts_per_account,
                per_address=settings.login_attempts_per_address,
                from_new_addresses=settings.login_attempts_from_new_addresses,
                registrations_per_address=settings.registrations_per_address,
                windows=windows,
            ),
            registration_open=settings.registration == "open",
        ),
        access=Access(
            logins,
            api_keys,
            RateLimit(
                per_minute=settings.rate_limit_per_minute,
                per_second=settings.rate_limit_burst,
                windows=windows,
            ),
            require_auth=settings.require_auth,
            trusted_proxies=parse_networks(settings.trusted_proxies),
        ),
        hasher=hasher,
        store=store,
        key_watch=KeyWatch(file, ring, signer.replace_keys) if file else None,
    )


def _store(settings: Settings, told: Callable[[bool], None]) -> "SharedStore | None":
    if not settings.store_url:
        return None
    try:
        from app.storage.store import SharedStore  # noqa: PLC0415 # its libraries are an extra
    except ImportError as error:
        raise InvalidSetting(
            f"LLMHOST_STORE_URL needs a client ({error}); install llmhost[store]"
        ) from error
    return SharedStore(settings.store_url, told=told)
