"""A chat as it stands: turns, system prompt, sampling; and the /commands that change it.

Knows no terminal: a command says what is to be shown.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from app.cli.answerer import Sampling, Turn

Next = Literal["read", "answer", "leave"]


class Said(msgspec.Struct, frozen=True):
    """What a command did: what to show, and what comes next."""

    text: str = ""
    then: Next = "read"
    model: str | None = None
    """A model to go on with."""


class Conversation:
    """One chat."""

    def __init__(self, system: str | None, sampling: Sampling) -> None:
        self.system = system
        self.sampling = sampling
        self.turns: list[Turn] = []
        self.stats = False
        """Whether to say what each answer took."""

    @property
    def asked(self) -> list[Turn]:
        """The turns with the system prompt before them."""
        system = [] if not self.system else [Turn("system", self.system)]
        return [*system, *self.turns]

    def command(self, line: str) -> Said:
        """Run a /command."""
        name, _, rest = line.removeprefix("/").partition(" ")
        run = COMMANDS.get(name.lower())
        if run is None:
            return Said(f"there is no /{name}; /help lists what there is")
        return run[1](self, rest.strip())

    def help(self, _: str) -> Said:
        """List the commands."""
        rows = [f"  {usage:<22} {text}" for usage, text in HELP]
        return Said("\n".join([*rows, *KEYS]))

    def set_system(self, text: str) -> Said:
        """Show or set the system prompt."""
        if not text:
            return Said(f"system prompt: {self.system or 'none'}")
        self.system = None if text == "-" else text
        return Said("system prompt set" if self.system else "no system prompt")

    def use_model(self, name: str) -> Said:
        """Ask for another model."""
        return Said(model=name)

    def set_sampling(self, text: str) -> Said:
        """Show or set how answers are written."""
        now = msgspec.to_builtins(self.sampling)
        if not text:
            return Said("\n".join(f"  {name:<12} {value}" for name, value in now.items()))
        name, _, value = text.partition(" ")
        if name not in now:
            return Said(f"there is no {name!r}, there are {', '.join(now)}")
        try:
            changed = msgspec.convert({**now, name: json.loads(value or "null")}, Sampling)
        except msgspec.ValidationError as error:
            expected = str(error).partition(" - at ")[0]
            return Said(f"{name} can't be {value!r}: {expected[0].lower()}{expected[1:]}")
        except ValueError:
            return Said(f"{name} can't be {value!r}")
        self.sampling = changed
        return Said(f"{name} is {msgspec.to_builtins(changed)[name]}")

    def clear(self, _: str) -> Said:
        """Begin a new chat."""
        self.turns.clear()
        return Said("a new chat begins")

    def undo(self, _: str) -> Said:
        """Take the last question and its answer back."""
        while self.turns and self.turns.pop().role != "user":
            pass
        return Said(f"{len(self.turns)} turns are left")

    def retry(self, _: str) -> Said:
        """Have the last question answered anew."""
        while self.turns and self.turns[-1].role != "user":
            self.turns.pop()
        return Said(then="answer") if self.turns else Said("nothing was asked yet")

    def show(self, _: str) -> Said:
        """Show the chat."""
        return Said("\n".join(f"{turn.role}: {turn.content}" for turn in self.asked) or "empty")

    def save(self, name: str) -> Said:
        """Write the chat to a file."""
        if not name:
            return Said("/save needs the name of a file")
        path = Path(name).expanduser()
        turns = list(self.turns)
        kept = {"system": self.system, "turns": msgspec.to_builtins(turns)}
        try:
            path.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", "utf-8")
        except OSError as error:
            return Said(f"{name} can't be written: {error.strerror}")
        return Said(f"saved {len(turns)} turns in {name}")

    def load(self, name: str) -> Said:
        """Go on with a chat that was saved."""
        try:
            kept = json.loads(Path(name).expanduser().read_text("utf-8"))
            turns = msgspec.convert(kept["turns"], list[Turn])
            system = msgspec.convert(kept["system"], str | None)
        except OSError as error:
            return Said(f"{name!r} can't be read: {error.strerror}")
        except (ValueError, KeyError, TypeError, msgspec.ValidationError):
            return Said(f"{name} is no chat that /save wrote")
        self.turns, self.system = turns, system
        return Said(f"{len(turns)} turns")

    def toggle_stats(self, _: str) -> Said:
        """Say or don't say what answers take."""
        self.stats = not self.stats
        return Said(f"what answers take is {'' if self.stats else 'not '}shown")

    def leave(self, _: str) -> Said:
        """End the program."""
        return Said(then="leave")


COMMANDS: Final[dict[str, tuple[str, Callable[[Conversation, str], Said]]]] = {
    "help": ("/help", Conversation.help),
    "system": ("/system [TEXT|-]", Conversation.set_system),
    "model": ("/model [NAME]", Conversation.use_model),
    "set": ("/set [NAME VALUE]", Conversation.set_sampling),
    "retry": ("/retry", Conversation.retry),
    "undo": ("/undo", Conversation.undo),
    "clear": ("/clear", Conversation.clear),
    "show": ("/show", Conversation.show),
    "save": ("/save FILE", Conversation.save),
    "load": ("/load FILE", Conversation.load),
    "stats": ("/stats", Conversation.toggle_stats),
    "exit": ("/exit", Conversation.leave),
}
HELP: Final = [(usage, (run.__doc__ or "").rstrip(".")) for usage, run in COMMANDS.values()]
KEYS: Final = (
    '  """ … """              A text of several lines; Alt+Enter is a new line too',
    "  Ctrl-C                 Stop the answer; Ctrl-D: end the program",
)
