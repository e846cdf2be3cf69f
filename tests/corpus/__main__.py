"""`python -m tests.corpus record` and `python -m tests.corpus compare --before URL --after URL`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.corpus.asked import GROUPS
from tests.corpus.comparing import compare
from tests.corpus.playing import RECORDS, play, record_path


def record() -> int:
    """Write all records anew."""
    with tempfile.TemporaryDirectory() as folder:
        played = play(Path(folder))
    RECORDS.mkdir(exist_ok=True)
    for path in RECORDS.iterdir():
        path.unlink()
    for name, text in played.items():
        record_path(name).write_text(text, encoding="utf-8")
    num_requests = sum(len(group.requests) for group in GROUPS)
    sys.stdout.write(f"{num_requests} answers in {len(played)} files of {RECORDS}\n")
    return 0


def main() -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record", help="write the records anew")
    comparing = commands.add_parser("compare", help="ask two servers of the real default model")
    comparing.add_argument("--before", required=True, metavar="URL")
    comparing.add_argument("--after", required=True, metavar="URL")
    arguments = parser.parse_args()
    if arguments.command == "record":
        return record()
    return compare(arguments.before, arguments.after)


if __name__ == "__main__":
    sys.exit(main())
