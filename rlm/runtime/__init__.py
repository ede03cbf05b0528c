"""The runtime: processes, atomic files, and where the code comes from."""
