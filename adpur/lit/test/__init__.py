"""`adpur test`: the evaluation, and its callbacks."""
