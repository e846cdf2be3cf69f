"""The secrets that sign tokens: from the setting, or from a file that is made with one.

The first signs, all verify. One that comes new into the file verifies at once and signs only after
`SETTLE_S`, when every replica has read it: else one would refuse what another has just signed.
Knows nothing of tokens.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.settings import InvalidSetting, Settings

FILE_NAME: Final = "jwt_secrets"
# RFC 7518, 3.2: a key for HS256 has at least the 256 bits of its hash.
MIN_BYTES: Final = 32
SETTLE_S: Final = 120.0
"""Kubernetes brings a changed secret to its nodes within about 90 seconds."""


class KeyRing:
    """Secrets by their key id. The id is made from the secret, so that nothing else is kept."""

    def __init__(self, secrets_: Sequence[str], *, signing: int = 0) -> None:
        self._by_id = {_key_id(secret): secret.encode() for secret in secrets_}
        self.signing_id = _key_id(secrets_[signing])

    def __len__(self) -> int:
        return len(self._by_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyRing) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment] # nobody keeps rings by their secrets

    @property
    def signing_secret(self) -> bytes:
        """The secret that new tokens are signed with."""
        return self._by_id[self.signing_id]

    def get(self, key_id: str) -> bytes | None:
        """Find the secret of an id; None: it isn't ours, or not any more."""
        return self._by_id.get(key_id)


def key_file(settings: Settings) -> Path | None:
    """The file that the secrets are in; None: they are in a setting."""
    if settings.jwt_secret:
        return None
    if settings.jwt_secrets_file:
        return Path(settings.jwt_secrets_file)
    return settings.data_dir / FILE_NAME


def load_keys(settings: Settings) -> KeyRing:
    """Read the keys from the setting, else from the file.

    The one in the data directory is made if it isn't there.

    Raises:
        InvalidSetting: a secret is shorter than 32 bytes, or the file that a setting names can't
            be read.
    """
    file = key_file(settings)
    if file is None:
        return KeyRing(_checked(settings.jwt_secret.split(","), "LLMHOST_JWT_SECRET"))
    if not settings.jwt_secrets_file and not file.exists():
        _write(file, [secrets.token_urlsafe(MIN_BYTES)], replace=False)
    try:
        return read_keys(file)
    except OSError as error:
        if settings.jwt_secrets_file:
            raise InvalidSetting(f"LLMHOST_JWT_SECRETS_FILE: {error}") from error
        raise


def read_keys(file: Path) -> KeyRing:
    """Read the keys from the file: the first signs, or the second while the first is new.

    Raises:
        InvalidSetting: a secret is shorter than 32 bytes.
        OSError: the file can't be read.
    """
    age_s = time.time() - file.stat().st_mtime
    found = _checked(file.read_text().splitlines(), str(file))
    return KeyRing(found, signing=1 if len(found) > 1 and age_s < SETTLE_S else 0)


def rotate_keys(path: Path) -> int:
    """Put a new secret before the one that signs now, which still verifies.

    Returns:
        How many secrets the file has now.
    """
    old = path.read_text().splitlines() if path.exists() else []
    # One back is enough: rotate again only after the longest token's life.
    kept = [secrets.token_urlsafe(MIN_BYTES), *old[:1]]
    _write(path, kept, replace=True)
    return len(kept)


def _checked(found: Sequence[str], where: str) -> list[str]:
    stripped = [secret.strip() for secret in found]
    shortest = min((len(secret.encode()) for secret in stripped), default=0)
    if shortest < MIN_BYTES:
        raise InvalidSetting(
            f"{where}: a secret has {shortest} bytes, expected at least {MIN_BYTES}"
        )
    return stripped


def _write(path: Path, lines: Sequence[str], *, replace: bool) -> None:
    """Put a whole file in its place, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    part.touch(mode=0o600, exist_ok=False)
    with part.open("w") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    if replace:
        part.replace(path)
        return
    try:
        # link, unlike rename, fails when another process was first: then its secret counts
        path.hardlink_to(part)
    except FileExistsError:
        pass
    finally:
        part.unlink()


def _key_id(secret: str) -> str:
    return hashlib.sha256(b"llmhost key id " + secret.encode()).hexdigest()[:12]
