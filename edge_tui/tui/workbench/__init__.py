"""Holds the main screen: a view paints, controllers decide, the screen routes keys and events to them."""
