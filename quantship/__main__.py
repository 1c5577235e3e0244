"""``python -m quantship``: the same as the ``quantship`` command."""

from quantship.cli import main

if __name__ == "__main__":
    main()
