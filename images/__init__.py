"""Builds the container images with whatever engine this machine has (`make images`)."""
