"""The command line: `python -m circuits draw TARGET [KEY=VALUE]...`; the commands are in the folder `commands`."""

from circuits.commands import app

if __name__ == "__main__":
    app(prog_name="python -m circuits")
