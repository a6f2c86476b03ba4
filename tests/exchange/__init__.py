"""Networks of other programs, in and out."""
