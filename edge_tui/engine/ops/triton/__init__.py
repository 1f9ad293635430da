"""Holds the kernels for NVIDIA GPUs, written in Triton."""
