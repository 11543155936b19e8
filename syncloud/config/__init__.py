"""The configuration: options, values, files. Only this package imports configargparse."""
