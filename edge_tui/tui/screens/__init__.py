"""Modal screens opened from the main one."""
