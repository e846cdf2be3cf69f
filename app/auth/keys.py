"""The secrets that sign tokens: from the setting, or one made once in the data directory.

The first signs, all verify. Knows nothing of tokens.
"""

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.settings import InvalidSetting

FILE_NAME: Final = "jwt_secrets"
# RFC 7518, 3.2: a key for HS256 has at least the 256 bits of its hash.
MIN_BYTES: Final = 32


class KeyRing:
    """Secrets by their key id. The id is made from the secret, so that nothing else is kept."""

    def __init__(self, secrets_: Sequence[str]) -> None:
        self._by_id = {_key_id(secret): secret.encode() for secret in secrets_}
        self.signing_id = _key_id(secrets_[0])

    @property
    def signing_secret(self) -> bytes:
        """The secret that new tokens are signed with."""
        return self._by_id[self.signing_id]

    def get(self, key_id: str) -> bytes | None:
        """Find the secret of an id; None: it isn't ours, or not any more."""
        return self._by_id.get(key_id)


def load_keys(setting: str, data_dir: Path) -> KeyRing:
    """Read the keys from the setting, else from the file, which is made if it isn't there.

    Raises:
        InvalidSetting: a secret is shorter than 32 bytes.
    """
    if setting:
        return KeyRing(_checked(setting.split(","), "LLMHOST_JWT_SECRET"))
    path = data_dir / FILE_NAME
    if not path.exists():
        _write(path, [secrets.token_urlsafe(MIN_BYTES)], replace=False)
    return KeyRing(_checked(path.read_text().splitlines(), str(path)))


def rotate_keys(data_dir: Path) -> int:
    """Sign with a new secret from the next start on; the one before still verifies.

    Returns:
        How many secrets the file has now.
    """
    path = data_dir / FILE_NAME
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
