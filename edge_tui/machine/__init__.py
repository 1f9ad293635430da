"""Reads this computer: its devices, its memory and how busy they are. Imports no torch."""
