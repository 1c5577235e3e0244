"""The parts of the HTML page that text alone cannot say: intervals, answers, layers, gates."""
