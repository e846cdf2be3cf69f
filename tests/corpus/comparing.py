"""Ask two running servers the same of the real default model, and print where they differ.

Start both afresh with the same settings, without a rate limit: what a prompt shares with those
before it is told in the usage.
"""

import difflib
import secrets
import sys

import httpx

from tests.corpus.asked.greedy import REQUESTS
from tests.corpus.normal import Normaliser
from tests.corpus.playing import Player
from tests.corpus.request import Request, ask

TRIES = 3
"""A stream's pieces depend on how far the engine is ahead of the event loop: rarely, two tokens
come in one. So what differs is asked again, and has to be equal in one of these."""


def compare(before: str, after: str) -> int:
    """Print a diff for each request whose answers differ; returns the exit status."""
    different = 0
    with (
        httpx.Client(base_url=before, timeout=300) as one,
        httpx.Client(base_url=after, timeout=300) as other,
    ):
        players = (_signed_in(one), _signed_in(other))
        for request in REQUESTS:
            tries, texts = 0, ["", "-"]
            while texts[0] != texts[1] and tries < TRIES:
                texts = [_text(player, request) for player in players]
                tries += 1
            equal = texts[0] == texts[1]
            different += not equal
            verdict = (
                "DIFFERENT" if not equal else "equal" if tries == 1 else f"equal at try {tries}"
            )
            sys.stdout.write(f"{request.name}: {verdict}, {len(texts[0])} characters\n")
            if not equal:
                old, new = (text.split("\n") for text in texts)
                diff = difflib.unified_diff(old, new, before, after, lineterm="")
                sys.stdout.write("\n".join(diff) + "\n")
            sys.stdout.flush()
    sys.stdout.write(f"{different} of {len(REQUESTS)} answers differ\n")
    return 1 if different else 0


def _text(player: Player, request: Request) -> str:
    return Normaliser().record(player.send(request), request.show)


def _signed_in(client: httpx.Client) -> Player:
    """A player with an account of its own, so that a server can be asked again."""
    player = Player(client)
    account = {"username": f"corpus-{secrets.token_hex(8)}", "password": secrets.token_hex(16)}
    for path, save in (("/register", {}), ("/login", {"token": "access_token"})):
        answer = player.send(ask(path, path, account, save=save))
        if answer.status != 200:
            raise SystemExit(f"{client.base_url}{path}: {answer.status} {answer.body.decode()}")
    return player
