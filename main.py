"""The entry point: `python main.py [COMMAND]`."""

import sys

try:
    from cli.app import main
except ModuleNotFoundError as error:
    sys.exit(
        f"error: the package {error.name} is not installed: pip install -r requirements.txt, or `make run`"
    )

if __name__ == "__main__":
    sys.exit(main())
