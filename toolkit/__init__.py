"""How a field is trained, judged and shown, and the command line over all of it."""
