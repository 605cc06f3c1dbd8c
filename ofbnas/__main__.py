"""`python -m ofbnas`, which torchrun needs."""

from ofbnas.cli import main

main()
