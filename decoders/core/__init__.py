"""Holds what strategies are made of: parameters, stages, decoders, chains, random numbers."""
