"""Hold two models against each other: their files, their stored numbers and what they compute."""
