"""Make all of auth from the settings."""

from datetime import timedelta

import msgspec

from app.auth.accounts import Accounts
from app.auth.api_keys import ApiKeys
from app.auth.attempts import Attempts
from app.auth.clients import parse_networks
from app.auth.front_door import FrontDoor
from app.auth.guards import Access
from app.auth.keys import load_keys
from app.auth.limits import RateLimit
from app.auth.logins import Logins
from app.auth.passwords import PasswordHasher
from app.auth.tokens import TokenSigner
from app.settings import Settings
from app.storage.database import Database


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """What dialects are given."""

    accounts: Accounts
    logins: Logins
    api_keys: ApiKeys
    front_door: FrontDoor
    access: Access
    hasher: PasswordHasher

    async def close(self) -> None:
        """Finish what is being written, and give the hashing threads back."""
        await self.api_keys.finish()
        self.hasher.close()


def create_auth(settings: Settings, database: Database) -> Auth:
    """Make accounts, logins, API keys and the doors to them.

    Raises:
        InvalidSetting: a secret is too short, or a proxy is no network.
    """
    hasher = PasswordHasher(
        memory_kib=settings.argon2_memory_kib, time_cost=settings.argon2_time_cost
    )
    logins = Logins(
        database,
        TokenSigner(load_keys(settings.jwt_secret, settings.data_dir)),
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
            ),
            registration_open=settings.registration == "open",
        ),
        access=Access(
            logins,
            api_keys,
            RateLimit(
                per_minute=settings.rate_limit_per_minute, per_second=settings.rate_limit_burst
            ),
            require_auth=settings.require_auth,
            trusted_proxies=parse_networks(settings.trusted_proxies),
        ),
        hasher=hasher,
    )
