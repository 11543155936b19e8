"""Options: the table of settings, and their parser. Only this package imports configargparse."""
