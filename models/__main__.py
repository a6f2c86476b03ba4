"""`python -m models` is the command `twinkernels`."""

from .cli import main

main()
