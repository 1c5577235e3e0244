"""From the artifacts of a finished run to what its report says."""
