"""The process of a command: the `ofbnas` script, and `python -m ofbnas`, which torchrun needs."""

from ofbnas.cli import main
from ofbnas.cli.process import collect_seldom, leave


def run() -> None:
    """Run the command line and end the process."""
    collect_seldom()
    try:
        main()
    except SystemExit as end:
        # Python prints an exit code that is a string; `leave` would not.
        if not isinstance(end.code, int | None):
            raise
        leave(end.code or 0)
    leave(0)


if __name__ == "__main__":
    run()
