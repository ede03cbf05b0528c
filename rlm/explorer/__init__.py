"""The explorer: widgets that run studies from a notebook."""
