"""The documentation site: `python -m docs` builds and checks it."""
