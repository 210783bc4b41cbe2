"""`python -m tag2mask.cli`, as torchrun starts it."""

from tag2mask.cli import main

if __name__ == "__main__":
    main()
