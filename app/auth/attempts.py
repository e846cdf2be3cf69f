"""How often somebody may try a password or register: slow for guessers, open for owners.

The rule, for passwords:

1. One address may try `per_address` passwords per minute, for whatever accounts.
2. One address may try `per_account` of them per minute for one account.
3. All addresses from which an account has never signed in may together try
   `from_new_addresses` per hour for it. An address from which it has signed in is not counted
   there: strangers, however many, don't keep the owner out where the owner has been before.
4. Whoever holds a valid access token and has to prove the password for it may try `per_account`
   per minute with that login. Nothing that others do is counted there.

An attempt is counted before the password is looked at, for many may come at once. A right password
takes back what rule 2 counted, and nothing of rules 1 and 3. Whether there is such an account makes
no difference.

Where it is counted, `windows.py` says. Knows no HTTP.
"""

from uuid import UUID

from app.auth.windows import Windows


class Attempts:
    """Passwords that were tried, and registrations; a limit of 0 is none."""

    def __init__(
        self,
        *,
        per_account: int,
        per_address: int,
        from_new_addresses: int,
        registrations_per_address: int,
        windows: Windows | None = None,
    ) -> None:
        window = (windows or Windows()).window
        attempts = "attempts to sign in"
        self._address = window("address", per_address, 60, attempts)
        self._account = window("account", per_account, 60, attempts)
        self._strangers = window(
            "strangers", from_new_addresses, 3600, f"{attempts} from new addresses"
        )
        self._proofs = window("proofs", per_account, 60, "attempts to prove the password")
        self._registrations = window(
            "registrations", registrations_per_address, 3600, "registrations"
        )

    async def count_address(self, address: str) -> None:
        """Count an attempt to sign in by rule 1.

        Raises:
            RateLimited: it is one too many.
        """
        await self._address.count(address)

    async def count_account(self, account: str, address: str, *, known: bool) -> None:
        """Count an attempt to sign in by rules 2 and 3.

        Args:
            account: the key of a name, of an account or of none.
            address: where the attempt comes from.
            known: whether the account has signed in there.

        Raises:
            RateLimited: it is one too many.
        """
        await self._account.count(f"{account} {address}")
        if not known:
            await self._strangers.count(account)

    async def succeeded(self, account: str, address: str) -> None:
        """Take back what rule 2 counted: the password was right."""
        await self._account.forget(f"{account} {address}")

    async def count_proof(self, login_id: UUID) -> None:
        """Count an attempt to prove the password beside a valid token: rule 4.

        Raises:
            RateLimited: it is one too many.
        """
        await self._proofs.count(str(login_id))

    async def count_registration(self, address: str) -> None:
        """Count a registration, whatever comes of it.

        Raises:
            RateLimited: it is one too many.
        """
        await self._registrations.count(address)
