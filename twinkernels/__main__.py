"""`python -m twinkernels` is the command `twinkernels`."""

from .cli import main

main()
