"""`python -m omnimind` is the command `omnimind`."""

from omnimind.cli.main import main

if __name__ == "__main__":
    main()
