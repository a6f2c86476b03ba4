"""What goes wrong with data from outside."""


class DataFormatError(ValueError):
    """A file's content is not what its format demands. The message names the file, for CSV also the line."""


class DataNotFoundError(FileNotFoundError):
    """A folder or source holds no data; the message says what was looked for and what is there."""
