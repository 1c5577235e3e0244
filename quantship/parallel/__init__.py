"""Training by several processes at once: who takes which sequences, and who keeps which weights."""
