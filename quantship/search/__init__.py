"""Bits chosen under a constraint: what each layer loses, what it costs, and the best of all."""
