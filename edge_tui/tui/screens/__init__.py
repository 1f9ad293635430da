"""Holds the modal screens that open over the main one."""
