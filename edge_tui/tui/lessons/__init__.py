"""Lessons: short exercises in the workbench, as data, and the little that judges their steps."""
