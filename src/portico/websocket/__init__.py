"""WebSockets: their settings, how one is opened, and the channel that carries their messages. Imported when needed."""
