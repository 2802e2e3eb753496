"""A result is a function of its keys: noise, the rows of a network call, memory."""
