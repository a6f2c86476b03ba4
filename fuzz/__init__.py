"""Fuzzing of everything that reads files: see README.md beside this file."""
