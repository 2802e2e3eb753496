"""How much noise an image gets: t*, or t(x) of its score norm (SSNI)."""
