"""Computes tensor operations of a decode step that belong to no single model or strategy."""
