"""How fast wavasr is, measured beside others on the same machine; see README.md."""
