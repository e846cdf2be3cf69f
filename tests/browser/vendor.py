"""`python -m tests.browser.vendor` fetches the pages' libraries from npm into the package.

`lock.json` beside them says which packages and versions, and which of their files under which name;
it gets the hash of every file that was written. `test_vendor.py` compares the two. To move to
another version, change it in the lock and run this.
"""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from app.dialects.pages.files import FOLDER

VENDOR: Final = FOLDER / "vendor"
LOCK: Final = VENDOR / "lock.json"
# Browsers would ask for the map, which isn't there.
_SOURCE_MAP: Final = re.compile(rb"\n?//# sourceMappingURL=\S+\s*$")
# A page can't say what a bare name means without an inline import map, which its policy forbids.
_BARE: Final = re.compile(rb'from ?"preact"')


def fetch() -> None:
    """Write every file that the lock names, and its hash into the lock."""
    lock: dict[str, Any] = json.loads(LOCK.read_text())
    for path in sorted(VENDOR.rglob("*"), reverse=True):
        if path.is_file() and path != LOCK:
            path.unlink()
    for package, entry in lock.items():
        with tempfile.TemporaryDirectory() as folder:
            name = f"{package}@{entry['version']}"
            pack = ["npm", "pack", "--json", "--pack-destination", folder, name]
            told = json.loads(subprocess.run(pack, capture_output=True, check=True).stdout)
            [packed] = told if isinstance(told, list) else told.values()
            entry["integrity"] = packed["integrity"]
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                for source, target in entry["files"].items():
                    member = archive.extractfile(f"package/{source}")
                    assert member is not None, f"{name} has no file {source}"
                    written = VENDOR / target["to"]
                    written.parent.mkdir(parents=True, exist_ok=True)
                    written.write_bytes(_for_browsers(written.suffix, member.read()))
                    target["sha256"] = sha256(written)
        sys.stdout.write(f"{name}: {len(entry['files'])} files\n")
    LOCK.write_text(json.dumps(lock, indent=2) + "\n")


def sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _for_browsers(suffix: str, content: bytes) -> bytes:
    if suffix != ".js":
        return content
    return _BARE.sub(b'from"./preact.js"', _SOURCE_MAP.sub(b"\n", content))


if __name__ == "__main__":
    fetch()
