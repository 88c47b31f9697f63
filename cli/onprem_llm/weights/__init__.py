"""Weights on the control host: pulled from a hub, checked, kept with a manifest of our own."""
