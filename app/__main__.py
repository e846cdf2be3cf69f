"""`python -m app …`: what an operator does beside serving. To serve: `granian app:app`."""

import argparse
import sys
from collections.abc import Sequence

from app.auth import commands as auth_commands
from app.catalog import commands as catalog_commands
from app.errors import Error
from app.settings import InvalidSetting


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    groups = parser.add_subparsers(metavar="GROUP", required=True)
    auth_commands.add_to(groups)
    catalog_commands.add_to(groups)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except (Error, InvalidSetting) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
