"""Draw a digit in the browser and watch a network read it: the command `twinkernels draw`."""

from .reader import SHIPPED, Reader, Reading, front

__all__ = ["SHIPPED", "Reader", "Reading", "front"]
