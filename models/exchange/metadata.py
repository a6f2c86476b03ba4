"""What a file of this package says beside the network, under keys of its own."""

NORMALISATION = "twinkernels.normalisation"
"""The mean and std by which pixels become the network's input, with a space between."""
