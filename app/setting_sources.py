"""Where settings are given, on the command line, in the environment or in a file, and which counts.

A flag comes before an environment variable, that before the file, the file before the default. All
three say what they give as a name, a value and the place where it stands. Knows no setting: what
values may be is for `settings.py` to say.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

PREFIX: Final = "LLMHOST_"
CONFIG: Final = PREFIX + "CONFIG"
"""The variable that names the file; no setting, since a file can't say where it is."""
CLIENTS: Final = (PREFIX + "URL", PREFIX + "API_KEY")
"""What commands that ask a server take from the environment; no settings of the server."""
CONFIG_NAME: Final = "llmhost.toml"
"""The file that is read where none is named: the one of the current directory."""

Kind = Literal["flag", "environment", "file"]


class BadSource(ValueError):
    """The file can't be read; the message names it and the place in it."""


class Given(msgspec.Struct, frozen=True):
    """One value as it was given."""

    name: str
    """As a field of the settings would be named; not known to be one."""
    value: object
    kind: Kind
    place: str
    """Where it stands, as messages begin: `--port`, `LLMHOST_PORT`, `a.toml, line 3: port`."""

    @property
    def shown(self) -> str:
        """Place and value, for a message."""
        return f"{self.place}={self.value!r}"


def given_settings(flags: Iterable[Given], environ: Mapping[str, str]) -> list[Given]:
    """List everything that is given, what counts less before what counts more.

    Args:
        flags: those of the command line.
        environ: the environment; it also says where the file is.

    Raises:
        BadSource: the file that is named isn't there, or it is no TOML.
    """
    return [*_from_file(environ), *_from_environment(environ), *flags]


def config_path(environ: Mapping[str, str]) -> Path | None:
    """Tell which file is read; None: there is none.

    Raises:
        BadSource: the file that is named isn't there.
    """
    named = environ.get(CONFIG)
    if named is None:
        path = Path(CONFIG_NAME)
        return path if path.is_file() else None
    if not named:  # set to nothing: not even the one of the current directory
        return None
    if not Path(named).is_file():
        raise BadSource(f"{CONFIG}={named!r}: there is no such file")
    return Path(named)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in (CONFIG, *CLIENTS):
            name = variable.removeprefix(PREFIX)
            # a variable in lower case is another variable, and no setting
            known = name.lower() if name.isupper() else variable
            yield Given(known, environ[variable], "environment", variable)


def _from_file(environ: Mapping[str, str]) -> Iterator[Given]:
    path = config_path(environ)
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSource(f"{path}: {error}") from error
    for name, value in values.items():
        line = _line_of(name, text)
        yield Given(name, value, "file", f"{path}{f', line {line}' if line else ''}: {name}")


def _line_of(name: str, text: str) -> int | None:
    """Find the line of a name at the top of a TOML text, whose reader tells none."""
    key = re.escape(name)
    found = re.search(rf"^[ \t]*(?:\[+)?[ \t]*[\"']?{key}[\"']?[ \t]*[=.\]]", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else None
