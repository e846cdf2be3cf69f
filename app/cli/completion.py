"""`llmhost completion SHELL`: what a shell runs so that Tab knows the commands."""

import click
from click.shell_completion import get_completion_class

from app.cli.output import say


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""Print a shell's completion script.

    \b
    bash:  eval "$(llmhost completion bash)"      in ~/.bashrc
    zsh:   eval "$(llmhost completion zsh)"       in ~/.zshrc
    fish:  llmhost completion fish | source       in ~/.config/fish/config.fish
    """
    script = get_completion_class(shell)
    assert script is not None, "Click has these three"
    say(script(context.find_root().command, {}, "llmhost", "_LLMHOST_COMPLETE").source())
