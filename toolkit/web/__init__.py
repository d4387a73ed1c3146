"""The page that samples a model in a browser, and the code that writes it."""
