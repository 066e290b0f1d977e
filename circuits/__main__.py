"""The command line: `python -m circuits {summary,draw,count} TARGET [KEY=VALUE]...`; see the folder `commands`."""

from circuits.commands import app

if __name__ == "__main__":
    app(prog_name="python -m circuits")
