"""Options: what a user can set, and how it is read from arguments, environment and files. Owner of configargparse."""
