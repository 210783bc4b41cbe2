"""`python -m tag2mask`: where the command is not on the path, and as torchrun starts it."""

from tag2mask.cli import main

if __name__ == "__main__":
    main()
