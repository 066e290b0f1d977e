"""The commands of `python -m circuits`: each takes a TARGET, which is imported, and shows one view of its diagram.

May use every other folder; typer is imported here alone. Start with `app` (the list of commands) and `summary` (one of
them), then `diagrams`, which all commands share: the diagram of a TARGET and of KEY=VALUE arguments. `targets` finds
what a TARGET names, `settings` divides the KEY=VALUE arguments, `reports` prints mistakes. A new command is a module
with one function, named in `app`.
"""

from circuits.commands.app import app

__all__ = ["app"]
