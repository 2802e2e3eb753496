"""`adpur fit`: the stages that train, and their callbacks."""
