"""Serving: a Service, its limits, its handlers and their groups."""
