"""The libraries in the package are those that the lock names, and each has its licence."""

import json

import pytest

from tests.browser.vendor import LOCK, VENDOR, sha256

PACKAGES = json.loads(LOCK.read_text())


def test_vendored_files_are_those_of_the_lock() -> None:
    locked = {
        target["to"]: target["sha256"]
        for entry in PACKAGES.values()
        for target in entry["files"].values()
    }
    present = {
        path.relative_to(VENDOR).as_posix(): sha256(path)
        for path in VENDOR.rglob("*")
        if path.is_file() and path != LOCK
    }
    assert present == locked


@pytest.mark.parametrize("package", PACKAGES)
def test_each_library_is_pinned_and_comes_with_its_licence(package: str) -> None:
    entry = PACKAGES[package]
    assert entry["version"].count(".") == 2
    assert entry["integrity"].startswith("sha512-")
    assert entry["licence"] in {"Apache-2.0", "BSD-3-Clause", "MIT"}
    assert any(target["to"].endswith("LICENSE.txt") for target in entry["files"].values())
