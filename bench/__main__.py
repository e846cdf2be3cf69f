"""`python -m bench PART …`: load, soak (HTTP); decode, reuse (the engine); compare, peers."""

import argparse

from bench import compare, decode, load, reuse, soak
from bench.peers import environments

PARTS = {
    "load": load,
    "soak": soak,
    "decode": decode,
    "reuse": reuse,
    "compare": compare,
    "peers": environments,
}


def main() -> None:
    """Choose the part and run it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parts = parser.add_subparsers(required=True)
    for name, part in PARTS.items():
        sub = parts.add_parser(name, help=(part.__doc__ or "").partition("\n")[0])
        part.add_arguments(sub)
        sub.set_defaults(run=part.run)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
