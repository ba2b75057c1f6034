"""The HTTP front: `Door`, what it serves, and `fetch`. Imported when needed."""
