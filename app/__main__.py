"""`python -m app …`: the command line `llmhost`, where its script is not installed."""

import sys

from app.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="python -m app"))
